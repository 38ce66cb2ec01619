"""Snapshots of instances that nobody asks for: made by schedule, removed by age and by number.

Source: LXD docs, "Instance options", "Snapshot scheduling and configuration".
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog

from lxpy.api.snapshots import SnapshotsPost
from lxpy.errors import LxpyError
from lxpy.instances.model import Instance
from lxpy.instances.snapshots import Planner, at_startup, surplus
from lxpy.operations.registry import Operation, Registry
from lxpy.services.instances.power import Power
from lxpy.services.instances.store import InstanceStore
from lxpy.services.snapshots.snapshots import Snapshots

_AT_ONCE = 4

_log = structlog.get_logger()


class Schedule:
    """Makes and removes snapshots; `minutely` is called once a minute."""

    def __init__(
        self, store: InstanceStore, snapshots: Snapshots, power: Power, registry: Registry
    ) -> None:
        self._store = store
        self._snapshots = snapshots
        self._power = power
        self._registry = registry
        self._planner = Planner(datetime.now())
        power.before_start = self.before_start

    async def minutely(self, now: datetime) -> None:
        """Make the snapshots that are due at a local time, remove those whose time is over."""
        await self._make_due(now)
        await self._remove_expired(now.astimezone(UTC))

    async def before_start(self, instance: Instance) -> None:
        """Make the snapshot that "@startup" asks for; the instance's lock is held.

        An instance starts without it rather than not at all.
        """
        schedule = instance.expanded_config.get("snapshots.schedule")
        if not schedule or not at_startup(schedule):
            return
        try:
            await self._snapshots.take(instance, SnapshotsPost(), scheduled=True)
        except LxpyError as error:
            _log.warning("no snapshot before start", instance=instance.name, error=str(error))

    async def _make_due(self, now: datetime) -> None:
        by_id = {
            str(each.id): each
            for each in self._store.listed()
            if each.expanded_config.get("snapshots.schedule")
        }
        schedules = {id: each.expanded_config["snapshots.schedule"] for id, each in by_id.items()}
        room = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for id in self._planner.due(schedules, now.replace(tzinfo=None)):
                tasks.create_task(self._one(by_id[id], room))

    async def _one(self, instance: Instance, room: asyncio.Semaphore) -> None:
        """Make one instance's scheduled snapshot, and remove what it keeps no more."""
        async with room:
            runs = self._power.is_running(instance)
            if not runs and not instance.flag("snapshots.schedule.stopped"):
                return
            try:
                stateful = runs and instance.flag("snapshots.schedule.stateful")
                error = await self._make(instance, stateful=stateful)
                if error and stateful:
                    _log.warning("snapshot without memory", instance=instance.name, error=error)
                    await self._make(instance, stateful=False)
                await self._prune(instance)
            except LxpyError as error:
                _log.warning("scheduled snapshot", instance=instance.name, error=str(error))

    async def _make(self, instance: Instance, *, stateful: bool) -> str:
        """Make a snapshot; return what was wrong, "" when it is there."""
        wish = SnapshotsPost(stateful=stateful)
        operation = self._snapshots.create(instance.project, instance.name, wish, scheduled=True)
        await operation.wait()
        return operation.err

    async def _prune(self, instance: Instance) -> None:
        """Remove the scheduled snapshots that "snapshots.keep" does not keep."""
        keep = instance.expanded_config.get("snapshots.keep", "")
        made = {
            each.name: each.created_at.astimezone()
            for each in self._store.snapshots.of(instance.id)
            if each.scheduled
        }
        if not keep:
            return
        await self._remove([(instance, name) for name in surplus(keep, made)])

    async def _remove_expired(self, now: datetime) -> None:
        expired = self._store.snapshots.expired(now)
        found = [(self._store.by_id(each.instance_id), each) for each in expired]
        await self._remove([(instance, each.name) for instance, each in found if instance])

    async def _remove(self, chosen: list[tuple[Instance, str]]) -> None:
        """Remove snapshots; one that cannot go now is tried again another time."""
        if not chosen:
            return

        async def work(_: Operation) -> None:
            for instance, name in chosen:
                try:
                    await self._snapshots.remove(instance.project, instance.name, name)
                except LxpyError as error:
                    _log.warning("snapshot stays", snapshot=f"{instance.name}/{name}",
                                 error=str(error))  # fmt: skip

        await self._registry.spawn("Cleaning up expired instance snapshots", work).wait()
