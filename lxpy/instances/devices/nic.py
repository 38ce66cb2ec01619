"""Network devices: options, and what the networks layer needs to know of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lxpy.errors import InvalidConfig
from lxpy.instances.devices.base import Options
from lxpy.instances.devices.nic_kinds import KINDS, OF_NETWORK

_NETWORK_BANS = ("nictype", "parent", "mtu", "gvrp")
_PARENTLESS = ("p2p", "routed")
_NAME = re.compile(r"[-A-Za-z0-9_.]{1,15}")


@dataclass(frozen=True, slots=True)
class NicPlan:
    """A network device of one start; `host_name` is "" where the networks layer picks one.

    One that is `made` has both its ends already, as a restore makes them.
    """

    device: str
    name: str
    hwaddr: str
    nictype: str = ""
    host_name: str = ""
    network: str = ""
    parent: str = ""
    mtu: int | None = None
    ipv4: str = ""
    ipv6: str = ""
    options: Options = field(default_factory=dict)
    made: bool = False


def nictype(given: Options, networks: Mapping[str, str]) -> str:
    """Return the nictype of a nic; `networks` maps managed networks to their types.

    "" for one on a network that does not exist.
    """
    network = given.get("network")
    if network:
        return OF_NETWORK.get(networks.get(network, ""), "")
    return given.get("nictype", "")


def validate(given: Options) -> None:
    """Raise InvalidConfig or NotSupported when a nic's options are not right."""
    kind = given.get("nictype", "")
    if given.get("network"):
        for key in _NETWORK_BANS:
            if given.get(key):
                raise decided(key)
        kind = _on_network(given)
    elif kind not in KINDS:
        known = ", ".join(KINDS)
        said = f'nictype "{kind}" is unknown' if kind else "it has neither network nor nictype"
        raise InvalidConfig(
            f"Unsupported device type: {said}; use network=NETWORK, or nictype={known}"
        )
    elif kind not in _PARENTLESS and not given.get("parent"):
        raise InvalidConfig('Invalid value for device option "parent": Required value')
    name = given.get("name", "")
    if len(name) > 15:
        raise InvalidConfig(
            'Invalid value for device option "name": Network interface is too long '
            f'(maximum 15 characters), it is "{name}"'
        )
    KINDS[kind].validate(given)
    _check_rules(kind, given)


def decided(key: str) -> InvalidConfig:
    """Return the error of an option that is the network's to say."""
    return InvalidConfig(
        f'Cannot use "{key}" property in conjunction with "network" property: '
        "the network decides it"
    )


def _on_network(given: Options) -> str:
    """Return a nictype of networks whose table has all options given: the network may not exist."""
    for kind in ("bridged", "macvlan", "sriov"):
        if all(KINDS[kind].keys.find(key) for key in given if key != "type"):
            return kind
    return "bridged"


def _check_rules(kind: str, given: Options) -> None:
    """Check what depends on several options."""
    if kind == "p2p" and given.get("parent"):
        raise InvalidConfig('Invalid device option "parent": a p2p nic has none')
    if kind == "routed":
        for family in ("ipv4", "ipv6"):
            if given.get(f"{family}.routes") and not given.get(f"{family}.address"):
                raise InvalidConfig(
                    f'"{family}.routes" requires "{family}.address": they lead to that address'
                )
        if given.get("vlan") and not given.get("parent"):
            raise InvalidConfig('"vlan" requires "parent": a VLAN is on an interface')
    if kind == "ipvlan":
        _check_ipvlan(given)
    if kind in ("routed", "ipvlan"):
        _check_doubles(given)


def _check_ipvlan(given: Options) -> None:
    """In mode l3s the gateway is a device, in l2 it is an address."""
    mode = given.get("mode") or "l3s"
    for family in ("ipv4", "ipv6"):
        gateway = given.get(f"{family}.gateway", "")
        named = gateway not in ("", "auto", "none")
        if mode == "l3s" and named or mode == "l2" and gateway == "auto":
            wanted = '"auto" or "none"' if mode == "l3s" else "an address"
            raise InvalidConfig(
                f'Invalid value for device option "{family}.gateway": in mode {mode} it is {wanted}'
            )
        if mode == "l2" and given.get(f"{family}.host_table"):
            raise InvalidConfig(
                f'"{family}.host_table" is for mode l3s: in l2 the host routes none'
            )
        for each in split(given.get(f"{family}.address", "")):
            if mode == "l3s" and "/" in each and not each.endswith(("/32", "/128")):
                raise InvalidConfig(
                    f'Invalid value for device option "{family}.address": in mode l3s an address '
                    f'has no subnet, it is "{each}"'
                )


def _check_doubles(given: Options) -> None:
    for family in ("ipv4", "ipv6"):
        found = split(given.get(f"{family}.address", ""))
        for each in found:
            if found.count(each) > 1:
                raise InvalidConfig(
                    f'Invalid value for device option "{family}.address": "{each}" is in it twice'
                )


def split(text: str) -> list[str]:
    """Return the items of a list."""
    return [each.strip() for each in text.split(",") if each.strip()]


def guest_names(config: Mapping[str, str], nics: Mapping[str, Options]) -> dict[str, str]:
    """Return what each nic is called inside: its option, else what it was, else a free ethN."""
    names: dict[str, str] = {}
    for device, given in nics.items():
        name = given.get("name") or config.get(f"volatile.{device}.name", "")
        if _NAME.fullmatch(name):  # volatile keys are anybody's
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
            nictype=given.get("nictype", ""),
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
    found = list(nics)
    for device, given in found:
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
    _check_gateways(found)


def _check_gateways(nics: Iterable[tuple[str, Options]]) -> None:
    """Raise InvalidConfig when two nics would each be the instance's way out."""
    used: dict[str, str] = {}
    for device, given in nics:
        for family in ("ipv4", "ipv6"):
            key = f"{family}.gateway"
            if given.get("nictype") not in ("routed", "ipvlan"):
                continue
            if not given.get(f"{family}.address") or given.get(key, "auto") not in ("", "auto"):
                continue
            if key in used:
                raise InvalidConfig(
                    f'Device validation failed for "{device}": Existing NIC "{used[key]}" already '
                    f'uses "{key}" in auto mode: set it to "none" on one of them'
                )
            used[key] = device
