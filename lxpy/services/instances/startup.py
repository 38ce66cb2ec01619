"""A daemon comes up: what was half done is finished or undone, what ran runs on or starts again.

And it goes: the host shuts down, instances are stopped in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from lxpy.errors import Conflict, LxpyError, NotFound
from lxpy.events.lifecycle import url
from lxpy.instances import boot
from lxpy.instances.model import Instance, unique_name
from lxpy.runtime.container import Held, Runtime
from lxpy.services.instances.instances import Instances
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import Starter
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Intent, Journal
from lxpy.services.server.warnings import AUTOSTART, Trouble
from lxpy.services.storage.pools import Pools
from lxpy.storage import Volume, VolumeType

_AT_ONCE = 8
#: finishes or undoes work of one kind
Handler = Callable[[Intent], Awaitable[None]]

_log = structlog.get_logger()


def _where(instance: Instance) -> tuple[str, str, str]:
    return instance.root_device[1]["pool"], instance.project, instance.name


class Startup:
    """Brings instances and their database to agree, and up and down."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        journal: Journal,
        pools: Pools,
        instances: Instances,
        power: Power,
        starter: Starter,
        runtime: Runtime,
        handlers: Mapping[str, Handler],
    ) -> None:
        self._store = store
        self._journal = journal
        self._pools = pools
        self._instances = instances
        self._power = power
        self._starter = starter
        self._runtime = runtime
        self._handlers: dict[str, Handler] = {
            **handlers,
            "create": self._undo_create,
            "delete": self._finish_delete,
            "move": self._settle_move,
        }
        self._paused: set[str] = set()
        self._interrupted: list[Intent] = []
        self._failed: dict[int, str] = {}

    async def recover(self) -> None:
        """Finish or undo what a former daemon was in the middle of."""
        for intent in await self._journal.unfinished():
            paused = intent.data.get("paused", [])
            self._paused.update([paused] if isinstance(paused, str) else paused)
            if intent.kind == "interrupted":
                self._interrupted.append(intent)
            handler = self._handlers.get(intent.kind)
            if handler is None:
                continue  # another service's
            _log.info("unfinished work", kind=intent.kind, instance=intent.name)
            try:
                await handler(intent)
            except LxpyError as error:
                _log.warning("unfinished work stays", instance=intent.name, error=str(error))
            else:
                await self._journal.end(intent.id)

    async def _undo_create(self, intent: Intent) -> None:
        if not self._store.has(intent.project, intent.name):
            await self._instances.clear(intent.project, intent.name, intent.data["pool"])

    async def _finish_delete(self, intent: Intent) -> None:
        if not self._store.has(intent.project, intent.name):
            await self._instances.clear(intent.project, intent.name, intent.data["pool"])

    async def _settle_move(self, intent: Intent) -> None:
        """The row tells where the instance is; there its volume is, and nowhere else."""
        data, storage = intent.data, self._pools.storage
        old = Volume(intent.name, VolumeType.CONTAINER, intent.project)
        new = Volume(data["to"], VolumeType.CONTAINER, data["to_project"])
        found = self._store.by_id(data["id"])
        where = ("", "", "") if found is None else _where(found)
        moved = where == (data["to_pool"], new.project, new.name)
        if data["pool"] != data["to_pool"]:
            pool = await self._pools.pool(data["pool"] if moved else data["to_pool"])
            await storage.delete_volume(pool, old if moved else new)
        elif found is not None:
            pool = await self._pools.pool(data["pool"])
            here, there = (old, new) if moved else (new, old)
            try:
                await storage.rename(pool, here, there.name, project=there.project)
            except (NotFound, Conflict):
                # It has that name; or it was copied, and what is left is the other one.
                await storage.delete_volume(pool, here)
        if moved:
            names = [unique_name(each.project, each.name) for each in (old, new)]
            await self._instances.rename_files(*names)

    async def adopt(self, held: list[Held], *, complete: bool = True) -> None:
        """Agree with the supervisor on what runs.

        Unless the database is `complete`, what it does not know is left alone, and nothing noted.
        """
        for each in held:
            instance = self._store.by_unique_name(each.name)
            if instance is None and not complete:
                _log.warning("an instance that nobody knows runs on", name=each.name)
                continue
            if instance is None:
                _log.warning("an instance that nobody knows is stopped", name=each.name)
                await self._runtime.kill(each.name)
                continue
            try:
                await self._starter.hold(instance)
            except LxpyError as error:
                _log.warning("volume of a running instance", name=each.name, error=str(error))
            if each.frozen and each.name in self._paused:
                await self._runtime.thaw(each.name)  # its snapshot is not made any more
            elif each.frozen:
                self._power.frozen.add(each.name)
            if complete and instance.config.get("volatile.last_state.power") != "RUNNING":
                await self._store.note(instance, {"volatile.last_state.power": "RUNNING"})

    async def remove_ephemeral(self) -> None:
        """Delete ephemeral instances that have run and do not any more."""
        for instance in self._store.listed():
            has_run = instance.last_used_at is not None
            if instance.ephemeral and has_run and not self._power.is_running(instance):
                await self._instances.remove(instance)

    async def autostart(self) -> None:
        """Start what shall come up with the daemon: by priority, within one all at once.

        First of all, what a former daemon had stopped for a moment only.
        """
        await self._take_up()
        stopped = [each for each in self._store.listed() if not self._power.is_running(each)]
        room = asyncio.Semaphore(_AT_ONCE)
        for batch in boot.start_order(stopped):
            async with asyncio.TaskGroup() as tasks:
                for each in batch.instances:
                    tasks.create_task(self._autostart(each, room))
            await asyncio.sleep(batch.delay_s)

    async def _take_up(self) -> None:
        room = asyncio.Semaphore(_AT_ONCE)
        for intent in self._interrupted:
            if self._store.has(intent.project, intent.name):
                await self._autostart(self._store.get(intent.project, intent.name), room)
            await self._journal.end(intent.id)
        self._interrupted.clear()

    async def _autostart(self, instance: Instance, room: asyncio.Semaphore) -> None:
        async with room:
            if not self._store.has(instance.project, instance.name):
                return
            if self._power.is_running(instance):
                return
            try:
                await self._power.start(instance.project, instance.name)
            except LxpyError as error:
                _log.warning("autostart failed", instance=instance.unique_name, error=str(error))
                self._failed[instance.id] = str(error)

    def troubles(self) -> Iterable[Trouble]:
        """Return which instances should have come up with the daemon, and still do not run."""
        for id, text in list(self._failed.items()):
            instance = self._store.by_id(id)
            if instance is None or self._power.is_running(instance):
                del self._failed[id]
                continue
            path = url(f"/1.0/instances/{instance.name}", instance.project)
            yield Trouble(AUTOSTART, text, "low", path, instance.project)

    async def stop_all(self, *, force: bool, timeout_s: int | None = None) -> None:
        """Stop every instance, so that each starts again with the next daemon."""
        running = [each for each in self._store.listed() if self._power.is_running(each)]
        for batch in boot.stop_order(running):
            async with asyncio.TaskGroup() as tasks:
                for each in batch.instances:
                    limit = boot.stop_timeout_s(each) if timeout_s is None else timeout_s
                    tasks.create_task(self._stop(each, force, limit))

    async def _stop(self, instance: Instance, force: bool, timeout_s: int) -> None:
        for by_force in (force, True):
            try:
                await self._power.shut_down(
                    instance.project, instance.name, force=by_force, timeout_s=timeout_s
                )
            except LxpyError as error:
                _log.info("stop failed", instance=instance.unique_name, error=str(error))
            if not self._power.is_running(instance):
                return
