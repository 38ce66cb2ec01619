"""Every option of every device has a test that sees its effect, is refused, or is only kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lxpy.instances.devices import disk, hardware, nic_kinds, proxy, unix
from lxpy.instances.devices.base import Kind

TESTS = Path(__file__).parents[2]
_DISKS, _LIMITS = "system/test_disk_options.py", "system/test_disk_limits.py"
_HOTPLUG, _HARDWARE = "system/test_hotplug.py", "unit/instances/test_hardware.py"
_PROXY, _NICS, _NETWORK = "system/test_proxy.py", "system/test_nics.py", "system/test_network.py"
_EFFECTS, _TABLE = "system/test_option_effects.py", "unit/instances/test_devices.py"

#: type (* for all) and beginning of an option -> the test; the longest one counts
SEEN = {
    "disk path": f"{_DISKS}::test_a_directory",
    "disk source": f"{_DISKS}::test_a_directory",
    "disk source.type": "system/test_volumes.py::test_shared_by_running_instances",
    "disk pool": "system/test_volumes.py::test_shared_by_running_instances",
    "disk readonly": f"{_DISKS}::test_a_directory",
    "disk recursive": f"{_DISKS}::test_a_directory",
    "disk shift": f"{_DISKS}::test_a_directory",
    "disk raw.mount.options": f"{_DISKS}::test_a_directory",
    "disk required": f"{_DISKS}::test_one_that_need_not_be_there",
    "disk propagation": f"{_DISKS}::test_propagation",
    "disk size": "system/test_storage.py::test_a_size_holds",
    "disk limits.": f"{_LIMITS}::test_a_disk_is_slowed_down_and_freed",
    "proxy ": f"{_PROXY}::test_every_pair_of_protocols",
    "proxy bind": f"{_PROXY}::test_out_of_the_instance",
    "proxy mode": f"{_PROXY}::test_out_of_the_instance",
    "proxy uid": f"{_PROXY}::test_out_of_the_instance",
    "proxy gid": f"{_PROXY}::test_out_of_the_instance",
    "proxy security.": f"{_PROXY}::test_who_connects",
    "proxy nat": f"{_PROXY}::test_nat",
    "proxy proxy_protocol": f"{_PROXY}::test_the_server_hears_who_asks",
    "unix-char ": f"{_HOTPLUG}::test_who_may_open_what",
    "unix-char path": f"{_HOTPLUG}::test_a_node_outside_of_dev",
    "unix-char source": f"{_HOTPLUG}::test_a_node_outside_of_dev",
    "unix-char uid": f"{_HOTPLUG}::test_a_node_outside_of_dev",
    "unix-char required": f"{_HOTPLUG}::test_a_node_comes_and_goes",
    "unix-block ": f"{_HOTPLUG}::test_a_block_device_and_its_event",
    # There is no such hardware where the tests run: what is found in a made-up /sys.
    "usb ": f"{_HARDWARE}::test_what_matches",
    "unix-hotplug ": f"{_HARDWARE}::test_what_matches",
    "gpu ": f"{_HARDWARE}::test_what_matches",
    "* hwaddr": f"{_NICS}::test_macvlan",
    "* mtu": f"{_NICS}::test_macvlan",
    "* name": f"{_NICS}::test_added_and_removed_while_running",
    "* nictype": f"{_NICS}::test_added_and_removed_while_running",
    "* parent": f"{_NICS}::test_macvlan",
    "* network": f"{_NICS}::test_macvlan_network",
    "* host_name": f"{_NICS}::test_p2p",
    "* limits.": f"{_NICS}::test_limits_are_kept",
    "* limits.priority": f"{_EFFECTS}::test_queue_and_priority",
    "* queue.tx.length": f"{_EFFECTS}::test_queue_and_priority",
    "* vlan": f"{_NICS}::test_vlan_of_a_parent",
    "* gvrp": f"{_NICS}::test_vlan_of_a_parent",
    "* ipv4.routes": f"{_EFFECTS}::test_routes_of_a_bridged_nic",
    "* ipv6.routes": f"{_EFFECTS}::test_routes_of_a_bridged_nic",
    "bridged vlan": f"{_NICS}::test_vlans_of_a_bridge",
    "bridged hwaddr": f"{_NETWORK}::test_mac_filter",
    "bridged ipv4.address": f"{_NETWORK}::test_static_address",
    "bridged ipv6.address": f"{_NETWORK}::test_stateful_ipv6",
    "bridged security.mac_filtering": f"{_NETWORK}::test_mac_filter",
    "bridged security.ipv4_filtering": f"{_NETWORK}::test_ipv4_filter",
    "bridged security.ipv6_filtering": f"{_NETWORK}::test_ipv6_filter",
    "bridged security.port_isolation": f"{_NETWORK}::test_isolated_ports",
    "routed ipv4.": f"{_NICS}::test_routed",
    "routed ipv4.neighbor_probe": f"{_NICS}::test_routed_address_of_a_neighbour",
    "routed ipv4.host_address": f"{_EFFECTS}::test_hosts_end_of_a_routed_nic",
    "routed ipv4.gateway": f"{_EFFECTS}::test_hosts_end_of_a_routed_nic",
    "routed ipv6.": f"{_EFFECTS}::test_hosts_end_of_a_routed_nic",
    "ipvlan ": f"{_NICS}::test_ipvlan",
    "physical ": f"{_NICS}::test_physical",
    "sriov ": f"{_NICS}::test_sriov_without_functions",
}
#: refused with a reason
REFUSED = {
    "disk initial.": f"{_TABLE}::test_options_we_lack_are_refused",
    "disk source.snapshot": f"{_TABLE}::test_options_we_lack_are_refused",
    "* maas.subnet.": f"{_TABLE}::test_options_we_lack_are_refused",
    "* security.acls": f"{_TABLE}::test_options_we_lack_are_refused",
}
#: for virtual machines or Ceph: LXD, too, does nothing with them for a container
KEPT = ("* boot.priority", "disk ceph.", "disk io.", "disk size.state")

KINDS: dict[str, Kind] = {
    "disk": disk.DISK, "proxy": proxy.PROXY, "unix-char": unix.CHAR, "unix-block": unix.BLOCK,
    **hardware.KINDS, **nic_kinds.KINDS,
}  # fmt: skip


def where(kind: str, option: str) -> str:
    """The test of an option, "" for one that is only kept. Raises KeyError when there is none."""
    known = {**SEEN, **REFUSED, **dict.fromkeys(KEPT, "")}
    fitting = [
        (len(begin.partition(" ")[2]), begin.startswith(kind), place)
        for begin, place in known.items()
        if begin.partition(" ")[0] in (kind, "*") and option.startswith(begin.partition(" ")[2])
    ]
    if not fitting:
        raise KeyError(f"nothing shows what {option} of {kind} does: write a test, or refuse it")
    return max(fitting)[2]


@pytest.mark.parametrize(
    ("kind", "option"), [(name, key.name) for name, kind in KINDS.items() for key in kind.keys]
)
def test_every_option_is_accounted_for(kind: str, option: str) -> None:
    where(kind, option)


@pytest.mark.parametrize("place", sorted({*SEEN.values(), *REFUSED.values()}))
def test_the_tests_exist(place: str) -> None:
    file, _, name = place.partition("::")
    assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.MULTILINE), place
