"""Incremental backups put on top of the instance that has the snapshot they start from.

All of it happens on copies; the instance itself changes in one step, at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from secrets import token_hex

import structlog

from lxpy.backups.index import Base
from lxpy.backups.reader import Incoming
from lxpy.backups.unpack import MAX_DESCRIPTORS
from lxpy.errors import Conflict, Failed, LxpyError
from lxpy.instances.model import Instance, Snapshot, snapshot_of
from lxpy.services.backups import arrivals
from lxpy.services.backups.arrivals import Described
from lxpy.services.instances.restoring import Restoring
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Journal
from lxpy.services.projects.profiles import Profiles
from lxpy.services.snapshots.files import SnapshotFiles
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume, view
from lxpy.threads import resource

_log = structlog.get_logger()

Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy of the base snapshot that becomes what the archive says; `row` is to have it."""

    name: str
    volume: Volume
    row: Snapshot
    is_new: bool = True


class Increments:
    """Applies incremental backups."""

    def __init__(
        self,
        store: InstanceStore,
        journal: Journal,
        pools: Pools,
        profiles: Profiles,
        files: SnapshotFiles,
        restoring: Restoring,
    ) -> None:
        self._store = store
        self._journal = journal
        self._pools = pools
        self._profiles = profiles
        self._files = files
        self._restoring = restoring

    async def apply(self, project: str, name: str, archive: Incoming, tell: Tell) -> None:
        """Bring an instance up to date, its lock held; one that runs is restarted for it.

        Raises Failed or Conflict; then the instance is as it was.
        """
        base = archive.index.since
        assert base is not None
        instance = self._instance(project, name, base)
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        found = arrivals.described(archive.index, project, name)
        profiles = await self._profiles.profiles(project, list(found.profiles))
        found = replace(found, instance=arrivals.on_pool(found.instance, profiles, pool.name))
        copies = self._planned(instance, found, archive)
        async with AsyncExitStack() as stack:
            for each in copies:
                await self._copied(stack, instance, pool, base.snapshot, each)
            await self._unpack(pool, copies, archive, tell)
            await self._take_over(instance, copies)

    def _instance(self, project: str, name: str, base: Base) -> Instance:
        """Return the instance that has the base. Raises Failed."""
        label = f'snapshot "{name}/{base.snapshot}" of {base.created_at:%Y-%m-%d %H:%M:%S %Z}'
        if not self._store.has(project, name):
            raise Failed(
                f"The backup has only what changed since {label}: import the full backup that "
                "it was made after first"
            )
        instance = self._store.get(project, name)
        found = self._store.snapshots.find(instance.id, base.snapshot)
        uuid = instance.config.get("volatile.uuid", "")
        if found is None or found.created_at != base.created_at or (base.uuid not in ("", uuid)):
            raise Failed(
                f'The backup has only what changed since {label}, which instance "{name}" here '
                "does not have: import a full backup, or an increment since a snapshot it has"
            )
        return instance

    def _planned(self, instance: Instance, found: Described, archive: Incoming) -> list[_Copy]:
        """Return what to make: the instance itself, and new snapshots, oldest first."""
        pool = instance.root_device[1]["pool"]
        rows = {each.name: arrivals.snapshot_on_pool(each, pool) for each in found.snapshots}
        copies = []
        for name, snapshot in archive.index.targets().items():
            volume = replace(volume_of(instance), name=f"import-{token_hex(6)}")
            if not snapshot:
                row = snapshot_of(found.instance, volume.name, datetime.now(UTC))
                row = replace(row, instance_id=instance.id)
                copies.append(_Copy(name, volume, row))
                continue
            have = self._store.snapshots.find(instance.id, snapshot)
            if have is not None and have.created_at != rows[snapshot].created_at:
                raise Conflict(
                    f'Snapshot "{instance.name}/{snapshot}" exists and is another one than that '
                    "of the backup: rename or delete it"
                )
            row = replace(rows[snapshot], instance_id=instance.id)
            copies.append(_Copy(name, volume, row, is_new=have is None))
        copies = [each for each in copies if each.is_new]
        if len(copies) > MAX_DESCRIPTORS:
            raise Failed(
                f"The backup has {len(copies) - 1} snapshots more than the instance here, of "
                f"{MAX_DESCRIPTORS - 1} at most: export with --instance-only"
            )
        return copies

    async def _copied(
        self, stack: AsyncExitStack, instance: Instance, pool: Pool, base: str, copy: _Copy
    ) -> None:
        """Copy the base to a volume that goes with `stack`."""
        storage = self._pools.storage
        # To a daemon that finds this at its start it is an instance that was not finished.
        intent = await self._journal.begin(
            "create", instance.project, copy.volume.name, pool=pool.name
        )
        stack.push_async_callback(self._drop, pool, copy.volume, intent)
        await storage.copy(pool, volume_of(instance).at(base), pool, copy.volume)

    async def _drop(self, pool: Pool, volume: Volume, intent: str) -> None:
        """Remove a copy; one that cannot be goes when the daemon starts again."""
        try:
            await self._pools.storage.delete_volume(pool, volume)
            await self._journal.end(intent)
        except LxpyError as error:
            _log.warning("copy of an import stays", volume=volume.name, error=str(error))

    async def _unpack(self, pool: Pool, copies: list[_Copy], archive: Incoming, tell: Tell) -> None:
        storage = self._pools.storage
        async with AsyncExitStack() as stack:
            roots, targets = {}, {}
            for each in copies:
                rootfs = await stack.enter_async_context(storage.held(pool, each.volume))
                opened = resource(partial(view.open_tree, rootfs, writable=True), os.close)
                roots[each.name] = await stack.enter_async_context(opened)
                targets[each.name] = storage.directory(pool, each.volume)
            await archive.unpack(targets, tell, roots=roots)

    async def _take_over(self, instance: Instance, copies: list[_Copy]) -> None:
        """Make snapshots of the copies, and restore the one that is the instance."""
        made: list[Snapshot] = []
        try:
            for each in (*copies[1:], copies[0]):
                made.append(await self._snapshot(instance, each))
            await self._restoring.apply(instance, made[-1].name)
        except BaseException:
            for snapshot in made:
                with suppress(LxpyError):
                    await self._files.remove(instance, snapshot)
            raise
        current = self._store.get(instance.project, instance.name)
        await self._files.remove(current, made[-1])

    async def _snapshot(self, instance: Instance, copy: _Copy) -> Snapshot:
        async def make(pool: Pool, target: Volume) -> Snapshot:
            await self._pools.storage.copy(pool, copy.volume, pool, target)
            return copy.row

        return await self._files.add(instance, copy.row.name, make, paused="")
