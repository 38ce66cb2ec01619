"""When cloud-init is to begin anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lxpy.instances.cloudinit import begins_anew, new_id
from lxpy.instances.model import Instance

NIC = {"type": "nic", "network": "n", "name": "eth0"}
OLD = Instance(
    id=1, project="default", name="c1", architecture="x86_64", config={}, devices={},
    expanded_config={"user.user-data": "a", "user.x": "b"}, expanded_devices={"eth0": NIC},
    profiles=(), created_at=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "anew"),
    [
        ({}, False),
        ({"user.user-data": "c"}, True),
        ({"user.user-data": None}, True),
        ({"cloud-init.vendor-data": "x"}, True),
        ({"cloud-init.network-config": "x"}, True),
        ({"user.meta-data": "x"}, False),
        ({"user.x": "c", "limits.cpu": "1"}, False),
    ],
)
def test_config(changes: dict[str, str | None], anew: bool) -> None:
    config = {**OLD.expanded_config, **changes}
    new = replace(OLD, expanded_config={k: v for k, v in config.items() if v is not None})
    assert begins_anew(OLD, new) is anew


@pytest.mark.parametrize(
    ("devices", "anew"),
    [
        ({"eth0": NIC}, False),
        ({"other": NIC}, False),
        ({"eth0": NIC | {"limits.max": "1Mbit"}}, False),
        ({"eth0": NIC | {"name": "eth1"}}, True),
        ({"eth0": NIC, "eth1": {"type": "nic", "network": "n"}}, True),
        ({}, True),
        ({"eth0": NIC, "d": {"type": "disk", "source": "/mnt", "path": "/mnt"}}, False),
    ],
)
def test_cards(devices: dict[str, dict[str, str]], anew: bool) -> None:
    assert begins_anew(OLD, replace(OLD, expanded_devices=devices)) is anew


def test_ids_are_new() -> None:
    assert len({new_id() for _ in range(100)}) == 100
