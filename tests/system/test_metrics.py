"""Metrics: what they say against what the guest and the kernel say, and who may have them."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch
from tests.support.processes import wait_until
from tests.support.tls import free_port, self_signed

#: name and labels of each sample, and its value
Found = list[tuple[str, dict[str, str], float]]

KEYS = ("core.https_address", "core.metrics_address", "core.metrics_authentication")


def parsed(text: str) -> Found:
    assert text.endswith("# EOF\n")
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def read(daemon: Daemon, query: str = "") -> Found:
    status, headers, data = daemon.api.raw("GET", f"/1.0/metrics{query}")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    return parsed(data.decode())


def of(found: Found, name: str, instance: str, **labels: str) -> float:
    """The sum of an instance's samples of a name that have those labels."""
    wanted = {"name": instance, "project": "default", **labels}.items()
    values = [value for each, its, value in found if each == name and wanted <= its.items()]
    assert values, f"no {name} of {labels}"
    return sum(values)


@pytest.fixture
def measured(daemon: Daemon) -> Callable[[str], Found]:
    """What is said of an instance: for some seconds, an older pass is still good."""

    def wait(name: str) -> Found:
        wait_until(lambda: name in {its["name"] for _, its, _ in read(daemon)}, 20)
        return read(daemon)

    return wait


def certified(pem: Path, url: str) -> tuple[int, str]:
    """Ask with a certificate, or without one when there is no file."""
    context = ssl._create_unverified_context()
    if pem.exists():
        context.load_cert_chain(pem)
    host, _, path = url.partition("/")
    connection = http.client.HTTPSConnection(host, context=context, timeout=30)
    try:
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def configured(daemon: Daemon) -> Iterator[Callable[..., None]]:
    """Set server keys, "https_address" ...; unset after the test, which trusts nobody any more."""

    def set_keys(**values: str) -> None:
        config = {f"core.{key}": value for key, value in values.items()}
        daemon.api.call("PATCH", "/1.0", {"config": config})

    yield set_keys
    daemon.api.call("PATCH", "/1.0", {"config": dict.fromkeys(KEYS, "")})
    for url in daemon.api.get("/1.0/certificates"):
        daemon.api.call("DELETE", url)


