"""Custom volumes on disk and in the database: changed together, and settled after a crash.

Every change of the disk is noted before it begins; what a daemon has left is finished or undone by
`handlers` and `settle_sizes` at the next start: the database tells which.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db import intents
from lxpy.db import pools as pool_queries
from lxpy.db import volumes as queries
from lxpy.db.base import now
from lxpy.db.engine import Database
from lxpy.db.rows import VolumeRow, VolumeSnapshotRow
from lxpy.errors import Conflict, LxpyError, NotFound
from lxpy.services.commit import to_the_end
from lxpy.services.journal import Intent, Journal
from lxpy.services.storage.places import Place, custom, find, stored, volume_for
from lxpy.services.storage.pools import Pools
from lxpy.storage import ContentType, Pool, Volume

Handler = Callable[[Intent], Awaitable[None]]
Follow = Callable[[AsyncSession, Place, str], Awaitable[None]]
Remove = Callable[[AsyncSession, int], Awaitable[None]]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """What is kept about a snapshot beside its files."""

    name: str
    created_at: datetime
    expires_at: datetime | None = None
    description: str = ""
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept about a volume beside its files."""

    place: Place
    content: str
    config: Mapping[str, str]
    description: str = ""
    created_at: datetime | None = None
    snapshots: tuple[SnapshotRecord, ...] = ()

    @property
    def volume(self) -> Volume:
        """The volume as storage knows it."""
        return volume_for(self.place.project, self.place.name, self.content, self.config)


