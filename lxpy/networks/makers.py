"""How nics on no bridge are made: p2p, routed, macvlan, ipvlan, physical, sriov.

Source: LXD docs, "Type: nic".
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from lxpy.errors import Failed
from lxpy.networks import linkrules, probe, sriov, sysctls
from lxpy.networks.ends import Inside, Veth, VirtualFunction
from lxpy.networks.inside import Namespace
from lxpy.networks.interfaces import Interfaces
from lxpy.networks.netlink import Netlink
from lxpy.networks.nic import Nic
from lxpy.networks.records import Record, Records
from lxpy.networks.vlans import NoParent
from lxpy.threads import in_thread
from lxpy.units import is_false

#: kinds that are a pair of interfaces, with one end on the host
PAIRS = frozenset(("p2p", "routed"))
#: kinds that take an interface of the host into the instance
MOVED = frozenset(("physical", "sriov"))
_MAIN = 254
_FAMILIES = ("ipv4", "ipv6")
_HOST_ADDRESS = {"ipv4": "169.254.0.1", "ipv6": "fe80::1"}


@dataclass(frozen=True, slots=True)
class Tools:
    """What makers work with."""

    netlink: Netlink
    interfaces: Interfaces
    records: Records
    owner: str


Maker = Callable[[Tools, Record, Nic, int], Awaitable[None]]


async def _make_p2p(tools: Tools, record: Record, nic: Nic, pid: int) -> None:
    await _make_pair(tools, record, nic, pid)
    await tools.netlink.set_link(record.link, up=True)
    await route(tools, record.link, nic)


async def _make_pair(tools: Tools, record: Record, nic: Nic, pid: int) -> None:
    """Make a pair whose end on the host is not up yet, with limits and rules."""
    record.link = nic.host_name or f"veth{secrets.token_hex(4)}"
    record.filtered = bool(linkrules.rules_of(nic))
    await in_thread(tools.records.write, record)
    if not nic.made:
        parent = tools.interfaces.find(record.parent) if record.parent else None
        mtu = nic.mtu or (parent.mtu if parent else 1500)
        veth = Veth(pid, nic.name, nic.hwaddr, mtu, record.link, nic.queue_length)
        await tools.netlink.make_veth(veth)
    await tools.netlink.note(record.link, f"{tools.owner}:{nic.instance}:{nic.device}")
    if record.filtered:
        await linkrules.apply(record.link, nic)
    if nic.ingress_bits:
        await tools.netlink.shape(record.link, nic.ingress_bits)


async def route(tools: Tools, link: str, nic: Nic) -> None:
    """Route a nic's subnets to it: by way of its address, if it has one."""
    for family in _FAMILIES:
        via = next(iter(nic.addresses(family)), "")
        for subnet in nic.subnets(family):
            await tools.netlink.add_route(link, ipaddress.ip_network(subnet), via=via)


async def _make_routed(tools: Tools, record: Record, nic: Nic, pid: int) -> None:
    used = [family for family in _FAMILIES if nic.addresses(family)]
    if record.parent:
        await _check_neighbours(tools, record, nic, used)
        record.proxies = [each for family in used for each in nic.addresses(family)]
    await _make_pair(tools, record, nic, pid)
    link = record.link
    await in_thread(sysctls.prepare_link, link, ipv4="ipv4" in used, ipv6="ipv6" in used)
    await tools.netlink.set_link(link, up=True)
    for family in used:
        host = ipaddress.ip_interface(_host_address(nic, family))
        await tools.netlink.add_address(link, host)
        for address in nic.addresses(family):
            for table in _tables(nic, family):
                await tools.netlink.add_route(link, ipaddress.ip_network(address), table=table)
    for address in record.proxies:
        await tools.netlink.set_proxy(record.parent, address, answers=True)
    await route(tools, link, nic)
    if not nic.made:
        await Namespace.of(pid).configure(routed_inside(nic, used))


def _host_address(nic: Nic, family: str) -> str:
    return nic.options.get(f"{family}.host_address") or _HOST_ADDRESS[family]


def _tables(nic: Nic, family: str) -> list[int]:
    """Return the routing tables that get a nic's addresses."""
    text = nic.options.get(f"{family}.host_table")
    return [_MAIN, int(text)] if text else [_MAIN]


def routed_inside(nic: Nic, families: list[str]) -> Iterator[str]:
    """Yield what ip(8) has to do inside."""
    for family in families:
        nodad = "" if family == "ipv4" else " nodad"
        for address in nic.addresses(family):
            yield f"address add {ipaddress.ip_interface(address)} dev {nic.name}{nodad}"
        if nic.options.get(f"{family}.gateway") == "none":
            continue
        gateway = _host_address(nic, family)
        if not ipaddress.ip_address(gateway).is_link_local or family == "ipv4":
            yield f"route add {gateway} dev {nic.name}"
        yield f"route add default via {gateway} dev {nic.name}"


