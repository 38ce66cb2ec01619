"""The text of metrics, as Prometheus' own parser reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from lxpy.api.metrics import END, Samples, labels, render


def test_nothing() -> None:
    assert render([]) == END == "# EOF\n"


def test_families_are_together() -> None:
    groups = []
    for name in ("a", "b"):
        samples = Samples(name=name, project="default", type="container")
        samples.add("lxd_procs_total", 7)
        samples.add("lxd_cpu_seconds_total", 0.25, labels(cpu="0", mode="user"))
        groups.append(samples)
    assert render(groups) == (
        "# HELP lxd_cpu_seconds_total The total number of CPU time used in seconds.\n"
        "# TYPE lxd_cpu_seconds_total counter\n"
        'lxd_cpu_seconds_total{cpu="0",mode="user",name="a",project="default",type="container"}'
        " 0.25\n"
        'lxd_cpu_seconds_total{cpu="0",mode="user",name="b",project="default",type="container"}'
        " 0.25\n"
        "# HELP lxd_procs_total The number of running processes.\n"
        "# TYPE lxd_procs_total gauge\n"
        'lxd_procs_total{name="a",project="default",type="container"} 7\n'
        'lxd_procs_total{name="b",project="default",type="container"} 7\n'
        "# EOF\n"
    )


def test_labels_that_an_instance_chooses() -> None:
    samples = Samples(name="a")
    wild = 'x"} 1\n# \\'
    samples.add("lxd_network_receive_bytes_total", 1 << 60, labels(device=wild))
    (family,) = text_string_to_metric_families(render([samples]))
    (sample,) = family.samples
    assert sample.labels == {"name": "a", "device": wild} and sample.value == 1 << 60
