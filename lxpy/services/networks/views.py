"""Networks and interfaces as clients see them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict

from lxpy.api import instances as instances_api
from lxpy.api import networks as api
from lxpy.networks import bonds, leases, netlink
from lxpy.networks.interfaces import FIRST_INDEX, Address, Interface
from lxpy.networks.keys import Bridge
from lxpy.networks.nic import Nic

_KINDS = {"bridge": "bridge", "vlan": "vlan", "bond": "bond", "": "physical"}


def unmanaged(found: Interface, used_by: list[str]) -> api.Network:
    """Return an interface of the host as a network that we do not manage."""
    return api.Network(
        config={},
        description="",
        name=found.name,
        type="loopback" if found.loopback else _KINDS.get(found.kind, "unknown"),
        used_by=used_by,
        managed=False,
        status="",
        locations=None,
    )


def is_shown(found: Interface) -> bool:
    """Tell whether an interface is worth a line: the host's ends of pairs are not."""
    return not (found.kind == "veth" and (found.name.startswith("veth") or ":" in found.alias))


def state(found: Interface, ports: Sequence[Interface]) -> api.NetworkState:
    """Return what an interface of the host does; `ports` are those of a bridge."""
    counters = found.counters
    bridge = vlan = None
    if found.bridge is not None:
        names = sorted(each.name for each in ports)
        bridge = api.BridgeState(**asdict(found.bridge), upper_devices=names)
    if found.kind == "vlan":
        vlan = api.VlanState(lower_device=netlink.name_of(found.peer), vid=found.vlan)
    return api.NetworkState(
        addresses=[_address(each) for each in found.addresses],
        counters=api.Counters(
            bytes_received=counters.bytes_received,
            bytes_sent=counters.bytes_sent,
            packets_received=counters.packets_received,
            packets_sent=counters.packets_sent,
        ),
        hwaddr="" if found.loopback else found.hwaddr,
        mtu=found.mtu,
        state="up" if found.up else "down",
        type=found.type,
        bond=_bond(found.name) if found.kind == "bond" else None,
        bridge=bridge,
        vlan=vlan,
    )


def _bond(name: str) -> api.BondState:
    state = bonds.read(name)
    return api.BondState(**asdict(state))


def guest(found: Iterable[Interface]) -> dict[str, instances_api.NetworkState]:
    """Return the interfaces in an instance by name."""
    return {each.name: _guest(each) for each in found}


def _guest(found: Interface) -> instances_api.NetworkState:
    counters = found.counters
    # Only a pair of ours has an end inside with such an index: its other end is on this host.
    ours = found.index >= FIRST_INDEX and found.peer_elsewhere and found.kind == "veth"
    return instances_api.NetworkState(
        addresses=[_address(each) for each in found.addresses],
        counters=instances_api.Counters(
            bytes_received=counters.bytes_received,
            bytes_sent=counters.bytes_sent,
            packets_received=counters.packets_received,
            packets_sent=counters.packets_sent,
            errors_received=counters.errors_received,
            errors_sent=counters.errors_sent,
            packets_dropped_outbound=counters.packets_dropped_outbound,
            packets_dropped_inbound=counters.packets_dropped_inbound,
        ),
        hwaddr="" if found.loopback else found.hwaddr,
        host_name=netlink.name_of(found.peer) if ours else "",
        mtu=found.mtu,
        state="up" if found.up else "down",
        type=found.type,
    )


def _address(address: Address) -> instances_api.Address:
    return instances_api.Address(
        family=address.family,
        address=address.address,
        netmask=str(address.prefix),
        scope=address.scope,
    )


def all_leases(
    network: Bridge,
    reserved: Iterable[Nic],
    lent: Iterable[leases.Lease],
    hidden: Collection[str],
) -> list[api.Lease]:
    """Return a network's own addresses, those reserved for nics, and those lent to guests.

    `hidden` are MACs of instances that the request may not see.
    """
    found = [
        api.Lease(hostname=f"{network.name}.gw", hwaddr="", address=str(each.ip), type="gateway")
        for each in (network.ipv4, network.ipv6)
        if each is not None
    ]
    for nic in reserved:
        for address in (nic.ipv4, nic.ipv6):
            if address not in ("", "none"):
                found.append(_lease(nic.hostname, nic.hwaddr, address, "static"))
    known = {each.address for each in found}
    for lease in lent:
        if lease.address not in known and lease.hwaddr not in hidden:
            found.append(_lease(lease.hostname, lease.hwaddr, lease.address, "dynamic"))
    return found


def _lease(hostname: str, hwaddr: str, address: str, kind: str) -> api.Lease:
    return api.Lease(hostname=hostname, hwaddr=hwaddr, address=address, type=kind)
