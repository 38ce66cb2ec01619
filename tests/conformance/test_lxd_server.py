"""What a server says of itself and of its host, beside a real LXD on the same host."""

from __future__ import annotations

from typing import Any

from tests.conformance.conftest import Lxc, Lxd

#: of extensions that we do not list: vital product data, ethtool
ABSENT = {"vpd", "port_type", "transceiver_type", "supported_modes", "supported_ports"}


def missing(theirs: Any, ours: Any, where: str) -> list[str]:
    """Return the fields that they have and we have not, at any depth; of lists, the first item."""
    if isinstance(theirs, list):
        return missing(theirs[0], ours[0], f"{where}[0]") if theirs and ours else []
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return []
    found = [f"{where}.{key}" for key in theirs.keys() - ours.keys() - ABSENT]
    for key in theirs.keys() & ours.keys():
        found += missing(theirs[key], ours[key], f"{where}.{key}")
    return found


def test_environment(lxd: Lxd, lxc: Lxc) -> None:
    theirs, ours = (each.query("/1.0")["environment"] for each in (lxd, lxc))
    assert not theirs.keys() - ours.keys()
    same = (
        "architectures", "driver", "firewall", "kernel", "kernel_architecture", "kernel_version",
        "os_name", "os_version", "server", "server_clustered", "server_name", "server_version",
    )  # fmt: skip
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    names = {each["Name"] for each in ours["storage_supported_drivers"]}
    assert {each["Name"] for each in theirs["storage_supported_drivers"]} & {
        "dir",
        "btrfs",
    } <= names
    assert theirs["kernel_features"].keys() <= ours["kernel_features"].keys()
    assert theirs["lxc_features"].keys() <= ours["lxc_features"].keys()


def test_resources(lxd: Lxd, lxc: Lxc) -> None:
    theirs, ours = (each.query("/1.0/resources") for each in (lxd, lxc))
    assert missing(theirs, ours, "resources") == []
    assert ours["cpu"]["total"] == theirs["cpu"]["total"]
    assert ours["memory"]["total"] == theirs["memory"]["total"]
    for kind, listed in (("storage", "disks"), ("pci", "devices"), ("network", "cards")):
        assert len(ours[kind][listed]) == len(theirs[kind][listed])
    assert [each["id"] for each in ours["storage"]["disks"]] == [
        each["id"] for each in theirs["storage"]["disks"]
    ]


def test_pool_resources(lxd: Lxd, lxc: Lxc) -> None:
    theirs, ours = (each.query("/1.0/storage-pools/default/resources") for each in (lxd, lxc))
    assert missing(theirs, ours, "resources") == []
    assert abs(ours["space"]["total"] - theirs["space"]["total"]) < 1 << 20
