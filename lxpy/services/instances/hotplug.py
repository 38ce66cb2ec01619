"""Devices of the host that come and go: running instances get them, and lose them again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Mapping

import structlog

from lxpy.errors import LxpyError
from lxpy.instances import devices
from lxpy.instances.devices import unix
from lxpy.instances.model import Instance
from lxpy.runtime.container import Runtime, StartFailed
from lxpy.runtime.spec import Node
from lxpy.services.instances.starting import Starter
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.server.hardware.events import Events
from lxpy.threads import in_thread

_SETTLE_S = 0.1
_log = structlog.get_logger()

Options = Mapping[str, str]


class Hotplug:
    """Keeps the device nodes of running instances what their devices come to on this host."""

    def __init__(
        self, store: InstanceStore, locks: Locks, runtime: Runtime, starter: Starter
    ) -> None:
        self._store = store
        self._locks = locks
        self._runtime = runtime
        self._starter = starter
        self._events = Events(self._heard)
        self._said: dict[tuple[str, int, int], bytes] = {}
        self._woken = asyncio.Event()
        starter.on_devices = self._woken.set

    async def run(self) -> None:
        """Listen until it is cancelled; look at once at what happened before."""
        try:
            self._events.start()
        except OSError as error:
            _log.warning("devices that come and go are not heard of", error=str(error))
            return
        try:
            self._woken.set()
            while True:
                await self._woken.wait()
                await asyncio.sleep(_SETTLE_S)  # nodes appear a little after their event
                self._woken.clear()
                said, self._said = self._said, {}
                await self._look(said)
        finally:
            self._events.close()

    def _heard(self, data: bytes) -> None:
        words = dict(
            part.split("=", 1)
            for part in data.decode(errors="surrogateescape").split("\0")
            if "=" in part
        )
        if words.get("MAJOR", "").isdigit() and words.get("MINOR", "").isdigit():
            kind = "b" if words.get("SUBSYSTEM") == "block" else "c"
            self._said[kind, int(words["MAJOR"]), int(words["MINOR"])] = data
        self._woken.set()

    async def _look(self, said: Mapping[tuple[str, int, int], bytes]) -> None:
        users = [
            each
            for each in self._store.listed()
            if any(map(devices.comes_and_goes, each.expanded_devices.values()))
        ]
        # First, or what comes between looking and listening would be missed.
        paths = [path for each in users for path in _paths(each.expanded_devices)]
        await in_thread(self._events.watch, paths)

        async def look(instance: Instance) -> None:
            async with self._locks.hold("instance", instance.project, instance.name):
                current = self._store.by_unique_name(instance.unique_name)
                if current is not None and self._runtime.held(current.unique_name) is not None:
                    await self._sync(current, said)

        async with asyncio.TaskGroup() as tasks:
            for each in users:
                tasks.create_task(self._guarded(look(each), each.unique_name))

    async def _guarded(self, work: Awaitable[None], unique: str) -> None:
        try:
            await work
        except LxpyError as error:
            _log.warning("devices not brought up to date", instance=unique, error=str(error))

    async def _sync(self, instance: Instance, said: Mapping[tuple[str, int, int], bytes]) -> None:
        """Add and remove nodes of one instance, its lock held."""
        unique = instance.unique_name
        given = {
            name: each
            for name, each in instance.expanded_devices.items()
            if devices.comes_and_goes(each)
        }
        _, found = await self._starter.look_up(instance, given)
        wanted = devices.present(given, found)
        known = {node.path: node for node in self._runtime.devices.nodes(unique)}
        gone = [
            node for node in known.values()
            if node.device in given and node not in wanted
        ]  # fmt: skip
        for node in gone:
            await self._try(self._runtime.devices.remove_node(unique, node), unique, node)
            await self._inject(unique, node, said)
        for node in wanted:
            if known.get(node.path) != node:
                await self._try(self._runtime.devices.add_node(unique, node), unique, node)
                await self._inject(unique, node, said)

    async def _try(self, work: Awaitable[None], unique: str, node: Node) -> None:
        try:
            await work
        except StartFailed as error:
            _log.warning("device node", instance=unique, path=node.path, error=str(error))

    async def _inject(
        self, unique: str, node: Node, said: Mapping[tuple[str, int, int], bytes]
    ) -> None:
        """Tell the instance what the kernel said about a node, where it lets us."""
        data = said.get((node.kind, node.major, node.minor))
        if data is None:
            return
        try:
            await self._runtime.devices.uevent(unique, data.decode(errors="surrogateescape"))
        except StartFailed as error:
            _log.info("uevent not passed on", instance=unique, error=str(error))


def _paths(expanded: Mapping[str, Options]) -> list[str]:
    """Return the paths of the host at which nodes may appear without an event."""
    found = (unix.host_path(given) for given in expanded.values() if devices.comes_and_goes(given))
    return [os.path.normpath(path) for path in found if path]
