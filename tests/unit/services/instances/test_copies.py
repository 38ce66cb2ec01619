"""Copies are instances of their own, and so are their snapshots."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from lxpy.instances.model import Instance, snapshot_of
from lxpy.services.instances.copies import adapted
from lxpy.storage import Pool

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def instance(name: str, pool: str, config: dict[str, str]) -> Instance:
    own = {"x": {"type": "none"}}
    expanded = {**own, "root": {"type": "disk", "path": "/", "pool": pool}}
    everything = {**config, "user.profile": "p"}
    return Instance(7, "default", name, "x86_64", config, own, everything, expanded,
                    ("default",), NOW)  # fmt: skip


SOURCE = instance(
    "c1",
    "one",
    {
        "user.k": "v",
        "volatile.base_image": "ab",
        "volatile.eth0.hwaddr": "00:16:3e:00:00:01",
        "volatile.uuid": "source",
        "volatile.last_state.power": "RUNNING",
    },
)
COPY = instance(
    "c2",
    "one",
    {
        "user.k": "changed since",
        "volatile.base_image": "another",
        "volatile.eth0.hwaddr": "00:16:3e:00:00:02",
        "volatile.uuid": "copy",
        "volatile.idmap.base": "1000000",
        "volatile.last_state.power": "STOPPED",
    },
)


def test_a_snapshot_of_a_copy() -> None:
    snapshot = snapshot_of(SOURCE, "s1", NOW)
    found = adapted(snapshot, COPY, Pool("one", "dir"))
    assert found.config == {
        "user.k": "v",
        "volatile.base_image": "ab",
        "volatile.eth0.hwaddr": "00:16:3e:00:00:02",
        "volatile.uuid": "copy",
        "volatile.apply_template": "copy",
    }
    assert (found.name, found.created_at, found.profiles) == ("s1", NOW, ("default",))
    assert found.expanded_devices == snapshot.expanded_devices
    assert found.expanded_config["user.profile"] == "p"


def test_on_another_pool() -> None:
    """The root disk stays whose it is: the instance's, or a profile's that names a pool there."""
    snapshot = snapshot_of(SOURCE, "s1", NOW)
    copy = instance("c2", "two", dict(COPY.config))
    root = {"type": "disk", "path": "/", "pool": "two"}
    found = adapted(snapshot, copy, Pool("two", "dir"))
    assert "root" not in found.devices and found.inherited_devices["root"] == root
    own = replace(copy, devices={**copy.devices, "root": root})
    found = adapted(snapshot, own, Pool("two", "dir"))
    assert found.devices["root"] == root and "root" not in found.inherited_devices
