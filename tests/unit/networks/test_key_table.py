"""Every key of every network has a test that sees its effect, is refused, or is only kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lxpy.networks import parentkeys
from lxpy.networks.keys import BRIDGE

TESTS = Path(__file__).parents[2]
_NETWORK, _EFFECTS = "system/test_network.py", "system/test_option_effects.py"
_UNIT = "unit/networks/test_keys.py"

#: beginning of a key of bridges -> the test; the longest one counts
SEEN = {
    "bridge.external_interfaces": f"{_NETWORK}::test_external_interface",
    "bridge.hwaddr": f"{_NETWORK}::test_dhcp_options",
    "bridge.mtu": f"{_NETWORK}::test_dhcp_options",
    "dns.domain": f"{_NETWORK}::test_dns_modes",
    "dns.mode": f"{_NETWORK}::test_dns_modes",
    "dns.search": f"{_NETWORK}::test_dhcp_options",
    "ipv4.address": f"{_NETWORK}::test_change_at_once",
    "ipv4.dhcp": f"{_NETWORK}::test_dhcp_options",
    "ipv4.firewall": f"{_NETWORK}::test_nat_order_and_address",
    "ipv4.nat": f"{_NETWORK}::test_nat_order_and_address",
    "ipv4.routes": f"{_NETWORK}::test_dhcp_options",
    "ipv4.routing": f"{_NETWORK}::test_nat_order_and_address",
    "ipv6.": f"{_EFFECTS}::test_ipv6_of_a_bridge",
    "ipv6.address": f"{_NETWORK}::test_ipv6_address",
    "ipv6.dhcp.": f"{_NETWORK}::test_stateful_ipv6",
    "raw.dnsmasq": f"{_NETWORK}::test_dhcp_options",
    "security.acls": "system/test_network_policies.py::test_acl",
    "security.acls.default.": f"{_EFFECTS}::test_defaults_of_acls",
    "tunnel.": f"{_NETWORK}::test_vxlan",
}
REFUSED = dict.fromkeys(
    (
        "bgp.",
        "bridge.driver",
        "bridge.mode",
        "dns.zone.",
        "fan.",
        "ipv4.ovn.",
        "ipv6.ovn.",
        "maas.",
    ),
    f"{_UNIT}::test_refused_by_name",
)
KEPT = ("user.",)
#: networks that are an interface of the host
OF_PARENTS = {
    "gvrp": "system/test_nics.py::test_vlan_of_a_parent",
    "mtu": "system/test_nics.py::test_macvlan_network",
    "parent": "system/test_nics.py::test_macvlan_network",
    "vlan": "system/test_nics.py::test_vlan_of_a_parent",
    **dict.fromkeys(parentkeys.LATER, f"{_UNIT}::test_options_of_uplinks_are_refused"),
}


def where(known: dict[str, str], key: str) -> str:
    """The test of a key, "" for one that is only kept. Raises KeyError when there is none."""
    known = {**known, **dict.fromkeys(KEPT, "")}
    fitting = [begin for begin in known if key.startswith(begin)]
    if not fitting:
        raise KeyError(f"nothing shows what {key} does: write a test, or refuse it")
    return known[max(fitting, key=len)]


@pytest.mark.parametrize("key", [each.name for each in BRIDGE])
def test_every_key_of_bridges_is_accounted_for(key: str) -> None:
    where({**SEEN, **REFUSED}, key)


@pytest.mark.parametrize(
    "key", sorted({each.name for keys in parentkeys.KEYS.values() for each in keys})
)
def test_every_key_of_other_networks_is_accounted_for(key: str) -> None:
    where(OF_PARENTS, key)


@pytest.mark.parametrize("place", sorted({*SEEN.values(), *REFUSED.values(), *OF_PARENTS.values()}))
def test_the_tests_exist(place: str) -> None:
    file, _, name = place.partition("::")
    assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.MULTILINE), place
