"""Row, files and memory of a snapshot come and go together, whatever happens in between.

Each change of the disk is noted before; `handlers` finish or undo what a daemon left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lxpy.errors import Conflict
from lxpy.instances.model import Instance, Snapshot, unique_name
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Intent, Journal
from lxpy.services.memory.checkpoints import Checkpoints
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume

Handler = Callable[[Intent], Awaitable[None]]
#: makes the files of a snapshot and returns its row
Make = Callable[[Pool, Volume], Awaitable[Snapshot]]


class SnapshotFiles:
    """Makes, renames and removes snapshots; the instance's lock is held."""

    def __init__(
        self, store: InstanceStore, journal: Journal, pools: Pools, checkpoints: Checkpoints
    ) -> None:
        self._store = store
        self._journal = journal
        self._pools = pools
        self._checkpoints = checkpoints

    async def add(self, instance: Instance, name: str, make: Make, *, paused: str) -> Snapshot:
        """Make a snapshot; `paused` names what stands still meanwhile, see `Pause.freezes`.

        Raises LxpyError with nothing left behind.
        """
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume = volume_of(instance).at(name)
        async with self._journal.undoable(
            "snapshot", instance.project, instance.name,
            pool=pool.name, snapshot=name, paused=paused,
        ) as intent:  # fmt: skip
            try:
                made = await make(pool, volume)
            except BaseException:
                await self._checkpoints.remove(instance.unique_name, name)
                raise
            try:
                return await self._store.snapshots.add(made, ends=intent)
            except BaseException:
                await self._delete(pool, volume)
                raise

    async def rename(self, instance: Instance, old: Snapshot, name: str) -> None:
        """Give a snapshot another name. Raises Conflict, LxpyError with nothing changed."""
        pool, volume = await self._unused(instance, old.name)
        async with self._journal.undoable(
            "snapshot-rename", instance.project, instance.name,
            pool=pool.name, snapshot=old.name, to=name,
        ) as intent:  # fmt: skip
            await self._pools.storage.rename(pool, volume, name)
            try:
                await self._store.snapshots.rename(old, name, ends=intent)
            except BaseException:
                await self._pools.storage.rename(pool, volume.at(name), old.name)
                raise
            await self._checkpoints.rename_snapshot(instance.unique_name, old.name, name)

    async def remove(self, instance: Instance, snapshot: Snapshot) -> None:
        """Remove a snapshot. Raises Conflict while it is in use, LxpyError."""
        pool, volume = await self._unused(instance, snapshot.name)
        intent = await self._journal.begin(
            "snapshot-delete", instance.project, instance.name,
            pool=pool.name, snapshot=snapshot.name,
        )  # fmt: skip
        try:
            await self._delete(pool, volume)
        except BaseException:
            await self._journal.end(intent)
            raise
        # From here on it has to go: should this fail, the next start or deletion ends it.
        await self._store.snapshots.remove(snapshot, ends=intent)

    async def _unused(self, instance: Instance, snapshot: str) -> tuple[Pool, Volume]:
        """Return where a snapshot lies. Raises Conflict when somebody reads it."""
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume = volume_of(instance).at(snapshot)
        if not await self._pools.storage.is_free(pool, volume):
            raise Conflict(
                f'Snapshot "{volume.label}" is in use: it is mounted, exported or compared; try '
                "again when that has ended"
            )
        return pool, volume

    # After a crash

    def handlers(self) -> dict[str, Handler]:
        """Return what finishes or undoes unfinished work, by its kind."""
        return {
            "snapshot": self._undo_add,
            "snapshot-rename": self._settle_rename,
            "snapshot-delete": self._finish_remove,
        }

    async def _undo_add(self, intent: Intent) -> None:
        if self._row(intent, intent.data["snapshot"]) is None:
            await self._delete(*await self._place(intent))

    async def _settle_rename(self, intent: Intent) -> None:
        """The row tells which name counts; the files get that one."""
        pool, old = await self._place(intent)
        new = old.at(intent.data["to"])
        renamed = self._row(intent, new.snapshot) is not None
        there = new.snapshot in await self._pools.storage.snapshots(pool, old.whole)
        if renamed and not there:
            await self._pools.storage.rename(pool, old, new.snapshot)
        elif there and not renamed:
            await self._pools.storage.rename(pool, new, old.snapshot)
        if renamed:
            unique = unique_name(intent.project, intent.name)
            await self._checkpoints.rename_snapshot(unique, old.snapshot, new.snapshot)

    async def _finish_remove(self, intent: Intent) -> None:
        pool, volume = await self._place(intent)
        await self._delete(pool, volume)
        found = self._row(intent, volume.snapshot)
        if found is not None:
            await self._store.snapshots.remove(found, ends=intent.id)

    async def _delete(self, pool: Pool, volume: Volume) -> None:
        await self._pools.storage.delete_volume(pool, volume)
        await self._checkpoints.remove(unique_name(volume.project, volume.name), volume.snapshot)

    async def _place(self, intent: Intent) -> tuple[Pool, Volume]:
        volume = Volume(intent.name, project=intent.project)
        return await self._pools.pool(intent.data["pool"]), volume.at(intent.data["snapshot"])

    def _row(self, intent: Intent, snapshot: str) -> Snapshot | None:
        if not self._store.has(intent.project, intent.name):
            return None
        instance = self._store.get(intent.project, intent.name)
        return self._store.snapshots.find(instance.id, snapshot)
