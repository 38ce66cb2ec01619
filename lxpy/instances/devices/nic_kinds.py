"""The options of network devices, one table for each nictype.

Source: LXD docs, "Type: nic".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_interface

from lxpy.errors import InvalidConfig
from lxpy.instances.devices.base import Kind, options
from lxpy.keys import (
    ADDRESS_V4,
    ADDRESS_V6,
    BOOL,
    HWADDR,
    NETWORK_V4,
    NETWORK_V6,
    RATE,
    STRING,
    UINT32,
    Type,
    choice,
    either,
    integer,
    listing,
    matching,
    mtu,
)

Declared = tuple[str, Type] | tuple[str, Type, str]

_INTERFACE = matching(
    r"(?!\.\.?$)[^\s/:]{1,15}",
    'the name of a network interface: at most 15 characters, no blank, "/" or ":"',
)
#: what becomes a word of commands and rules
_NAME = matching(
    r"(?!\.\.?$)[A-Za-z0-9_.][-A-Za-z0-9_.]{0,14}",
    "the name of a network interface: at most 15 letters, digits, hyphens, underscores, full stops",
)
_MTU = mtu(68)
_VLAN = integer(0, 4094)
_TAGGED = listing(
    matching(r"[0-9]{1,4}(\s*-\s*[0-9]{1,4})?", 'a VLAN, or a range of them such as "10-20"')
)
_TABLE = integer(1, (1 << 32) - 1)


def _inside(version: int) -> Type:
    """Addresses with or without a subnet."""

    def check(value: str) -> None:
        try:
            found = None if "%" in value else ip_interface(value)
        except ValueError:
            found = None
        if found is None or found.version != version:
            raise InvalidConfig(f'Not an IPv{version} address "{value}"')

    return Type("string", check)


_INSIDE_V4, _INSIDE_V6 = _inside(4), _inside(6)

_ALL = (
    ("boot.priority", UINT32),
    ("hwaddr", HWADDR, "made up"),
    ("mtu", _MTU, "the parent's"),
    ("name", _NAME, "eth0, eth1, ..."),
)
_ON_PARENT = (("nictype", STRING), ("parent", _INTERFACE))
_ON_NETWORK = (("network", STRING), ("maas.subnet.ipv4", STRING), ("maas.subnet.ipv6", STRING))
_PAIR = (
    ("host_name", _NAME, "made up"),
    ("limits.egress", RATE),
    ("limits.ingress", RATE),
    ("limits.max", RATE),
    ("limits.priority", UINT32),
    ("queue.tx.length", UINT32),
)
_ROUTES = (("ipv4.routes", listing(NETWORK_V4)), ("ipv6.routes", listing(NETWORK_V6)))
_TAG = (("vlan", _VLAN), ("gvrp", BOOL, "false"))
_MAAS = ("maas.subnet.ipv4", "maas.subnet.ipv6")
_ACLS = (
    ("security.acls", STRING),
    *(
        (f"security.acls.default.{way}.{what}", kind)
        for way in ("egress", "ingress")
        for what, kind in (("action", choice("allow", "drop", "reject")), ("logged", BOOL))
    ),
)


def _kind(*groups: Iterable[Declared], later: tuple[str, ...] = ()) -> Kind:
    return Kind("nic", options(*(each for group in groups for each in group)), later=later)


_BRIDGED = _kind(
    _ALL,
    _ON_PARENT,
    _ON_NETWORK,
    _PAIR,
    _ROUTES,
    (
        ("ipv4.address", either(ADDRESS_V4, "none")),
        ("ipv4.routes.external", listing(NETWORK_V4)),
        ("ipv6.address", either(ADDRESS_V6, "none")),
        ("ipv6.routes.external", listing(NETWORK_V6)),
        ("security.ipv4_filtering", BOOL, "false"),
        ("security.ipv6_filtering", BOOL, "false"),
        ("security.mac_filtering", BOOL, "false"),
        ("security.port_isolation", BOOL, "false"),
        ("vlan", either(_VLAN, "none")),
        ("vlan.tagged", _TAGGED),
    ),
    _ACLS,
    later=(*_MAAS, *(name for name, _ in _ACLS)),
)
_MACVLAN = _kind(_ALL, _ON_PARENT, _ON_NETWORK, _TAG, later=_MAAS)
_SRIOV = _kind(
    _ALL,
    _ON_PARENT,
    _ON_NETWORK,
    (("security.mac_filtering", BOOL, "false"), ("vlan", _VLAN)),
    later=_MAAS,
)

#: nictype -> its options
KINDS: Mapping[str, Kind] = {
    "bridged": _BRIDGED,
    "ipvlan": _kind(
        _ALL,
        _ON_PARENT,
        _TAG,
        (
            ("ipv4.address", listing(_INSIDE_V4)),
            ("ipv4.gateway", either(ADDRESS_V4, "auto", "none")),
            ("ipv4.host_table", _TABLE),
            ("ipv6.address", listing(_INSIDE_V6)),
            ("ipv6.gateway", either(ADDRESS_V6, "auto", "none")),
            ("ipv6.host_table", _TABLE),
            ("mode", choice("l2", "l3s"), "l3s"),
        ),
    ),
    "macvlan": _MACVLAN,
    "p2p": _kind(_ALL, _ON_PARENT, _PAIR, _ROUTES),
    "physical": _MACVLAN,
    "routed": _kind(
        _ALL,
        _ON_PARENT,
        _TAG,
        _PAIR,
        _ROUTES,
        (
            ("ipv4.address", listing(ADDRESS_V4)),
            ("ipv4.gateway", choice("auto", "none"), "auto"),
            ("ipv4.host_address", ADDRESS_V4, "169.254.0.1"),
            ("ipv4.host_table", _TABLE),
            ("ipv4.neighbor_probe", BOOL, "true"),
            ("ipv6.address", listing(ADDRESS_V6)),
            ("ipv6.gateway", choice("auto", "none"), "auto"),
            ("ipv6.host_address", ADDRESS_V6, "fe80::1"),
            ("ipv6.host_table", _TABLE),
            ("ipv6.neighbor_probe", BOOL, "true"),
        ),
    ),
    "sriov": _SRIOV,
}
#: network type -> nictype of the nics on it
OF_NETWORK: Mapping[str, str] = {
    "bridge": "bridged",
    "macvlan": "macvlan",
    "physical": "physical",
    "sriov": "sriov",
}
#: nictypes that are a pair of interfaces: their links are saved with an instance's memory
SAVED = ("bridged", "p2p", "routed")
#: options that change without another link, by nictype
LIVE: Mapping[str, frozenset[str]] = {
    "bridged": frozenset(each.name for each in _BRIDGED.keys)
    - {"boot.priority", "host_name", "hwaddr", "mtu", "name", "network", "nictype", "parent"}
    - {"queue.tx.length", "vlan", "vlan.tagged"},
    "p2p": frozenset(name for name, *_ in (*_PAIR, *_ROUTES)) - {"host_name", "queue.tx.length"},
    "routed": frozenset(("limits.egress", "limits.ingress", "limits.max", "limits.priority")),
}
