"""Network devices: options, and what the networks layer needs to know of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lxpy.errors import InvalidConfig
from lxpy.instances.devices.base import Kind, Options, options
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
    choice,
    either,
    integer,
    listing,
    matching,
)

_INTERFACE = matching(
    r"(?!\.\.?$)[^\s/:]{1,15}",
    'the name of a network interface: at most 15 characters, no blank, "/" or ":"',
)
_MTU = integer(68, 65535)
_VLAN = integer(0, 4094)
_NETWORK_BANS = ("nictype", "parent", "mtu", "vlan", "vlan.tagged")

BRIDGED = Kind(
    "nic",
    options(
        ("boot.priority", UINT32),
        ("host_name", _INTERFACE, "made up"),
        ("hwaddr", HWADDR, "made up"),
        ("ipv4.address", either(ADDRESS_V4, "none")),
        ("ipv4.routes", listing(NETWORK_V4)),
        ("ipv4.routes.external", listing(NETWORK_V4)),
        ("ipv6.address", either(ADDRESS_V6, "none")),
        ("ipv6.routes", listing(NETWORK_V6)),
        ("ipv6.routes.external", listing(NETWORK_V6)),
        ("limits.egress", RATE),
        ("limits.ingress", RATE),
        ("limits.max", RATE),
        ("limits.priority", UINT32),
        ("maas.subnet.ipv4", STRING),
        ("maas.subnet.ipv6", STRING),
        ("mtu", _MTU, "the bridge's"),
        ("name", _INTERFACE, "eth0, eth1, ..."),
        ("network", STRING),
        ("nictype", choice("bridged")),
        ("parent", _INTERFACE),
        ("queue.tx.length", UINT32),
        ("security.acls", STRING),
        ("security.acls.default.egress.action", choice("allow", "drop", "reject")),
        ("security.acls.default.egress.logged", BOOL),
        ("security.acls.default.ingress.action", choice("allow", "drop", "reject")),
        ("security.acls.default.ingress.logged", BOOL),
        ("security.ipv4_filtering", BOOL, "false"),
        ("security.ipv6_filtering", BOOL, "false"),
        ("security.mac_filtering", BOOL, "false"),
        ("security.port_isolation", BOOL, "false"),
        ("vlan", either(_VLAN, "none")),
        ("vlan.tagged", STRING),
    ),
    later=(
        "maas.subnet.ipv4",
        "maas.subnet.ipv6",
        "security.acls",
        "security.acls.default.egress.action",
        "security.acls.default.egress.logged",
        "security.acls.default.ingress.action",
        "security.acls.default.ingress.logged",
    ),
)
_LATER = ("ipvlan", "macvlan", "ovn", "p2p", "physical", "routed", "sriov")


@dataclass(frozen=True, slots=True)
class NicPlan:
    """A network device of one start; `host_name` is "" where the networks layer picks one.

    One that is `made` has both its ends already, as a restore makes them.
    """

    device: str
    name: str
    hwaddr: str
    host_name: str = ""
    network: str = ""
    parent: str = ""
    mtu: int | None = None
    ipv4: str = ""
    ipv6: str = ""
    options: Options = field(default_factory=dict)
    made: bool = False


def validate(given: Options) -> None:
    """Raise InvalidConfig or NotSupported when a nic's options are not right."""
    nictype = given.get("nictype", "")
    if given.get("network"):
        for key in _NETWORK_BANS:
            if given.get(key):
                raise InvalidConfig(
                    f'Cannot use "{key}" property in conjunction with "network" property: '
                    "the network decides it"
                )
    elif nictype in _LATER:
        raise InvalidConfig(
            f'Unsupported device type: nictype "{nictype}" is not in this version of lxpy yet, '
            'use nictype "bridged" or a network'
        )
    elif nictype != "bridged":
        raise InvalidConfig(
            f'Unsupported device type: nictype "{nictype}" is unknown, use network=NETWORK, or '
            "nictype=bridged with parent=BRIDGE"
        )
    elif not given.get("parent"):
        raise InvalidConfig('Invalid value for device option "parent": Required value')
    name = given.get("name", "")
    if len(name) > 15:
        raise InvalidConfig(
            'Invalid value for device option "name": Network interface is too long '
            f'(maximum 15 characters), it is "{name}"'
        )
    BRIDGED.validate(given)


def guest_names(config: Mapping[str, str], nics: Mapping[str, Options]) -> dict[str, str]:
    """Return what each nic is called inside: its option, else what it was, else a free ethN."""
    names: dict[str, str] = {}
    for device, given in nics.items():
        name = given.get("name") or config.get(f"volatile.{device}.name")
        if name:
            names[device] = name
    taken = set(names.values())
    for device in sorted(nics.keys() - names.keys()):
        names[device] = _free(taken)
        taken.add(names[device])
    return names


def _free(taken: set[str]) -> str:
    number = 0
    while f"eth{number}" in taken:
        number += 1
    return f"eth{number}"


def plan(config: Mapping[str, str], nics: Mapping[str, Options]) -> tuple[NicPlan, ...]:
    """Return the nics in the order of their names; `config` is the instance's own.

    Its volatile keys must have the hwaddr of each nic that names none.
    """
    names = guest_names(config, nics)
    plans = (
        NicPlan(
            device=device,
            name=names[device],
            hwaddr=(given.get("hwaddr") or config[f"volatile.{device}.hwaddr"]).lower(),
            host_name=given.get("host_name", ""),
            network=given.get("network", ""),
            parent=given.get("parent", ""),
            mtu=int(given["mtu"]) if given.get("mtu") else None,
            ipv4=given.get("ipv4.address", ""),
            ipv6=given.get("ipv6.address", ""),
            options=given,
        )
        for device, given in nics.items()
    )
    return tuple(sorted(plans, key=lambda each: (len(each.name), each.name)))


def check_together(nics: Iterable[tuple[str, Options]], instance: str) -> None:
    """Raise InvalidConfig when nics of one instance get in each other's way."""
    names: dict[str, str] = {}
    networks: dict[str, str] = {}
    for device, given in nics:
        for key, seen, text in (
            ("name", names, 'Network interface name "{0}" already used by device "{1}"'),
            (
                "network",
                networks,
                'Instance DNS name "{2}" already used on network: device "{1}" is on "{0}" too',
            ),
        ):
            value = given.get(key)
            if value and value in seen:
                raise InvalidConfig(
                    f'Device validation failed for "{device}": '
                    + text.format(value, seen[value], instance)
                )
            if value:
                seen[value] = device
