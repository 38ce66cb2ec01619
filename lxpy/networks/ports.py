"""Ports: the interfaces of instances, on bridges of ours or of others.

What a port has on the host (filters, limits, routes) comes and goes with it; the pair of interfaces
itself dies with the guest's network namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Collection, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from lxpy.errors import Failed, LxpyError
from lxpy.networks import firewall, netlink
from lxpy.networks.addresses import Subnet
from lxpy.networks.ends import Veth
from lxpy.networks.firewall import Allowed
from lxpy.networks.interfaces import Interfaces
from lxpy.networks.netlink import Netlink
from lxpy.networks.nic import Nic, words

_log = structlog.get_logger()

_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Port:
    """A nic on a bridge, by the host's end of its pair."""

    bridge: str
    host_name: str
    nic: Nic

    @property
    def routes(self) -> set[Subnet]:
        """The subnets that the host routes to it."""
        return {ipaddress.ip_network(each) for each in self.nic.routes}


@dataclass(frozen=True, slots=True)
class Found:
    """The host's end of a pair that an earlier daemon of this installation made."""

    host_name: str
    bridge: str
    instance: str
    device: str


class Ports:
    """All ports of this installation; `owner` is its name, noted on each interface it makes."""

    def __init__(self, netlink: Netlink, interfaces: Interfaces, owner: str) -> None:
        self._netlink = netlink
        self._interfaces = interfaces
        self._owner = owner
        self._ports: dict[tuple[str, str], Port] = {}
        self._filtering = asyncio.Lock()
        self._later: set[asyncio.Task[None]] = set()

    def of(self, instance: str) -> list[Port]:
        """Return the ports of an instance."""
        return [port for (name, _), port in self._ports.items() if name == instance]

    def on(self, bridge: str) -> list[Port]:
        """Return the ports on a bridge."""
        return [port for port in self._ports.values() if port.bridge == bridge]

    def routes(self, bridge: str) -> set[Subnet]:
        """Return the subnets that are routed to the ports of a bridge."""
        return {subnet for port in self.on(bridge) for subnet in port.routes}

    async def attach(self, bridge: str, nic: Nic, pid: int, mtu: int, allowed: Allowed) -> str:
        """Join the network namespace of a process to a bridge; return the host's end's name.

        Raises Failed, NoSuchLink, Conflict, MissingTool, NotSupported; nothing is left then.
        """
        vlans = self._vlans(bridge, nic)
        veth = Veth(
            pid=pid,
            name=nic.name,
            hwaddr=nic.hwaddr,
            mtu=nic.mtu or mtu,
            host_name=nic.host_name,
            queue_length=nic.queue_length,
        )
        async with AsyncExitStack() as undo:
            host = nic.host_name if nic.made else await self._netlink.make_veth(veth)
            undo.push_async_callback(self._netlink.delete_link, host)
            port = Port(bridge, host, nic)
            self._ports[nic.instance, nic.device] = port
            undo.push_async_callback(self._forget, port)
            await self._dress(port, allowed)
            alias = f"{self._owner}:{nic.instance}:{nic.device}"
            await self._netlink.join(host, bridge, alias, vlans)
            if nic.flag("security.port_isolation"):
                await self._netlink.isolate(host)
            undo.pop_all()
        return host

    def _vlans(self, bridge: str, nic: Nic) -> tuple[int, list[int]] | None:
        """Return the VLANs that a nic asks for, None when it asks for none. Raises Failed."""
        if not nic.options.get("vlan") and not nic.options.get("vlan.tagged"):
            return None
        found = self._interfaces.find(bridge)
        if found is None or found.bridge is None or not found.bridge.vlan_filtering:
            raise Failed(
                f'VLAN filtering is not enabled in parent bridge "{bridge}": enable it '
                f"(ip link set {bridge} type bridge vlan_filtering 1), or use a bridge on a VLAN "
                "interface as parent"
            )
        untagged = nic.vlan or (found.bridge.vlan_default if not nic.options.get("vlan") else 0)
        return untagged, tags(nic.options.get("vlan.tagged", ""))

    async def _dress(self, port: Port, allowed: Allowed) -> None:
        """Give a port its filters, limits and routes, before anything can pass."""
        if firewall.needs_rules(port.nic):
            async with self._filtering:
                await firewall.add_nic(port.bridge, port.host_name, port.nic, allowed)
        if port.nic.ingress_bits:
            await self._netlink.shape(port.host_name, port.nic.ingress_bits)
        for subnet in port.routes:
            await self._netlink.add_route(port.bridge, subnet)

    async def change(self, nic: Nic, allowed: Allowed) -> None:
        """Give a port other limits, filters and routes while it is in use. Raises Failed."""
        old = self._ports.get((nic.instance, nic.device))
        if old is None:
            return
        new = Port(old.bridge, old.host_name, nic)
        self._ports[nic.instance, nic.device] = new
        if firewall.needs_rules(old.nic) and not firewall.needs_rules(nic):
            await self._unfilter(old)
        if old.nic.ingress_bits and not nic.ingress_bits:
            await self._netlink.shape(old.host_name, 0)
        for subnet in old.routes - new.routes:
            await self._netlink.delete_route(old.bridge, subnet)
        await self._dress(new, allowed)
        if old.nic.flag("security.port_isolation") != nic.flag("security.port_isolation"):
            isolated = nic.flag("security.port_isolation")
            await self._netlink.isolate(new.host_name, isolated=isolated)

    async def detach(self, instance: str, device: str = "") -> list[Port]:
        """Forget the ports of an instance, or one; return them.

        The interfaces go with the namespace; one that is still there a little later is deleted.
        """
        gone = [port for port in self.of(instance) if device in ("", port.nic.device)]
        for port in gone:
            await self._forget(port)
            if device or port.nic.host_name:
                await self._netlink.delete_link(port.host_name)
            else:
                self._delete_later(port.host_name)
        return gone

    async def _forget(self, port: Port) -> None:
        """Take away what a port has besides its interfaces. Logs what fails."""
        key = (port.nic.instance, port.nic.device)
        if self._ports.get(key) == port:
            del self._ports[key]
        try:
            if firewall.needs_rules(port.nic):
                await self._unfilter(port)
            for subnet in port.routes - self.routes(port.bridge):
                await self._netlink.delete_route(port.bridge, subnet)
        except LxpyError as error:
            _log.warning("port not cleaned up", interface=port.host_name, error=str(error))

    async def _unfilter(self, port: Port) -> None:
        async with self._filtering:
            others = [
                each
                for each in self.on(port.bridge)
                if firewall.needs_rules(each.nic) and each.host_name != port.host_name
            ]
            await firewall.remove_nic(port.bridge, port.host_name, last=not others)

    def _delete_later(self, host_name: str) -> None:
        async def work() -> None:
            await asyncio.sleep(_GRACE_S)
            with contextlib.suppress(LxpyError):
                if netlink.exists(host_name):
                    await self._netlink.delete_link(host_name)

        task = asyncio.get_running_loop().create_task(work())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def find(self, running: Collection[str]) -> list[Found]:
        """Return what an earlier daemon made for instances that run; delete the rest."""
        links = self._interfaces.host(addresses=False)
        names = {link.index: link.name for link in links}
        found: list[Found] = []
        for link in links:
            owner, _, rest = link.alias.partition(":")
            instance, _, device = rest.partition(":")
            if owner != self._owner or not device:
                continue
            if instance in running:
                found.append(Found(link.name, names.get(link.master, ""), instance, device))
            else:
                _log.info("interface of an ended instance deleted", interface=link.name)
                await self._netlink.delete_link(link.name)
        return found

    async def adopt(self, found: Found, nic: Nic, allowed: Allowed) -> None:
        """Take over a port, and make good what of it is missing on the host. Raises Failed."""
        port = Port(found.bridge, found.host_name, nic)
        self._ports[nic.instance, nic.device] = port
        if firewall.needs_rules(nic):
            async with self._filtering:
                await firewall.add_nic(port.bridge, port.host_name, nic, allowed)
        for subnet in port.routes:
            await self._netlink.add_route(port.bridge, subnet)

    async def forget_filters(self, bridges: Iterable[str]) -> None:
        """Remove filters that an earlier daemon has left on bridges without filtered ports."""
        for bridge in bridges:
            if not any(firewall.needs_rules(port.nic) for port in self.on(bridge)):
                await firewall.forget_nics(bridge)

    async def close(self) -> None:
        """End what is under way; interfaces stay."""
        for task in list(self._later):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def tags(text: str) -> list[int]:
    """Return the VLANs of "5,10-12"."""
    found: list[int] = []
    for part in words(text):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
