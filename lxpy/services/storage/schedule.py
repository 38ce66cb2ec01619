"""Snapshots of custom volumes that nobody asks for: made by schedule, removed by age and number.

Source: LXD docs, "Storage volumes", "Schedule snapshots of a custom storage volume".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from lxpy.api.storage import VolumeSnapshotsPost
from lxpy.db import volumes as queries
from lxpy.db.engine import Database
from lxpy.db.rows import VolumeRow, VolumeSnapshotRow
from lxpy.errors import LxpyError
from lxpy.instances.snapshots import Planner, surplus
from lxpy.operations.registry import Operation, Registry
from lxpy.services.locks import Locks
from lxpy.services.storage.places import place_of
from lxpy.services.storage.snapshots import SCHEDULED, VolumeSnapshots

_AT_ONCE = 2

_log = structlog.get_logger()


class VolumeSchedule:
    """Makes and removes snapshots; `minutely` is called once a minute."""

    def __init__(
        self, db: Database, locks: Locks, snapshots: VolumeSnapshots, registry: Registry
    ) -> None:
        self._db = db
        self._locks = locks
        self._snapshots = snapshots
        self._registry = registry
        self._planner = Planner(datetime.now())

    async def minutely(self, now: datetime) -> None:
        """Make the snapshots that are due at a local time, remove those whose time is over."""
        async with self._db.read() as session:
            rows = await queries.everything(session)
            expired = await queries.expired(session, now.astimezone(UTC))
        await self._make_due(rows, now)
        by_id = {row.id: row for row in rows}
        found = [(by_id[each.volume_id], each) for each in expired if each.volume_id in by_id]
        await self._remove(found)

    async def _make_due(self, rows: Sequence[VolumeRow], now: datetime) -> None:
        by_id = {str(row.id): row for row in rows if row.config.get("snapshots.schedule")}
        schedules = {id: row.config["snapshots.schedule"] for id, row in by_id.items()}
        room = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for id in self._planner.due(schedules, now.replace(tzinfo=None)):
                tasks.create_task(self._one(by_id[id], room))

    async def _one(self, row: VolumeRow, room: asyncio.Semaphore) -> None:
        """Make one volume's scheduled snapshot, and remove what it keeps no more."""
        async with room:
            try:
                operation = await self._snapshots.create(
                    place_of(row), VolumeSnapshotsPost(), scheduled=True
                )
                await operation.wait()
                await self._prune(row)
            except LxpyError as error:
                _log.warning("scheduled snapshot", volume=row.name, error=str(error))

    async def _prune(self, row: VolumeRow) -> None:
        """Remove the scheduled snapshots that "snapshots.keep" does not keep."""
        keep = row.config.get("snapshots.keep", "")
        if not keep:
            return
        async with self._db.read() as session:
            snapshots = await queries.snapshots(session, row.id)
        scheduled = {each.name: each for each in snapshots if each.config.get(SCHEDULED)}
        made = {name: each.created_at.astimezone() for name, each in scheduled.items()}
        await self._remove([(row, scheduled[name]) for name in surplus(keep, made)])

    async def _remove(self, chosen: Sequence[tuple[VolumeRow, VolumeSnapshotRow]]) -> None:
        """Remove snapshots; one that cannot go now is tried again another time."""
        if not chosen:
            return

        async def work(_: Operation) -> None:
            for row, snapshot in chosen:
                place = place_of(row)
                try:
                    async with self._locks.hold(*place.key):
                        await self._snapshots.remove(place, snapshot.name)
                except LxpyError as error:
                    _log.warning("snapshot stays", snapshot=f"{row.name}/{snapshot.name}",
                                 error=str(error))  # fmt: skip

        await self._registry.spawn("Cleaning up expired volume snapshots", work).wait()
