"""Devices: what is refused, in LXD's words, and what the others become."""

from __future__ import annotations

import pytest

from lxpy.errors import BadRequest, Failed, InvalidConfig, LxpyError, NotSupported
from lxpy.instances import devices
from lxpy.instances.devices import disk, hardware, plans
from lxpy.instances.devices.disk import VolumeSource
from lxpy.instances.devices.nic import NicPlan
from lxpy.instances.devices.unix import HostNode
from lxpy.runtime.spec import Disk, Node

ROOT = {"type": "disk", "path": "/", "pool": "default"}
NIC = {"type": "nic", "network": "lxpybr0"}


def hwaddr() -> str:
    return "00:16:3e:00:00:01"


@pytest.mark.parametrize(
    "given",
    [
        ROOT, {**ROOT, "size": "10GiB"}, NIC, {"type": "none"},
        {"type": "disk", "source": "/srv", "path": "/mnt"},
        {"type": "disk", "source": "/srv", "path": "mnt", "readonly": "true", "required": "no"},
        {"type": "disk", "source": "vol", "pool": "default", "path": "/mnt"},
        {"type": "disk", "source": "/srv", "path": "/mnt", "raw.mount.options": "noexec,nosuid"},
        {"type": "nic", "nictype": "bridged", "parent": "br0", "vlan": "5"},
        {**NIC, "ipv4.address": "10.0.0.2", "hwaddr": "00:16:3E:00:00:02", "name": "eth7"},
        {**NIC, "limits.ingress": "10Mbit", "security.mac_filtering": "true"},
        {"type": "nic", "nictype": "p2p", "ipv4.routes": "192.0.2.0/24", "limits.max": "1Mbit"},
        {"type": "nic", "nictype": "macvlan", "parent": "eno1", "vlan": "5", "gvrp": "true"},
        {"type": "nic", "nictype": "physical", "parent": "eno1", "mtu": "9000"},
        {"type": "nic", "nictype": "sriov", "parent": "eno1", "security.mac_filtering": "true"},
        {"type": "nic", "nictype": "routed", "ipv4.address": "192.0.2.1, 192.0.2.2",
         "ipv6.gateway": "none", "ipv4.routes": "198.51.100.0/24", "ipv4.host_table": "100"},
        {"type": "nic", "nictype": "ipvlan", "parent": "eno1", "ipv4.address": "192.0.2.1"},
        {"type": "nic", "nictype": "ipvlan", "parent": "eno1", "mode": "l2",
         "ipv6.address": "fd00::5/64", "ipv6.gateway": "fd00::1"},
        {"type": "nic", "nictype": "bridged", "parent": "br0", "vlan": "none",
         "vlan.tagged": "5,10-12"},
        {"type": "unix-char", "path": "/dev/kvm"},
        {"type": "unix-block", "source": "/dev/sda", "path": "/dev/x", "mode": "0600"},
        {"type": "unix-char", "path": "/dev/x", "major": "1", "minor": "3"},
    ],
)  # fmt: skip
def test_good_devices(given: dict[str, str]) -> None:
    devices.validate({"d": given})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, 'Failed loading device "d": Unsupported device type: it has no type'),
        ({"type": "foo"}, 'Failed loading device "d": Unsupported device type: "foo" is none of'),
        ({"type": "nic", "nictype": "macvlan"}, 'Invalid value for device option "parent": Requ'),
        ({"type": "nic", "nictype": "x"}, 'Failed loading device "d": Unsupported device type'),
        ({"type": "nic"}, 'Failed loading device "d": Unsupported device type'),
        ({"type": "nic", "nictype": "bridged"}, 'Invalid value for device option "parent": Requ'),
        ({**NIC, "parent": "x"}, 'Cannot use "parent" property in conjunction with "network"'),
        ({**NIC, "name": "x" * 16}, 'Invalid value for device option "name": Network interface '
                                    "is too long (maximum 15 characters)"),
        ({**NIC, "name": "a/b"}, 'Invalid value for device option "name"'),
        ({**NIC, "host_name": 'a";b'}, 'Invalid value for device option "host_name"'),
        ({**NIC, "ipv4.address": "x"}, 'Invalid value for device option "ipv4.address": Not an'),
        ({**NIC, "foo": "x"}, 'Invalid device option "foo"'),
        ({"type": "nic", "nictype": "p2p", "parent": "x"}, 'Invalid device option "parent"'),
        ({"type": "nic", "nictype": "macvlan", "parent": "x", "ipv4.address": "192.0.2.1"},
         'Invalid device option "ipv4.address"'),
        ({"type": "nic", "nictype": "routed", "ipv4.routes": "192.0.2.0/24"},
         '"ipv4.routes" requires "ipv4.address"'),
        ({"type": "nic", "nictype": "routed", "vlan": "5"}, '"vlan" requires "parent"'),
        ({"type": "nic", "nictype": "routed", "ipv4.address": "192.0.2.1,192.0.2.1"},
         'Invalid value for device option "ipv4.address": "192.0.2.1" is in it twice'),
        ({"type": "nic", "nictype": "ipvlan", "parent": "x", "ipv4.gateway": "192.0.2.1"},
         'Invalid value for device option "ipv4.gateway": in mode l3s it is "auto" or "none"'),
        ({"type": "nic", "nictype": "ipvlan", "parent": "x", "ipv4.address": "192.0.2.1/24"},
         'Invalid value for device option "ipv4.address": in mode l3s an address has no subnet'),
        ({"type": "nic", "nictype": "routed", "ipv6.address": "fe80::1%a b"},
         'Invalid value for device option "ipv6.address": Not an IPv6 address'),
        ({"type": "nic", "nictype": "ipvlan", "parent": "x", "ipv6.address": "fe80::1%a b"},
         'Invalid value for device option "ipv6.address": Not an IPv6 address'),
        ({**NIC, "gvrp": "true"}, 'Cannot use "gvrp" property in conjunction with "network"'),
        ({"type": "none", "path": "/x"}, 'Invalid device option "path"'),
        ({"type": "disk"}, 'Disk entry is missing the required "source" or "path" property'),
        ({"type": "disk", "source": "/x"}, 'Disk entry is missing the required "path"'),
        ({"type": "disk", "path": "/x"}, 'Disk entry is missing the required "source"'),
        ({**ROOT, "source": "/x"}, 'Root disk entry may not have a "source" property set'),
        ({"type": "disk", "path": "/"}, 'Root disk entry must have a "pool" property set'),
        ({**ROOT, "size": "much"}, 'Invalid value for device option "size": Invalid value: much'),
        ({"type": "disk", "path": "/x", "source": "x"}, "Source path must be absolute for local"),
        ({"type": "disk", "path": "/x", "source": "/x", "pool": "p"},
         "Storage volumes cannot be specified as absolute paths"),
        ({"type": "disk", "path": "/x", "source": "/x", "size": "1GiB"},
         "Only the root disk may have a size quota"),
        ({"type": "disk", "path": "/x", "source": "/x", "readonly": "1", "recursive": "1"},
         "Recursive read-only bind-mounts aren't currently supported by the kernel"),
        ({"type": "disk", "path": "/a/../b", "source": "/x"}, 'Invalid value for device option'),
        ({"type": "disk", "path": "//", "source": "/x"}, 'Invalid value for device option "path"'),
        ({"type": "disk", "path": "/x", "source": "/x", "raw.mount.options": "uid=0"},
         'Invalid value for device option "raw.mount.options"'),
        ({"type": "unix-char"}, 'Unix device entry is missing the required "source" or "path"'),
        ({"type": "unix-char", "path": "dev/x"}, 'Invalid value for device option "path"'),
        ({"type": "unix-char", "path": "/dev/../etc/x"}, 'Invalid value for device option "path"'),
        ({"type": "unix-char", "path": "/dev/x", "major": "1"}, "Both major and minor must be"),
        ({"type": "unix-char", "path": "/dev/x", "mode": "999"}, "Invalid value for device opt"),
    ],
)  # fmt: skip
def test_refused(given: dict[str, str], text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        devices.validate({"d": given})
    assert str(caught.value).startswith(f'Device validation failed for "d": {text}')


@pytest.mark.parametrize("kind", sorted(hardware.REFUSED))
def test_types_we_lack_are_refused_by_name(kind: str) -> None:
    with pytest.raises(NotSupported, match=f'Unsupported device type "{kind}"'):
        devices.validate({"d": {"type": kind, "listen": "tcp:1"}})


@pytest.mark.parametrize(
    "given",
    [
        {"type": "disk", "source": "/x", "path": "/x", "source.snapshot": "s0"},
        {"type": "disk", "source": "cephfs:x", "path": "/x"},
        {**NIC, "security.acls": "web"},
    ],
)
def test_options_we_lack_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(NotSupported, match="^Device validation failed"):
        devices.validate({"d": given})


def test_devices_go_together() -> None:
    good = {"root": ROOT, "eth0": NIC, "eth1": {**NIC, "network": "other"}}
    devices.validate(good, expanded=True, instance="c1")
    data = {"type": "disk", "source": "/x", "path": "/x"}
    for extra, text in (
        ({"eth2": NIC}, 'Instance DNS name "c1" already used on network'),
        ({"a": data, "b": {**data, "path": "x/"}}, "More than one disk device uses the same path"),
        ({"a": {**NIC, "network": "a", "name": "e"}, "b": {**NIC, "network": "b", "name": "e"}},
         "already used by device"),
        ({"r1": {"type": "nic", "nictype": "routed", "ipv4.address": "192.0.2.1"},
          "r2": {"type": "nic", "nictype": "routed", "ipv4.address": "192.0.2.2"}},
         'Existing NIC "r1" already uses "ipv4.gateway" in auto mode'),
    ):  # fmt: skip
        with pytest.raises(BadRequest, match=text):
            devices.validate({**good, **extra}, expanded=True, instance="c1")
        devices.validate({**good, **extra})
    with pytest.raises(BadRequest, match="^No root device could be found"):
        devices.validate({"eth0": NIC}, expanded=True)


def test_no_error_repeats_itself() -> None:
    with pytest.raises(LxpyError) as caught:
        devices.validate({"d": {"type": "foo"}})
    assert str(caught.value).count("Failed loading") == 1


def test_disks() -> None:
    given = {
        "root": ROOT,
        "b": {"type": "disk", "source": "/srv", "path": "/mnt/in", "shift": "true"},
        "a": {"type": "disk", "source": "vol", "pool": "p", "path": "mnt", "readonly": "1"},
        "gone": {"type": "disk", "source": "no", "pool": "p", "path": "/no", "required": "false"},
        "masked": {"type": "none"},
    }
    plan = devices.plan({}, given, {"a": VolumeSource("/pool/vol")})
    assert plan.disks == (
        Disk("/pool/vol", "/mnt", readonly=True),
        Disk("/srv", "/mnt/in", shift=True),
    )
    with pytest.raises(Failed, match='device "a": Missing source path "p/vol" for disk "a"'):
        devices.plan({}, given)


def test_volumes_that_are_shown_as_devices() -> None:
    given = {"type": "disk", "source": "vol", "pool": "p", "path": "/dev/db", "readonly": "1"}
    plan = devices.plan({}, {"d": given}, {"d": VolumeSource(node=HostNode("b", 7, 3))})
    assert plan.nodes == (Node("/dev/db", "b", 7, 3, device="d"),)
    assert not plan.disks
    assert disk.device_path(given) == "/dev/db"
    assert disk.device_path({**given, "pool": ""}) is None
    assert disk.device_path({**given, "path": "srv"}) is None
    disk.check_content("d", given, "block")
    with pytest.raises(InvalidConfig, match=r'"vol" has content type "block".*such as "/dev/vol"'):
        disk.check_content("d", {**given, "path": "/srv"}, "block")
    disk.check_content("d", {**given, "path": "/srv"}, "iso")


def test_host_paths_are_not_shifted_unless_asked() -> None:
    given = {"type": "disk", "source": "/srv", "path": "/mnt", "raw.mount.options": "ro,noexec"}
    planned = disk.plan("d", given, None)
    assert not planned.shift
    assert planned.readonly
    assert disk.plan("d", {**given, "shift": "yes"}, None).shift


def test_device_nodes() -> None:
    given = {
        "kvm": {"type": "unix-char", "path": "/dev/kvm", "gid": "36", "mode": "0666"},
        "sda": {"type": "unix-block", "source": "/dev/sda", "path": "/dev/disk", "required": "no"},
        "null": {"type": "unix-char", "path": "/dev/nothing", "major": "1", "minor": "3"},
    }
    assert devices.needs(given).paths == {"kvm": "/dev/kvm", "sda": "/dev/sda"}
    nodes = devices.plan({}, given, nodes=plans.Nodes({"kvm": HostNode("c", 10, 232)})).nodes
    assert nodes == (
        Node("/dev/kvm", "c", 10, 232, 0o666, 0, 36, "kvm"),
        Node("/dev/nothing", "c", 1, 3, device="null"),
    )
    with pytest.raises(Failed, match="required device path doesn't exist"):
        devices.plan({}, given)
    with pytest.raises(Failed, match="is not a unix-char device"):
        devices.plan({}, given, nodes=plans.Nodes({"kvm": HostNode("b", 10, 232)}))


def test_nics() -> None:
    given = {
        "wan": {"type": "nic", "nictype": "bridged", "parent": "br0", "mtu": "1400"},
        "lan": {**NIC, "ipv4.address": "10.0.0.9", "host_name": "vethx"},
        "eth0": {**NIC, "network": "n2", "name": "eth1", "hwaddr": "00:16:3E:00:00:0A"},
    }
    config = plans.volatile_config({}, given, hwaddr)
    assert config == {
        "volatile.lan.hwaddr": hwaddr(), "volatile.lan.name": "eth0",
        "volatile.wan.hwaddr": hwaddr(), "volatile.wan.name": "eth2",
    }  # fmt: skip
    assert plans.volatile_config(config, given, lambda: "other") == config
    assert devices.plan(config, given).nics == (
        NicPlan("lan", "eth0", hwaddr(), host_name="vethx", network="lxpybr0", ipv4="10.0.0.9",
                options=given["lan"]),
        NicPlan("eth0", "eth1", "00:16:3e:00:00:0a", network="n2", options=given["eth0"]),
        NicPlan("wan", "eth2", hwaddr(), "bridged", parent="br0", mtu=1400, options=given["wan"]),
    )  # fmt: skip


def test_volatile_keys_of_removed_devices_go() -> None:
    old = {"a": NIC, "a.b": NIC}
    config = {"user.x": "1", "volatile.a.hwaddr": "1", "volatile.a.name": "eth0",
              "volatile.a.b.hwaddr": "2", "volatile.a.b.name": "eth1",
              "volatile.idmap.base": "5"}  # fmt: skip
    assert plans.volatile_config(config, {"a.b": NIC}, hwaddr, gone=old) == {
        "user.x": "1", "volatile.a.b.hwaddr": "2", "volatile.a.b.name": "eth1",
        "volatile.idmap.base": "5",
    }  # fmt: skip


def test_names_inside_stay_when_a_device_is_added() -> None:
    first = plans.volatile_config({}, {"b": NIC}, hwaddr)
    both = plans.volatile_config(first, {"a": NIC, "b": NIC}, hwaddr)
    assert both["volatile.b.name"] == "eth0"
    assert both["volatile.a.name"] == "eth1"
    odd = plans.volatile_config({**first, "volatile.b.name": "x\ny"}, {"b": NIC}, hwaddr)
    assert odd["volatile.b.name"] == "eth0"
