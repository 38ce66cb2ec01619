"""The order of starting and stopping; instance types."""

from __future__ import annotations

import pytest

from lxpy.errors import BadRequest
from lxpy.instances import boot, keys, sizes
from lxpy.instances.boot import Batch
from tests.unit.instances.test_expand import make


def test_who_starts() -> None:
    ran, stopped = {"volatile.last_state.power": "RUNNING"}, {}
    yes, no, unset = {"boot.autostart": "true"}, {"boot.autostart": "0"}, {"boot.autostart": ""}
    for config, expanded, wanted in (
        (ran, {}, True), (stopped, {}, False), (stopped, yes, True), (ran, no, False),
        (ran, unset, True),
    ):  # fmt: skip
        assert boot.starts(make(config=config, expanded_config=expanded)) is wanted


def test_order() -> None:
    def instance(name: str, **options: str) -> object:
        config = {f"boot.{key.replace('_', '.')}": value for key, value in options.items()}
        return make(name=name, expanded_config={"boot.autostart": "true", **config})

    a, b = instance("a", autostart_delay="3"), instance("b", autostart_delay="5")
    first = instance("z", autostart_priority="10", stop_priority="-1")
    everyone = [b, first, a, make(name="off")]
    assert boot.start_order(everyone) == [Batch((first,)), Batch((a, b), 5)]  # type: ignore[arg-type]
    assert [[each.name for each in batch.instances] for batch in boot.stop_order(everyone)] == [  # type: ignore[arg-type]
        ["a", "b", "off"], ["z"],
    ]  # fmt: skip
    assert boot.start_order([]) == []


def test_stop_timeout() -> None:
    assert boot.stop_timeout_s(make()) == 30
    assert boot.stop_timeout_s(make(expanded_config={"boot.host_shutdown_timeout": "5"})) == 5


@pytest.mark.parametrize(
    ("name", "cpus", "share", "memory"),
    [
        ("c2-m4", "2", None, "4096MB"), ("C1", "1", None, None), ("m0.5", None, None, "512MB"),
        ("c0.5-m0.2", "1", "50%", "204MB"), ("c1.5", "2", "75%", None),
        ("t2.micro", "1", None, "1024MB"), ("aws:t2.nano", "1", None, "512MB"),
        ("", None, None, None),
    ],
)  # fmt: skip
def test_instance_types(name: str, cpus: str | None, share: str | None, memory: str | None) -> None:
    config = sizes.limits_of(name)
    assert config.get("limits.cpu.allowance") == share
    assert (config.get("limits.cpu"), config.get("limits.memory")) == (cpus, memory)
    keys.validate(config)


@pytest.mark.parametrize("name", ["huge", "c0-m0", "-", "c", "c1-m", "m1.x", "c1m2", "-m1"])
def test_unknown_instance_types(name: str) -> None:
    with pytest.raises(BadRequest, match="^Provided instance type"):
        sizes.limits_of(name)
