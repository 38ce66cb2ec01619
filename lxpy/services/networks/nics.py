"""Nics of instances: which network each is on, and what must hold before one is attached."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from lxpy.db.rows import ProfileRow
from lxpy.errors import InvalidConfig, LxpyError
from lxpy.events.lifecycle import url
from lxpy.instances.devices import nic as devices
from lxpy.instances.devices.base import refused
from lxpy.instances.devices.nic import NicPlan
from lxpy.instances.devices.nic_kinds import KINDS, OF_NETWORK
from lxpy.instances.model import DEFAULT_PROJECT, Instance
from lxpy.networks.forwards import Forward
from lxpy.networks.keys import Bridge
from lxpy.networks.nic import Nic

Options = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Network:
    """A managed network, as the database has it."""

    name: str
    type: str = "bridge"
    description: str = ""
    config: Options = field(default_factory=dict)
    forwards: tuple[Forward, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """A nic and where it is: on a managed `network` ("": on none)."""

    network: str
    nic: Nic

    @property
    def on_bridge(self) -> bool:
        """Whether it is on a bridge that we do not manage."""
        return not self.network and self.nic.kind == "bridged"


def nic_devices(instance: Instance) -> dict[str, Options]:
    """Return the nic devices of an instance by name."""
    found = instance.expanded_devices.items()
    return {name: device for name, device in found if device.get("type") == "nic"}


def placed(instance: Instance, plan: NicPlan) -> Placed:
    """Return a planned nic as networks need to know it."""
    name, project = instance.name, instance.project
    return Placed(
        plan.network,
        Nic(
            instance=instance.unique_name,
            hostname=name if project == DEFAULT_PROJECT else f"{name}-{project}",
            device=plan.device,
            name=plan.name,
            hwaddr=plan.hwaddr,
            kind=plan.nictype or "bridged",
            parent=plan.parent,
            host_name=plan.host_name,
            mtu=plan.mtu,
            ipv4=plan.ipv4,
            ipv6=plan.ipv6,
            options=plan.options,
            made=plan.made,
        ),
    )


def host_keys(instance: Instance) -> Iterator[str]:
    """Yield the volatile keys that say what nics have on the host while the instance runs."""
    for device in nic_devices(instance):
        for key in ("host_name", "last_state.created", "last_state.hwaddr", "last_state.mtu"):
            if f"volatile.{device}.{key}" in instance.config:
                yield f"volatile.{device}.{key}"


def nics_of(instance: Instance) -> Iterator[Placed]:
    """Yield the nics of an instance; one that was never started may lack a MAC still."""
    given = {
        name: device
        for name, device in nic_devices(instance).items()
        if device.get("hwaddr") or instance.config.get(f"volatile.{name}.hwaddr")
    }
    for plan in devices.plan(instance.config, given):
        yield placed(instance, plan)


def resolved(found: Placed, networks: Mapping[str, Network]) -> Placed:
    """Return a nic as one on a managed network when its parent is the bridge of one."""
    network = networks.get(found.nic.parent) if found.on_bridge else None
    if network is None or network.type != "bridge":
        return found
    return Placed(network.name, replace(found.nic, parent=""))


def hwaddrs(instances: Iterable[Instance]) -> Iterator[str]:
    """Yield every MAC that instances have."""
    for instance in instances:
        for name, device in nic_devices(instance).items():
            found = device.get("hwaddr") or instance.config.get(f"volatile.{name}.hwaddr")
            if found:
                yield found.lower()


def uses(device: Options, network: str) -> bool:
    """Tell whether a device is a nic on a network, or on a bridge of that name."""
    if device.get("type") != "nic":
        return False
    return network in (device.get("network"), device.get("parent"))


def used_by(
    network: str, instances: Iterable[Instance], profiles: Iterable[ProfileRow]
) -> list[str]:
    """Return the URLs of the instances and profiles with a nic on a network."""
    found = [
        url(f"/1.0/instances/{quote(each.name)}", each.project)
        for each in instances
        if any(uses(device, network) for device in each.expanded_devices.values())
    ]
    found += [
        url(f"/1.0/profiles/{quote(each.name, safe='')}", each.project)
        for each in profiles
        if any(uses(device, network) for device in each.devices.values())
    ]
    return found


def check(
    instance: Instance,
    plans: Iterable[NicPlan],
    networks: Mapping[str, Network],
    others: Iterable[Instance],
) -> None:
    """Raise, in LXD's words, when a nic does not fit its network, or another instance, one of
    `others`, has its address; `networks` are the managed ones. Raises InvalidConfig, NotSupported.
    """
    neighbours = [
        resolved(each, networks)
        for other in others if other.unique_name != instance.unique_name
        for each in nics_of(other)
    ]  # fmt: skip
    seen: dict[tuple[str, str], str] = {}
    for plan in plans:
        here = resolved(placed(instance, plan), networks)
        lan = here.network, here.nic.options.get("vlan", "")
        try:
            if lan in seen and networks[here.network].config.get("dns.mode") != "none":
                raise InvalidConfig(
                    f'Instance DNS name "{instance.name}" already used on network: device '
                    f'"{seen[lan]}" is on "{here.network}" too'
                )
            if here.network:
                if here.network not in networks:
                    raise InvalidConfig(
                        f'Failed loading device "{plan.device}": Failed to load network '
                        f'"{here.network}" for project "{instance.project}": Network not found'
                    )
                _check_network(here.nic, networks[here.network])
                seen[lan] = plan.device
            _check_unique(here, neighbours)
        except LxpyError as error:
            raise refused(plan.device, error) from error


def are_chosen(instance: Instance) -> bool:
    """Tell whether an instance has addresses that somebody chose, and that may be taken."""
    keys = ("hwaddr", "ipv4.address", "ipv6.address")
    return any(device.get(key) for device in nic_devices(instance).values() for key in keys)


def check_devices(given: Mapping[str, Options], networks: Mapping[str, Network]) -> None:
    """Raise, in LXD's words, when a profile's nic does not fit its network.

    One that does not exist is no error: it may come before an instance does. Raises InvalidConfig.
    """
    for name, device in given.items():
        network = networks.get(device.get("network", ""))
        if device.get("type") != "nic" or network is None:
            continue
        nic = Nic(
            instance="", hostname="", device=name, name=name, hwaddr="",
            ipv4=device.get("ipv4.address", ""), ipv6=device.get("ipv6.address", ""),
            options=device,
        )  # fmt: skip
        try:
            _check_network(nic, network)
        except LxpyError as error:
            raise refused(name, error) from error


def _check_network(nic: Nic, network: Network) -> None:
    if network.type == "bridge":
        _check_addresses(nic, Bridge(network.name, network.config))
    elif nic.options.get("vlan"):
        raise devices.decided("vlan")
    if nic.options.get("network"):
        KINDS[OF_NETWORK[network.type]].validate(nic.options)


def _check_addresses(nic: Nic, network: Bridge) -> None:
    for family, text, own in (("ipv4", nic.ipv4, network.ipv4), ("ipv6", nic.ipv6, network.ipv6)):
        if text in ("", "none"):
            continue
        dhcp = network.flag(f"{family}.dhcp")
        stateful = family == "ipv4" or network.flag("ipv6.dhcp.stateful")
        filtered = nic.flag(f"security.{family}_filtering")
        if own is None or not ((dhcp and stateful) or filtered):
            keys = "DHCP is" if family == "ipv4" else 'DHCP or "ipv6.dhcp.stateful" are'
            raise InvalidConfig(
                f'Cannot specify "{family}.address" when {keys} disabled (unless using '
                f'security.{family}_filtering) on network "{network.name}"'
            )
        address = ipaddress.ip_address(text)
        if address not in own.network:
            raise InvalidConfig(
                f'Device IP address "{text}" not within network "{network.name}" subnet '
                f"{own.network}"
            )
        if address == own.ip:
            raise InvalidConfig(
                f'Device IP address "{text}" is the address of network "{network.name}" itself'
            )


def _place(found: Placed) -> tuple[str, ...]:
    """Return what nics have in common that hear each other."""
    return found.network, found.nic.parent, found.nic.options.get("vlan", "")


def _check_unique(here: Placed, neighbours: Iterable[Placed]) -> None:
    for other in neighbours:
        routed = "routed" in (here.nic.kind, other.nic.kind)  # the whole host knows its addresses
        if _place(other) != _place(here) and not routed:
            continue
        if other.nic.hwaddr == here.nic.hwaddr and here.nic.kind != "p2p":
            raise InvalidConfig(
                f'MAC address "{here.nic.hwaddr}" already defined on another NIC: of instance '
                f'"{other.nic.instance}"'
            )
        for family in ("ipv4", "ipv6"):
            for address in set(here.nic.addresses(family)) & set(other.nic.addresses(family)):
                raise InvalidConfig(
                    f'IP address "{address}" already defined on another NIC: of instance '
                    f'"{other.nic.instance}"'
                )