async def _check_neighbours(tools: Tools, record: Record, nic: Nic, families: list[str]) -> None:
    """Raise Failed when a parent does not pass packets on, or somebody there has an address."""
    await in_thread(_check_forwarding, record.parent, families)
    found = tools.interfaces.find(record.parent)
    if found is None:
        raise NoParent(record.parent)
    asked = [
        address
        for family in families
        if not is_false(nic.options.get(f"{family}.neighbor_probe")) and not nic.made
        for address in nic.addresses(family)
    ]
    for address, answered in zip(
        asked, await asyncio.gather(*(probe.answers(found, each) for each in asked)), strict=True
    ):
        if answered:
            raise Failed(
                f'IP address "{address}" in use on parent network "{record.parent}": choose '
                "another, or do not ask (neighbor_probe=false)"
            )


def _check_forwarding(parent: str, families: list[str]) -> None:
    """Raise Failed when the host would not pass on what arrives for an instance."""
    wanted = [f"net.ipv4.conf.{parent}.forwarding"] if "ipv4" in families else []
    if "ipv6" in families:
        wanted += ["net.ipv6.conf.all.forwarding", f"net.ipv6.conf.{parent}.forwarding"]
        wanted += [f"net.ipv6.conf.{parent}.proxy_ndp"]
    for name in wanted:
        if sysctls.read(name, parent) != "1":
            raise Failed(
                f"A nic with addresses on a parent requires sysctl {name}=1: the host answers and "
                "forwards for it"
            )


async def _make_macvlan(tools: Tools, record: Record, nic: Nic, pid: int) -> None:
    await _pin(tools, record, pid)
    link = Inside(pid, nic.name, record.parent, record.index, nic.hwaddr, nic.mtu or 0)
    await tools.netlink.make_inside("macvlan", link)


async def _pin(tools: Tools, record: Record, pid: int) -> None:
    """Note what is about to be inside, and hold the namespace."""
    record.index = tools.netlink.make_index()
    await in_thread(tools.records.write, record)
    await in_thread(tools.records.pin, record, pid)


async def _make_ipvlan(tools: Tools, record: Record, nic: Nic, pid: int) -> None:
    used = [family for family in _FAMILIES if nic.addresses(family)]
    mode = nic.options.get("mode") or "l3s"
    if mode == "l3s":
        await in_thread(_check_forwarding, record.parent, used)
        for family in used:
            for address in nic.addresses(family):
                plain = str(ipaddress.ip_interface(address).ip)
                record.proxies.append(plain)
                record.routes += [(plain, table) for table in _tables(nic, family)]
    await _pin(tools, record, pid)
    link = Inside(pid, nic.name, record.parent, record.index, "", nic.mtu or 0, mode)
    await tools.netlink.make_inside("ipvlan", link)
    for address in record.proxies:
        await tools.netlink.set_proxy(record.parent, address, answers=True)
    for subnet, table in record.routes:
        await tools.netlink.add_route("lo", ipaddress.ip_network(subnet), table=table)
    await Namespace.of(pid).configure(ipvlan_inside(nic, used, mode))


def ipvlan_inside(nic: Nic, families: list[str], mode: str) -> Iterator[str]:
    """Yield what ip(8) has to do inside."""
    for family in families:
        default = {"ipv4": "/24", "ipv6": "/64"}[family] if mode == "l2" else ""
        for address in nic.addresses(family):
            full = address if "/" in address else f"{address}{default}"
            yield f"address add {ipaddress.ip_interface(full)} dev {nic.name}"
        gateway = nic.options.get(f"{family}.gateway") or ("auto" if mode == "l3s" else "none")
        if gateway == "auto":
            yield f"route add {'0.0.0.0/0' if family == 'ipv4' else '::/0'} dev {nic.name}"
        elif gateway != "none":
            yield f"route add default via {gateway} dev {nic.name}"


async def _make_physical(tools: Tools, record: Record, nic: Nic, pid: int) -> None:
    hwaddr = nic.options.get("hwaddr", "").lower()
    await _move(tools, record, nic, pid, record.parent, hwaddr)


async def _move(tools: Tools, record: Record, nic: Nic, pid: int, name: str, hwaddr: str) -> None:
    found = tools.interfaces.find(name)
    if found is None:
        raise NoParent(name)
    record.link, record.hwaddr, record.mtu, record.up = name, found.hwaddr, found.mtu, found.up
    await _pin(tools, record, pid)
    link = Inside(pid, nic.name, name, record.index, hwaddr, nic.mtu or 0)
    await tools.netlink.move_inside(link)
    await Namespace.of(pid).configure([f"link set dev {nic.name} up"])


async def _make_sriov(tools: Tools, record: Record, nic: Nic, pid: int) -> None:
    function = await in_thread(sriov.free_function, record.parent)
    record.function = function.number
    await in_thread(tools.records.write, record)
    settings = VirtualFunction(nic.hwaddr, nic.vlan, nic.flag("security.mac_filtering"))
    await tools.netlink.set_function(record.parent, function.number, settings)
    await _move(tools, record, nic, pid, function.name, nic.hwaddr)


#: nictype -> what makes it
KINDS: Mapping[str, Maker] = {
    "ipvlan": _make_ipvlan,
    "macvlan": _make_macvlan,
    "p2p": _make_p2p,
    "physical": _make_physical,
    "routed": _make_routed,
    "sriov": _make_sriov,
}
