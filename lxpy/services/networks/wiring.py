"""Wiring: networks on the host, and the nics of running instances on them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from lxpy.errors import BadRequest, Failed, LxpyError, NotFound
from lxpy.instances.devices.nic import NicPlan
from lxpy.instances.model import Instance
from lxpy.networks import firewall, netlink
from lxpy.networks.acls import Acl, check_usable
from lxpy.networks.drivers import TYPES, Driver, Facts
from lxpy.networks.drivers.bridge import attach_unmanaged, unmanaged_allowed
from lxpy.networks.interfaces import Interfaces
from lxpy.networks.links import Links
from lxpy.networks.netlink import Netlink
from lxpy.networks.nic import words
from lxpy.networks.policy import Policy
from lxpy.networks.ports import Found, Ports
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.networks import nics
from lxpy.services.networks.nics import Network, Placed

_log = structlog.get_logger()

_NICS = "run/nics"


class Wiring:
    """Brings networks up when they are needed, joins instances to them, and takes them down."""

    def __init__(self, root: Path, owner: str, store: InstanceStore, locks: Locks) -> None:
        self.networks: dict[str, Network] = {}
        self.acls: dict[str, Acl] = {}
        self.failed: dict[str, str] = {}
        self._root = root
        self._owner = owner
        self._store = store
        self._locks = locks
        self._facts: Facts | None = None
        self._drivers: dict[str, Driver] = {}

    @property
    def facts(self) -> Facts:
        """The open sockets, and what else drivers need."""
        if self._facts is None:
            interfaces, link = Interfaces(), Netlink()
            ports = Ports(link, interfaces, self._owner)
            links = Links(link, interfaces, self._owner, self._root.parent / _NICS)
            self._facts = Facts(self._root, self._owner, link, interfaces, ports, links)
        return self._facts

    def driver(self, name: str) -> Driver:
        """Return the driver of a managed network. Raises NotFound."""
        found = self._drivers.get(name)
        if found is None:
            if name not in self.networks:
                raise NotFound("Network not found")
            found = self._drivers[name] = TYPES[self.networks[name].type](name, self.facts)
        return found

    def drop(self, name: str) -> None:
        """Forget the driver of a network that is gone."""
        self._drivers.pop(name, None)
        self.failed.pop(name, None)

    async def start(self, running: Mapping[str, int], lazy: str) -> None:
        """Bring networks up and take over what instances have on them; `running` maps to pids.

        Network `lazy` waits for its first user, unless it is up already. What fails is logged, and
        tried again by the next who needs it.
        """
        found = await self.facts.ports.find(running)
        bridges = {each.bridge for each in found}
        wanted = [
            name
            for name in self.networks
            if name != lazy or name in bridges or netlink.exists(name)
        ]
        async with asyncio.TaskGroup() as tasks:
            for name in wanted:
                tasks.create_task(self._try_up(name))
        for each in found:
            await self._adopt(each)
        await self._adopt_links(running)
        if found or wanted:
            await self._forget_filters({*bridges, *self.networks})

    async def _try_up(self, name: str) -> None:
        try:
            await self.ready(name)
        except (LxpyError, OSError) as error:
            _log.warning("network not up", network=name, error=str(error))

    def _placed(self, unique: str, device: str) -> Placed | None:
        """Return what an instance's device says of it; None when there is no such nic."""
        instance = self._store.by_unique_name(unique)
        known = nics.nics_of(instance) if instance is not None else ()
        found = next((each for each in known if each.nic.device == device), None)
        return found and nics.resolved(found, self.networks)

    async def _adopt_links(self, running: Mapping[str, int]) -> None:
        """Take over nics that are on no bridge; take back those of instances that have ended."""
        for record in await self.facts.links.find(running):
            placed = self._placed(record.instance, record.device)
            nic = placed.nic if placed is not None else None
            if placed is not None and placed.network:
                nic = replace(placed.nic, kind=record.kind)
            try:
                await self.facts.links.adopt(record, nic)
            except LxpyError as error:
                _log.warning("nic not taken over", instance=record.instance, device=record.device,
                             error=str(error))  # fmt: skip

    async def _adopt(self, found: Found) -> None:
        placed = self._placed(found.instance, found.device)
        if placed is None:
            return
        try:
            if placed.network:
                await self.driver(placed.network).adopt(found, placed.nic)
            elif placed.on_bridge:
                await self.facts.ports.adopt(found, placed.nic, unmanaged_allowed(placed.nic))
        except LxpyError as error:
            _log.warning("nic not taken over", instance=found.instance, device=found.device,
                         error=str(error))  # fmt: skip

    async def _forget_filters(self, bridges: Iterable[str]) -> None:
        try:
            left = await firewall.filtered_bridges()
            await self.facts.ports.forget_filters(left.intersection(bridges))
        except LxpyError as error:
            _log.warning("old filters not removed", error=str(error))

    async def ready(self, name: str) -> Driver:
        """Return a network's driver, the network being up. Raises NotFound, LxpyError."""
        driver = self.driver(name)
        if driver.is_up:
            return driver
        async with self._locks.hold("network", name):
            driver = self.driver(name)  # it may have been deleted meanwhile
            if not driver.is_up:
                await self.up(self.networks[name])
        return driver

    async def up(self, network: Network) -> None:
        """Bring a network up, its lock held, or change it. Raises LxpyError."""
        driver = self.driver(network.name)
        try:
            await driver.up(network.config, self.policy(network))
            await driver.reserve(each.nic for each in self.on(network.name))
        except LxpyError as error:
            self.failed[network.name] = str(error)
            raise
        self.failed.pop(network.name, None)

    def policy(self, network: Network) -> Policy:
        """Return what passes a network besides what its config says.

        Raises BadRequest when it has an ACL that does not exist, or that is nothing for it.
        """
        named = words(network.config.get("security.acls", ""))
        for name in named:
            if name not in self.acls:
                raise BadRequest(f'Network ACL "{name}" does not exist')
            check_usable(self.acls[name], network.name)
        return Policy(network.forwards, tuple(self.acls[name] for name in named))

    async def guard(self, network: Network) -> None:
        """Let what a network's forwards and ACLs say now pass it, its lock held. Raises Failed."""
        await self.driver(network.name).guard(self.policy(network))

    def on(self, network: str, project: str | None = None) -> Iterator[Placed]:
        """Yield the nics of a project's (None: all) instances on a network, running or not."""
        for instance in self._store.listed(project):
            for each in nics.nics_of(instance):
                placed = nics.resolved(each, self.networks)
                if placed.network == network:
                    yield placed

    async def attach(
        self, instance: Instance, plans: Iterable[NicPlan], pid: int
    ) -> dict[str, str]:
        """Join the network namespace of process `pid` to networks; return the volatile keys of
        the devices: "eth0.host_name" ... Raises LxpyError, with nothing left behind.
        """
        volatile: dict[str, str] = {}
        done: list[str] = []
        try:
            for plan in plans:
                try:
                    placed = nics.resolved(nics.placed(instance, plan), self.networks)
                    found = await self._attach(placed, pid)
                except LxpyError as error:
                    text = f'Failed to start device "{plan.device}": {error}'
                    raise Failed(text) from error
                done.append(plan.device)
                volatile |= {f"{plan.device}.{key}": value for key, value in found.items()}
        except BaseException:
            for device in done:
                await self.detach(instance.unique_name, device)
            raise
        return volatile

    async def _attach(self, placed: Placed, pid: int) -> dict[str, str]:
        if placed.on_bridge:
            return await attach_unmanaged(self.facts, placed.nic, pid)
        if not placed.network:
            return await self.facts.links.attach(placed.nic, pid)
        driver = await self.ready(placed.network)
        return await driver.attach(placed.nic, pid)

    async def change(self, placed: Placed) -> None:
        """Give an attached nic other options. Raises LxpyError."""
        placed = nics.resolved(placed, self.networks)
        if placed.network:
            await self.driver(placed.network).change(placed.nic)
        elif not placed.on_bridge:
            await self.facts.links.change(placed.nic)
        else:
            await self.facts.ports.change(placed.nic, unmanaged_allowed(placed.nic))

    async def detach(self, unique: str, device: str = "") -> None:
        """Forget the nics of an instance that has ended, or take one away."""
        await self.facts.ports.detach(unique, device)
        await self.facts.links.detach(unique, device)

    async def announce(self, instance: Instance, old: Instance | None = None) -> None:
        """Tell networks of the nics of an instance, new or changed from `old`. Logs what fails."""
        mine = [nics.resolved(each, self.networks) for each in nics.nics_of(instance)]
        left = nics.nics_of(old) if old is not None else ()
        before = {nics.resolved(each, self.networks).network for each in left}
        for name in sorted({each.network for each in mine} | before):
            driver = self.driver(name) if name in self.networks else None
            if driver is None or not driver.is_up:
                continue
            try:
                here = [each.nic for each in mine if each.network == name]
                await driver.announce(instance.unique_name, here)
            except (LxpyError, OSError) as error:
                _log.warning("addresses not reserved", instance=instance.unique_name,
                             network=name, error=str(error))  # fmt: skip

    async def forget(self, unique: str) -> None:
        """Give free what an instance that is deleted has had."""
        for name in self.networks:
            await self.driver(name).forget(unique)

    async def down(self) -> None:
        """Take every network down: the host, or the installation, ends. Logs what fails."""
        for name in self.networks:
            try:
                await self.driver(name).down()
            except LxpyError as error:
                _log.warning("network stays", network=name, error=str(error))

    async def close(self) -> None:
        """Let go of everything; networks and interfaces stay."""
        for driver in self._drivers.values():
            await driver.close()
        if self._facts is not None:
            await self._facts.ports.close()
            await self._facts.netlink.close()
            self._facts.interfaces.close()
            self._facts = None
