"""Links: nics of instances that are on no bridge. What each kind is made of is in `makers`.

What one has on the host is noted before it is made (`records`), so that it is taken back in any
case: when the instance ends, when making it fails, and by the next daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from lxpy.errors import Failed, LxpyError
from lxpy.networks import linkrules, makers, netlink
from lxpy.networks.inside import Namespace
from lxpy.networks.interfaces import Interfaces
from lxpy.networks.makers import Tools
from lxpy.networks.netlink import Netlink
from lxpy.networks.nic import Nic
from lxpy.networks.records import Record, Records
from lxpy.networks.vlans import Vlans
from lxpy.threads import in_thread

_log = structlog.get_logger()


class Links:
    """All of them in this installation; `directory` has their records."""

    def __init__(
        self, netlink: Netlink, interfaces: Interfaces, owner: str, directory: Path
    ) -> None:
        self._netlink = netlink
        self._interfaces = interfaces
        self._records = Records(directory)
        self._vlans = Vlans(netlink, interfaces, owner)
        self._tools = Tools(netlink, interfaces, self._records, owner)
        self._known: dict[tuple[str, str], Record] = {}
        self._nics: dict[tuple[str, str], Nic] = {}
        self._vlans_lock = asyncio.Lock()

    async def attach(self, nic: Nic, pid: int) -> dict[str, str]:
        """Give the network namespace of a process a nic; return the device's volatile keys.

        Raises LxpyError with nothing left behind.
        """
        record = Record(nic.instance, nic.device, nic.kind, nic.name)
        key = (nic.instance, nic.device)
        async with AsyncExitStack() as undo:
            self._known[key], self._nics[key] = record, nic
            undo.push_async_callback(self._undo, record, ended=False)
            if nic.parent:
                await self._find_parent(record, nic)
            try:
                await makers.KINDS[nic.kind](self._tools, record, nic, pid)
            except OSError as error:
                raise Failed(f"Failed making nic {nic.device}: {error}") from error
            undo.pop_all()
        return _volatile(record)

    async def _find_parent(self, record: Record, nic: Nic) -> None:
        """Find the interface that a nic is on, or make that of its VLAN."""
        async with self._vlans_lock:
            found = self._vlans.find(nic.parent, nic.vlan)
            record.parent = found.name if found else self._vlans.name(nic.parent, nic.vlan)
            if found is None or self._is_shared(record.parent):
                record.vlan = record.parent
            await in_thread(self._records.write, record)
            if found is None:
                await self._vlans.make(nic.parent, nic.vlan, gvrp=nic.flag("gvrp"))

    def _is_shared(self, vlan: str) -> bool:
        return any(each.vlan == vlan for each in self._known.values())

    async def change(self, nic: Nic) -> None:
        """Give a nic other limits and routes while it is in use. Raises Failed."""
        key = (nic.instance, nic.device)
        record, old = self._known.get(key), self._nics.get(key)
        if record is None or old is None or not record.link:
            return
        self._nics[key] = nic
        record.filtered = record.filtered or bool(linkrules.rules_of(nic))
        await in_thread(self._records.write, record)
        await linkrules.apply(record.link, nic)
        if old.ingress_bits != nic.ingress_bits:
            await self._netlink.shape(record.link, nic.ingress_bits)
        for subnet in set(old.routes) - set(nic.routes):
            await self._netlink.delete_route(record.link, ipaddress.ip_network(subnet))
        await makers.route(self._tools, record.link, nic)

    async def detach(self, instance: str, device: str = "") -> None:
        """Take away the links of an instance that has ended, or one of an instance that runs."""
        for (name, each), record in list(self._known.items()):
            if name == instance and device in ("", each):
                await self._undo(record, ended=not device)

    async def find(self, running: Collection[str]) -> list[Record]:
        """Return what an earlier daemon made for instances that run; take back the rest."""
        found = []
        for record in await in_thread(lambda: list(self._records.all())):
            self._known[record.instance, record.device] = record
            if record.instance in running:
                found.append(record)
        for record in list(self._known.values()):
            if record.instance not in running:
                _log.info("nic of an ended instance taken back", instance=record.instance,
                          device=record.device)  # fmt: skip
                await self._undo(record, ended=True)
        return found

    async def adopt(self, record: Record, nic: Nic | None) -> None:
        """Take over a nic, and make good its rules; an unknown one goes. Raises Failed."""
        if nic is None or nic.kind != record.kind:
            await self._undo(record, ended=False)
            return
        self._nics[record.instance, record.device] = nic
        if record.link and record.kind in makers.PAIRS:
            await linkrules.apply(record.link, nic)
            await makers.route(self._tools, record.link, nic)

    # Taking back

    async def _undo(self, record: Record, *, ended: bool) -> None:
        """Take back whatever there is of a nic. Logs what fails.

        An interface of the host that does not come back stays noted: the next daemon tries again.
        """
        steps: list[Callable[[Record], Awaitable[None]]] = [self._drop_ways]
        if record.kind in makers.PAIRS:
            steps += [self._drop_pair]
        elif record.kind in makers.MOVED:
            steps += [self._bring_back]
        elif not ended:
            steps += [self._drop_inside]
        steps += [self._forget]
        for step in steps:
            try:
                await step(record)
            except (LxpyError, OSError) as error:
                _log.warning("nic not cleaned up", instance=record.instance, device=record.device,
                             interface=record.link or record.name, error=str(error))  # fmt: skip
                if step == self._bring_back:
                    return

    async def _drop_ways(self, record: Record) -> None:
        for address in record.proxies:
            await self._netlink.set_proxy(record.parent, address, answers=False)
        for subnet, table in record.routes:
            await self._netlink.delete_route("lo", ipaddress.ip_network(subnet), table=table)

    async def _drop_pair(self, record: Record) -> None:
        if record.filtered:
            await linkrules.remove(record.link)
        if record.link and netlink.exists(record.link):
            await self._netlink.delete_link(record.link)

    async def _drop_inside(self, record: Record) -> None:
        place = await in_thread(self._records.pinned, record)
        if place is not None and record.index:
            await Namespace(str(place)).delete(record.index)

    async def _bring_back(self, record: Record) -> None:
        """Give an interface of the host its old place, name, MTU, address and state."""
        if not record.link:
            return
        place = await in_thread(self._records.pinned, record)
        name = f"lxp{secrets.token_hex(5)}"
        moved = place is not None and await Namespace(str(place)).give_back(record.index, name)
        if not moved:
            name = self._returned(record)
            if not name:
                _log.warning("interface of the host is gone", interface=record.link)
                return
        await self._netlink.set_link(
            name, new_name=record.link, mtu=record.mtu, address=record.hwaddr
        )
        if record.up:
            await self._netlink.set_link(record.link, up=True)
        if record.function is not None:
            try:
                await self._netlink.set_function(record.parent, record.function)
            except LxpyError as error:  # not every driver takes an address back
                _log.warning("virtual function keeps its settings", parent=record.parent,
                             number=record.function, error=str(error))  # fmt: skip

    def _returned(self, record: Record) -> str:
        """Return the name of an interface that the kernel brought back, or that never left."""
        links = self._interfaces.host(addresses=False)
        for each in links:
            if each.name == record.link or (record.index and each.index == record.index):
                return each.name
        return next((each.name for each in links if each.hwaddr == record.hwaddr), "")

    async def _forget(self, record: Record) -> None:
        key = (record.instance, record.device)
        async with self._vlans_lock:
            if self._known.get(key) is record:
                del self._known[key]
                self._nics.pop(key, None)
            if record.vlan and not self._is_shared(record.vlan):
                with contextlib.suppress(LxpyError):
                    await self._vlans.remove(record.vlan)
            await in_thread(self._records.remove, record)


def _volatile(record: Record) -> dict[str, str]:
    """Return what LXD notes of such a nic."""
    found = {"host_name": record.link} if record.link else {}
    if record.kind in makers.MOVED:
        found |= {"last_state.hwaddr": record.hwaddr, "last_state.mtu": str(record.mtu)}
    if record.parent and record.kind not in makers.PAIRS:
        found["last_state.created"] = "true" if record.vlan else "false"
    return found