class VolumeFiles:
    """Changes of volumes that are more than one step; the caller holds their locks."""

    def __init__(self, db: Database, pools: Pools, journal: Journal) -> None:
        self._db = db
        self._pools = pools
        self._journal = journal

    @asynccontextmanager
    async def making(self, record: Record, *, paused: Sequence[str] = ()) -> AsyncIterator[str]:
        """Keep the intent of a new volume for the length of a block, which ends with `insert`.

        `paused` are the unique names of instances that stand still at times.
        """
        place = record.place
        async with self._journal.undoable(
            "volume-orphan", place.project, place.name,
            pool=place.pool, content=record.content, paused=list(paused),
        ) as intent:  # fmt: skip
            yield intent

    @asynccontextmanager
    async def or_removed(self, pool: Pool, volume: Volume) -> AsyncIterator[None]:
        """Remove a volume or snapshot, which is made already, should the block fail."""
        try:
            yield
        except BaseException:
            await self._pools.storage.delete_volume(pool, volume)
            raise

    async def insert(self, record: Record, *, ends: str) -> None:
        """Write the rows of a volume that is made, with its snapshots; its intent ends."""
        await to_the_end(self._insert(record, ends))

    async def _insert(self, record: Record, ends: str) -> None:
        async with self._db.write() as session:
            row = VolumeRow(
                pool_id=await _pool_id(session, record.place.pool),
                project=record.place.project,
                name=record.place.name,
                content_type=record.content,
                config=dict(record.config),
                description=record.description,
                created_at=record.created_at or now(),
            )
            session.add(row)
            await session.flush()
            session.add_all(_snapshot_rows(row.id, record.snapshots))
            await intents.end(session, ends)

    async def add_snapshots(
        self, place: Place, snapshots: Iterable[SnapshotRecord], *, ends: str
    ) -> None:
        """Write the rows of snapshots that are made; their intent ends."""

        async def write() -> None:
            async with self._db.write() as session:
                row = await find(session, place)
                session.add_all(_snapshot_rows(row.id, snapshots))
                await intents.end(session, ends)

        await to_the_end(write())

    async def move_row(self, old: Place, record: Record, *, ends: str) -> str:
        """Say that a volume, which lies in two places by now, is in the new one.

        Returns the intent of what is at the old place to go, see `forget`.
        """

        async def write() -> str:
            async with self._db.write() as session:
                row = await find(session, old)
                row.pool_id = await _pool_id(session, record.place.pool)
                row.project, row.name = record.place.project, record.place.name
                row.config = dict(record.config)
                await intents.end(session, ends)
                return intents.add(
                    session, "volume-orphan", old.project, old.name,
                    pool=old.pool, content=record.content,
                )  # fmt: skip

        return await to_the_end(write())

    async def forget(self, pool: Pool, volume: Volume, intent: str) -> None:
        """Remove a volume that has no row any more, and with it the intent."""

        async def remove() -> None:
            await self._pools.storage.delete_volume(pool, volume)
            await self._journal.end(intent)

        await to_the_end(remove())

    async def rename(
        self, pool: Pool, row: VolumeRow, old: Place, new: Place, follow: Follow
    ) -> None:
        """Give a volume that nobody uses another name; `follow` writes it wherever it is told.

        Raises Conflict.
        """
        async with self._journal.undoable(
            "volume-rename", old.project, old.name, pool=old.pool, to=new.name
        ) as intent:
            volume = stored(row)
            await self._pools.storage.rename(pool, volume, new.name)
            try:
                await to_the_end(self._rename_row(old, new, intent, follow))
            except BaseException:
                await self._pools.storage.rename(pool, volume_renamed(volume, new), old.name)
                raise

    async def _rename_row(self, old: Place, new: Place, intent: str, follow: Follow) -> None:
        async with self._db.write() as session:
            row = await find(session, old)
            row.name = new.name
            await follow(session, old, new.name)
            await intents.end(session, intent)

    async def delete(self, pool: Pool, row: VolumeRow, place: Place) -> None:
        """Remove a volume with its snapshots. On a full disk, too."""
        async with self._db.write(frees=True) as session:
            intent = intents.add(
                session, "volume-delete", place.project, place.name, pool=place.pool
            )
        try:
            await self._pools.storage.delete_volume(pool, stored(row))
        except BaseException:
            await self._journal.end(intent)
            raise
        await to_the_end(self._removed(queries.remove, row.id, intent))

    async def delete_snapshot(
        self, pool: Pool, place: Place, snapshot: Volume, row_id: int
    ) -> None:
        """Remove a snapshot that nobody reads. On a full disk, too."""
        async with self._db.write(frees=True) as session:
            intent = intents.add(
                session, "volume-snapshot-delete", place.project, place.name,
                pool=place.pool, snapshot=snapshot.snapshot,
            )  # fmt: skip
        try:
            await self._pools.storage.delete_volume(pool, snapshot)
        except BaseException:
            await self._journal.end(intent)
            raise
        await to_the_end(self._removed(queries.remove_snapshot, row_id, intent))

    async def _removed(self, remove: Remove, row_id: int, intent: str) -> None:
        async with self._db.write(frees=True) as session:
            await remove(session, row_id)
            await intents.end(session, intent)

    async def restore(self, pool: Pool, row: VolumeRow, place: Place, snapshot: str) -> None:
        """Make a volume at rest what its snapshot is."""
        async with self._journal.undoable(
            "volume-restore", place.project, place.name, pool=place.pool, snapshot=snapshot
        ) as intent:
            await self.restored(pool, stored(row), snapshot)
            await self._journal.end(intent)

    async def restored(self, pool: Pool, volume: Volume, snapshot: str) -> None:
        """Do that, an intent kept by the caller."""
        await self._pools.storage.restore(pool, volume, snapshot)
        if volume.content is ContentType.BLOCK:
            # The snapshot may be of a time when the disk was smaller.
            await self._pools.storage.resize(pool, volume, volume.size_bytes)

    async def resize(
        self, pool: Pool, place: Place, row: VolumeRow, config: Mapping[str, str]
    ) -> str:
        """Give a volume the size that its new config has; return the intent, "" if it has it.

        Whoever writes the new config ends the intent; `resize_back` undoes.
        """
        old = stored(row)
        new = volume_for(place.project, place.name, row.content_type, config)
        if old.size_bytes == new.size_bytes:
            return ""
        async with self._journal.undoable(
            "volume-resize", place.project, place.name, pool=place.pool
        ) as intent:
            await self._pools.storage.resize(pool, old, new.size_bytes)
            return intent

    async def resize_back(self, pool: Pool, row: VolumeRow, intent: str) -> None:
        """Give a volume the size again that its row has."""
        await self._pools.storage.resize(pool, stored(row), stored(row).size_bytes)
        await self._journal.end(intent)

    # After a crash

    def handlers(self) -> dict[str, Handler]:
        """Return what finishes or undoes unfinished work, by its kind."""
        return {
            "volume-orphan": self._remove_orphan,
            "volume-rename": self._settle_rename,
            "volume-delete": self._finish_delete,
            "volume-restore": self._finish_restore,
            "volume-snapshot": self._remove_snapshots,
            "volume-refresh": self._finish_refresh,
            "volume-snapshot-rename": self._settle_snapshot,
            "volume-snapshot-delete": self._finish_snapshot,
        }

    async def settle_sizes(self) -> None:
        """Give volumes whose size was about to change that of their row.

        Only when running instances hold theirs again: a volume in use is resized another way.
        """
        for intent in await self._journal.unfinished():
            if intent.kind != "volume-resize":
                continue
            try:
                await self._settle_size(intent)
            except LxpyError as error:
                _log.warning("size of a volume not settled", volume=intent.name, error=str(error))
            else:
                await self._journal.end(intent.id)

    async def _remove_orphan(self, intent: Intent) -> None:
        if await self._row(intent) is None:
            pool = await self._pools.pool(intent.data["pool"])
            volume = volume_for(intent.project, intent.name, intent.data["content"], {})
            await self._pools.storage.delete_volume(pool, volume)

    async def _settle_rename(self, intent: Intent) -> None:
        """The row tells which name counts; the files get that one."""
        pool = await self._pools.pool(intent.data["pool"])
        new = custom(intent.data["pool"], intent.data["to"], intent.project)
        renamed, old = await self._row(intent, new.name), await self._row(intent)
        try:
            if renamed is not None:
                volume = volume_renamed(stored(renamed), place_in(intent))
                await self._pools.storage.rename(pool, volume, new.name)
            elif old is not None:
                volume = volume_renamed(stored(old), new)
                await self._pools.storage.rename(pool, volume, intent.name)
        except (NotFound, Conflict):
            return  # it has that name

    async def _finish_delete(self, intent: Intent) -> None:
        row = await self._row(intent)
        if row is not None:
            pool = await self._pools.pool(intent.data["pool"])
            await self._pools.storage.delete_volume(pool, stored(row))
            async with self._db.write(frees=True) as session:
                await queries.remove(session, row.id)

    async def _finish_restore(self, intent: Intent) -> None:
        row = await self._row(intent)
        if row is not None:
            pool = await self._pools.pool(intent.data["pool"])
            await self.restored(pool, stored(row), intent.data["snapshot"])

    async def _settle_size(self, intent: Intent) -> None:
        row = await self._row(intent)
        if row is not None:
            pool = await self._pools.pool(intent.data["pool"])
            await self._pools.storage.resize(pool, stored(row), stored(row).size_bytes)

    async def _remove_snapshots(self, intent: Intent) -> None:
        """Snapshots without a row go."""
        row = await self._row(intent)
        if row is None:
            return
        pool = await self._pools.pool(intent.data["pool"])
        for name in intent.data["snapshots"]:
            async with self._db.read() as session:
                known = await queries.find_snapshot(session, row.id, name)
            if known is None:
                await self._pools.storage.delete_volume(pool, stored(row).at(name))

    async def _finish_refresh(self, intent: Intent) -> None:
        """Have the new content once it is there; snapshots without a row go."""
        row, hidden = await self._row(intent), intent.data["hidden"]
        if row is not None:
            pool = await self._pools.pool(intent.data["pool"])
            if hidden in await self._pools.storage.snapshots(pool, stored(row)):
                await self.restored(pool, stored(row), hidden)
            await self._remove_snapshots(intent)

    async def _settle_snapshot(self, intent: Intent) -> None:
        row = await self._row(intent)
        if row is None:
            return
        pool, old = await self._pools.pool(intent.data["pool"]), intent.data["snapshot"]
        new = intent.data["to"]
        async with self._db.read() as session:
            renamed = await queries.find_snapshot(session, row.id, new) is not None
        there = new in await self._pools.storage.snapshots(pool, stored(row))
        if renamed and not there:
            await self._pools.storage.rename(pool, stored(row).at(old), new)
        elif there and not renamed:
            await self._pools.storage.rename(pool, stored(row).at(new), old)

    async def _finish_snapshot(self, intent: Intent) -> None:
        row = await self._row(intent)
        if row is None:
            return
        pool, name = await self._pools.pool(intent.data["pool"]), intent.data["snapshot"]
        await self._pools.storage.delete_volume(pool, stored(row).at(name))
        async with self._db.write(frees=True) as session:
            found = await queries.find_snapshot(session, row.id, name)
            if found is not None:
                await queries.remove_snapshot(session, found.id)

    async def _row(self, intent: Intent, name: str = "") -> VolumeRow | None:
        async with self._db.read() as session:
            return await queries.find(
                session, intent.data["pool"], intent.project, name or intent.name
            )


def place_in(intent: Intent) -> Place:
    """Return the place of the volume that an intent is about."""
    return custom(intent.data["pool"], intent.name, intent.project)


def volume_renamed(volume: Volume, place: Place) -> Volume:
    """Return the volume under the name of a place."""
    return Volume(place.name, volume.type, volume.project, volume.config, volume.content)


async def _pool_id(session: AsyncSession, name: str) -> int:
    pool = await pool_queries.find(session, name)
    if pool is None:
        raise NotFound("Storage pool not found")
    return pool.id


def _snapshot_rows(volume_id: int, snapshots: Iterable[SnapshotRecord]) -> list[VolumeSnapshotRow]:
    return [
        VolumeSnapshotRow(
            volume_id=volume_id,
            name=each.name,
            created_at=each.created_at,
            expires_at=each.expires_at,
            description=each.description,
            config=dict(each.config),
        )
        for each in snapshots
    ]