def test_what_they_say(
    daemon: Daemon, launch: Launch, measured: Callable[[str], Found], tmp_path: Path
) -> None:
    shown = {"type": "disk", "source": str(tmp_path), "path": "/mnt"}
    name = launch(config={"limits.memory": "200MiB"}, devices={"shown": shown})
    daemon.address(name)
    daemon.exec(name, "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
    found = measured(name)
    assert of(found, "lxd_memory_MemTotal_bytes", name) == 200 << 20
    free = of(found, "lxd_memory_MemFree_bytes", name)
    assert 0 < free <= of(found, "lxd_memory_MemAvailable_bytes", name) <= 200 << 20
    assert 0 < of(found, "lxd_memory_RSS_bytes", name) < 100 << 20
    user = of(found, "lxd_cpu_seconds_total", name, mode="user")
    assert 0.01 < user < 60 and of(found, "lxd_cpu_seconds_total", name, mode="system") > 0
    total_s = daemon.state(name)["cpu"]["usage"] / 1e9
    assert user + of(found, "lxd_cpu_seconds_total", name, mode="system") <= total_s + 0.1
    assert 1 <= of(found, "lxd_procs_total", name) < 20
    # The guest counts the same packets.
    line = next(each for each in daemon.out(name, "cat", "/proc/net/dev").splitlines()
                if "eth0:" in each)  # fmt: skip
    received = [int(each) for each in line.split(":")[1].split()]
    counted = of(found, "lxd_network_receive_packets_total", name, device="eth0")
    assert 0 < counted <= received[1]
    assert of(found, "lxd_network_transmit_bytes_total", name, device="eth0") > 0
    assert of(found, "lxd_network_receive_bytes_total", name, device="lo") == 0
    said = os.statvfs(tmp_path)
    labels = {"mountpoint": "/mnt", "device": str(tmp_path)}
    size = of(found, "lxd_filesystem_size_bytes", name, **labels)
    assert size == said.f_blocks * said.f_frsize
    assert of(found, "lxd_filesystem_avail_bytes", name, mountpoint="/", device="") > 0


def test_of_which_instances(
    daemon: Daemon, launch: Launch, measured: Callable[[str], Found],
    configured: Callable[..., None], tmp_path: Path,
) -> None:  # fmt: skip
    """Of those that run; a pass is for all who ask meanwhile."""
    name = launch()
    begin = measured(name)
    daemon.exec(name, "true")
    assert read(daemon) == begin
    assert {its["project"] for _, its, _ in read(daemon, "?project=default")} == {"default"}
    assert read(daemon, "?project=nosuch") == []
    with pytest.raises(ApiError, match="501"):
        daemon.api.call("POST", "/1.0/metrics")
    # A restricted client sees those of its projects.
    pem, place = tmp_path / "tenant.pem", f"127.0.0.1:{free_port()}"
    (tmp_path / "tenant.crt").write_text(self_signed(pem))
    configured(https_address=place)
    daemon.lxpy("config", "trust", "add", tmp_path / "tenant.crt", "--restricted")
    (url,) = daemon.api.get("/1.0/certificates")
    assert certified(pem, f"{place}/1.0/metrics") == (200, "# EOF\n")
    daemon.api.call("PATCH", url, {"projects": ["default"]})
    assert parsed(certified(pem, f"{place}/1.0/metrics")[1]) == read(daemon)
    daemon.lxpy("stop", name, "--force")
    wait_until(lambda: name not in {its["name"] for _, its, _ in read(daemon)}, 20)


def test_a_listener_of_their_own(
    daemon: Daemon, configured: Callable[..., None], tmp_path: Path
) -> None:
    place, nobody = f"127.0.0.1:{free_port()}", tmp_path / "none"
    configured(metrics_address=place)
    assert certified(nobody, f"{place}/1.0/metrics")[0] == 403
    status, text = certified(nobody, f"{place}/1.0")
    assert status == 200 and json.loads(text)["metadata"]["auth"] == "untrusted"
    pem = tmp_path / "metrics.pem"
    (tmp_path / "metrics.crt").write_text(self_signed(pem))
    daemon.lxpy("config", "trust", "add", tmp_path / "metrics.crt", "--type", "metrics")
    status, text = certified(pem, f"{place}/1.0/metrics")
    assert status == 200 and text.endswith("# EOF\n")
    assert certified(pem, f"{place}/1.0/instances")[0] == 404
    # On the other listener, it is good for metrics, too, and for nothing else.
    other = f"127.0.0.1:{free_port()}"
    configured(https_address=other)
    assert certified(pem, f"{other}/1.0/metrics")[0] == 200
    assert certified(pem, f"{other}/1.0/instances")[0] == 403
    status, text = certified(pem, f"{other}/1.0")
    assert status == 200 and "config" not in json.loads(text)["metadata"]
    configured(metrics_address="")
    with pytest.raises(ConnectionRefusedError):
        certified(pem, f"{place}/1.0/metrics")


def test_open_to_all(daemon: Daemon, configured: Callable[..., None], tmp_path: Path) -> None:
    place, nobody = f"127.0.0.1:{free_port()}", tmp_path / "none"
    configured(metrics_address=place, metrics_authentication="false")
    assert certified(nobody, f"{place}/1.0/metrics")[0] == 200
    configured(metrics_authentication="true")
    assert certified(nobody, f"{place}/1.0/metrics")[0] == 403


def test_an_address_that_is_taken(daemon: Daemon, configured: Callable[..., None]) -> None:
    """Both addresses stay what they were."""
    first, second = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    configured(https_address=first)
    with pytest.raises(ApiError, match="Cannot listen on metrics address.*in use"):
        configured(https_address=second, metrics_address=second)
    config = daemon.api.get("/1.0")["config"]
    assert config["core.https_address"] == first and "core.metrics_address" not in config
    assert certified(Path("/nowhere"), f"{first}/1.0")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        certified(Path("/nowhere"), f"{second}/1.0")
