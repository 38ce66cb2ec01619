"""Custom volumes as archives: read while they are sent, from a snapshot that lasts as long.

Source: LXD docs, "Storage volumes", "Back up a custom storage volume".
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import msgspec
import structlog

from lxpy.backups import index, source, writer
from lxpy.backups.index import Index
from lxpy.backups.pack import Job, Part, Text
from lxpy.backups.writer import Chunks
from lxpy.db import volumes as queries
from lxpy.db.engine import Database
from lxpy.db.rows import VolumeRow, VolumeSnapshotRow
from lxpy.errors import LxpyError
from lxpy.images.pack import Packer
from lxpy.services.backups.exports import KEPT_COMPRESSION
from lxpy.services.journal import Journal
from lxpy.services.storage import views
from lxpy.services.storage.disks import Disks
from lxpy.services.storage.places import Place, find, stored
from lxpy.services.storage.pools import Pools
from lxpy.services.storage.users import VolumeUsers
from lxpy.storage import Pool, Volume

_WHAT = "export the volume"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wish:
    """How an archive is made; `volume_only` leaves the snapshots out."""

    packer: Packer
    volume_only: bool = False


@dataclass(frozen=True, slots=True)
class Still:
    """A volume as it is at one moment: `volume` is a snapshot of then; `about` describes it."""

    pool: Pool
    volume: Volume
    snapshots: Sequence[VolumeSnapshotRow]
    about: Mapping[str, Any]


class VolumeExports:
    """Makes archives of custom volumes."""

    def __init__(
        self,
        db: Database,
        pools: Pools,
        journal: Journal,
        users: VolumeUsers,
        disks: Disks,
        packer: Callable[[str, str, str], Awaitable[Packer]],
    ) -> None:
        self._db = db
        self._pools = pools
        self._journal = journal
        self._users = users
        self._disks = disks
        self._packer = packer

    async def wish(
        self, project: str, algorithm: str, *, volume_only: bool, kept: bool = False
    ) -> Wish:
        """Return how an archive is made; algorithm "" is what the project's config says.

        `kept` is one that the daemon keeps, not a stream. Raises BadRequest.
        """
        unset = KEPT_COMPRESSION if kept else ""
        return Wish(await self._packer(project, algorithm, unset), volume_only)

    @asynccontextmanager
    async def stream(self, place: Place, wish: Wish) -> AsyncIterator[Chunks]:
        """Export a volume; the block reads the archive as it comes, to its end.

        Raises NotFound, Failed, NotSupported. Whatever happens, nothing is left behind.
        """
        async with self._job(place, wish) as job:
            async with writer.stream(job, wish.packer, _WHAT) as chunks:
                yield chunks

    async def write(self, place: Place, wish: Wish, output: int) -> None:
        """Export a volume into an open file. Raises as `stream`."""
        async with self._job(place, wish) as job:
            await writer.write(job, wish.packer, output, _WHAT)

    @asynccontextmanager
    async def still(self, place: Place, *, volume_only: bool) -> AsyncIterator[Still]:
        """Have a volume and its snapshots stay as they are for the length of a block.

        Raises NotFound, Failed.
        """
        pool = await self._pools.pool(place.pool)
        async with self._db.read() as session:
            volume = stored(await find(session, place))
        async with AsyncExitStack() as stack:
            async with self._users.locked(pool, volume, place):
                async with self._db.read() as session:
                    row = await find(session, place)
                    listed = [] if volume_only else await queries.snapshots(session, row.id)
                about = _about(pool, row, listed)
                still = await self._still(stack, place, pool, stored(row))
                for each in listed:
                    held = self._pools.storage.held(pool, volume.at(each.name))
                    await stack.enter_async_context(held)
            yield Still(pool, still, listed, about.config)

    @asynccontextmanager
    async def _job(self, place: Place, wish: Wish) -> AsyncIterator[Job]:
        pool = await self._pools.pool(place.pool)
        async with self._db.read() as session:
            volume = stored(await find(session, place))
        async with AsyncExitStack() as stack:
            async with self._users.locked(pool, volume, place):
                async with self._db.read() as session:
                    row = await find(session, place)
                    snapshots = await queries.snapshots(session, row.id)
                about = _about(pool, row, [] if wish.volume_only else snapshots)
                still = await self._still(stack, place, pool, stored(row))
                # All of it is held before the locks are let go: nobody deletes it now.
                parts = await self._contents(stack, about, pool, stored(row), still)
            yield Job(parts, time.time_ns())

    async def _still(
        self, stack: AsyncExitStack, place: Place, pool: Pool, volume: Volume
    ) -> Volume:
        """Make a snapshot that goes with `stack`."""
        still = volume.at(f"export-{token_hex(6)}")
        quiet = self._users.stillness(pool, volume, lambda: self._disks.flush(pool, volume))
        intent = await self._journal.begin(
            "volume-snapshot", place.project, place.name,
            pool=place.pool, snapshots=[still.snapshot], paused=quiet.freezes,
        )  # fmt: skip
        stack.push_async_callback(self._drop, pool, still, intent)
        await self._pools.storage.snapshot(pool, still, quiet)
        return still

    async def _drop(self, pool: Pool, volume: Volume, intent: str) -> None:
        """Remove the snapshot; one that cannot be goes when the daemon starts again."""
        try:
            await self._pools.storage.delete_volume(pool, volume)
            await self._journal.end(intent)
        except LxpyError as error:
            _log.warning("snapshot of an export stays", volume=volume.label, error=str(error))

    async def _contents(
        self, stack: AsyncExitStack, about: Index, pool: Pool, volume: Volume, still: Volume
    ) -> list[Part]:
        """Open everything; snapshots come before the volume, as LXD has them."""
        parts: list[Part] = [Text(index.NAME, index.dump(about))]
        for directory, snapshot in reversed(about.targets().items()):
            one = volume.at(snapshot) if snapshot else still
            opened = source.opened(self._pools.storage, pool, one, directory)
            parts += await stack.enter_async_context(opened)
        return parts


def _about(pool: Pool, row: VolumeRow, snapshots: Sequence[VolumeSnapshotRow]) -> Index:
    shown = [msgspec.to_builtins(views.of_snapshot(row, each)) for each in snapshots]
    return Index(
        name=row.name,
        pool=pool.name,
        backend=pool.driver,
        type="custom",
        snapshots=[each.name for each in snapshots],
        config={
            "volume": msgspec.to_builtins(views.of_row(row, {})),
            "volume_snapshots": shown,
        },
        checksums=True,
    )
