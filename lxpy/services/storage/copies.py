"""Custom volumes are copied, refreshed and moved, within a pool or to one of any driver.

Source: LXD docs, "Storage volumes", "Copy or move a volume".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from uuid import uuid4

from lxpy.api import storage as api
from lxpy.db import volumes as queries
from lxpy.db.engine import Database
from lxpy.db.rows import VolumeRow, VolumeSnapshotRow
from lxpy.errors import BadRequest
from lxpy.events.lifecycle import Lifecycle
from lxpy.operations.registry import Operation, Registry, Work
from lxpy.services.journal import Journal
from lxpy.services.projects.scopes import Feature, Scopes
from lxpy.services.server import access
from lxpy.services.storage.disks import Disks
from lxpy.services.storage.files import Record, SnapshotRecord, VolumeFiles
from lxpy.services.storage.places import (
    Place,
    check_custom,
    check_name,
    check_options,
    custom,
    find,
    given,
    missing,
    portable,
    stored,
)
from lxpy.services.storage.pools import Pools
from lxpy.services.storage.users import Stillness, VolumeUsers
from lxpy.services.storage.volumes import Volumes
from lxpy.storage import ContentType, Pool, Quiet, Volume
from lxpy.storage.drivers.base import quiet_already


@dataclass(frozen=True, slots=True)
class _Source:
    """A volume, or with `snapshot` one of its snapshots, and the snapshots to go along."""

    place: Place
    pool: Pool
    row: VolumeRow
    snapshot: VolumeSnapshotRow | None
    snapshots: tuple[VolumeSnapshotRow, ...]

    @property
    def volume(self) -> Volume:
        """What is copied."""
        whole = stored(self.row)
        return whole if self.snapshot is None else whole.at(self.snapshot.name)

    @property
    def config(self) -> Mapping[str, str]:
        """The options it has, or had then."""
        return self.row.config if self.snapshot is None else self.snapshot.config


class VolumeCopies:
    """Copies volumes."""

    def __init__(
        self,
        *,
        db: Database,
        scopes: Scopes,
        pools: Pools,
        journal: Journal,
        files: VolumeFiles,
        users: VolumeUsers,
        disks: Disks,
        volumes: Volumes,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._scopes = scopes
        self._pools = pools
        self._journal = journal
        self._files = files
        self._users = users
        self._disks = disks
        self._volumes = volumes
        self._registry = registry
        self._lifecycle = lifecycle

    async def copy(self, pool_name: str, project: str, wish: api.VolumesPost) -> Operation:
        """Start the copy that `wish.source` describes.

        Raises NotFound, BadRequest, Conflict.
        """
        source_wish = wish.source or api.VolumeSource()
        if source_wish.type != "copy":
            raise BadRequest(
                f'Unknown source type "{source_wish.type}": use one of none, copy, migration'
            )
        origin = self._scopes.owner(Feature.VOLUMES, source_wish.project or project)
        access.check(source_wish.project or project)
        check_custom(wish.type or "custom")
        target = custom(pool_name, check_name(wish.name), project)
        await self._pools.pool(pool_name)
        name, _, snapshot = source_wish.name.partition("/")
        source = custom(source_wish.pool or pool_name, name, origin)
        await self._find(source, snapshot, alone=True)
        if not source_wish.refresh:
            await self._volumes.check_free(target)
        elif snapshot or source == target:
            raise BadRequest("A volume is refreshed from another whole volume, not from a snapshot")

        async def work(operation: Operation) -> None:
            await self._copy(operation, source, snapshot, target, wish)

        return self._spawn("Copying storage volume", work, target)

    async def move(self, place: Place, wish: api.VolumePost) -> Operation:
        """Start the move of a volume that nobody uses to another pool, project, or both.

        Raises NotFound, BadRequest, Conflict; Failed when the project may not have it.
        """
        check_custom(place.kind)
        project = wish.project or place.project
        access.check(project)
        owner = self._scopes.owner(Feature.VOLUMES, self._scopes.get(project).name)
        target = custom(wish.pool or place.pool, check_name(wish.name or place.name), owner)
        await self._pools.pool(target.pool)
        source = await self._find(place, "", alone=True)
        if owner != place.project:
            await self._volumes.check_allowed(target, source.config)
        await self._volumes.unused(source.pool, place, "A volume cannot be moved")
        await self._volumes.check_free(target)

        async def work(operation: Operation) -> None:
            await self._move(operation, place, target)

        return self._spawn("Moving storage volume", work, place)

    # Copying

    async def _copy(
        self,
        operation: Operation,
        place: Place,
        snapshot: str,
        target: Place,
        wish: api.VolumesPost,
    ) -> None:
        alone = bool(snapshot) or (wish.source is not None and wish.source.volume_only)
        before = await self._find(place, snapshot, alone=alone)
        volume = stored(before.row)
        async with self._users.locked(before.pool, volume, place, target):
            source = await self._find(place, snapshot, alone=alone)
            if wish.source is not None and wish.source.refresh and await self._exists(target):
                await self._refresh(operation, source, target)
                self._tell("updated", target)
                return
            await self._volumes.check_free(target)
            record = await self._record(source, target, given(wish.config), wish.description)
            await self._volumes.check_allowed(target, record.config)
            quiet = self._quiet(source)
            async with self._files.making(record, paused=quiet.freezes) as intent:
                await self._contents(operation, source, record, quiet)
                pool = await self._pools.pool(target.pool)
                async with self._files.or_removed(pool, record.volume):
                    await self._files.insert(record, ends=intent)
        self._tell("created", target)

    async def _move(self, operation: Operation, place: Place, target: Place) -> None:
        found = await self._find(place, "")
        async with self._users.locked(found.pool, stored(found.row), place, target):
            await self._volumes.unused(found.pool, place, "A volume cannot be moved")
            await self._volumes.check_free(target)
            source = await self._find(place, "")
            record = await self._record(source, target, {}, "")
            async with self._files.making(record) as intent:
                pool = await self._pools.pool(target.pool)
                await self._contents(operation, source, record)
                async with self._files.or_removed(pool, record.volume):
                    left = await self._files.move_row(place, record, ends=intent)
            await self._files.forget(source.pool, source.volume, left)
        self._tell("renamed", target, {"old_name": place.name})

    async def _record(
        self, source: _Source, target: Place, changes: Mapping[str, str], description: str
    ) -> Record:
        """Return the row of a copy. Raises BadRequest, InvalidConfig."""
        pool = await self._pools.pool(target.pool)
        content = ContentType(source.row.content_type)
        config = portable(pool, {**source.config, **changes})
        check_options(content, config)
        self._pools.storage.validate_volume(pool, config)
        if content is ContentType.ISO:
            config["size"] = source.config.get("size", "")
        return Record(
            target,
            content,
            config,
            description or source.row.description,
            snapshots=tuple(_snapshot_record(each) for each in source.snapshots),
        )

    async def _contents(
        self, operation: Operation, source: _Source, record: Record, quiet: Quiet = quiet_already
    ) -> None:
        """Copy a volume, then its snapshots, to where there is none of that name."""
        pool, storage = await self._pools.pool(record.place.pool), self._pools.storage
        count = 1 + len(source.snapshots)
        operation.progress("copy_volume", _progress(source.volume, 1, count))
        await storage.copy(source.pool, source.volume, pool, record.volume, quiet)
        async with self._files.or_removed(pool, record.volume):
            for number, each in enumerate(source.snapshots, 2):
                snapshot = stored(source.row).at(each.name)
                operation.progress("copy_volume", _progress(snapshot, number, count))
                target = _of_then(record.volume, each).at(each.name)
                await storage.copy(source.pool, snapshot, pool, target)
            if source.volume.content is ContentType.BLOCK:
                await storage.resize(pool, record.volume, record.volume.size_bytes)

    # Refreshing

    async def _refresh(self, operation: Operation, source: _Source, target: Place) -> None:
        """Make a volume at rest, and its snapshots, what another is.

        The content arrives as a snapshot that nobody sees and is restored from that.
        """
        old = await self._find(target, "")
        if old.row.content_type != source.row.content_type:
            raise BadRequest(
                f'Volume "{target.name}" has content type "{old.row.content_type}", '
                f'"{source.place.name}" has "{source.row.content_type}"'
            )
        await self._users.check_at_rest(old.pool, stored(old.row), "A volume cannot be refreshed")
        have = {each.name: each.created_at for each in old.snapshots}
        new = [each for each in source.snapshots if have.get(each.name) != each.created_at]
        hidden = f"refresh-{uuid4()}"
        names = [hidden, *(each.name for each in new)]
        quiet = self._quiet(source)
        await self._drop(old, {each.name for each in new})
        async with self._journal.undoable(
            "volume-refresh", target.project, target.name,
            pool=target.pool, hidden=hidden, snapshots=names, paused=quiet.freezes,
        ) as intent:  # fmt: skip
            made: list[Volume] = []
            try:
                for number, each in enumerate(new, 1):
                    snapshot = stored(source.row).at(each.name)
                    operation.progress("copy_volume", _progress(snapshot, number, len(names)))
                    await self._copy_to(source.pool, snapshot, old, each.name)
                    made.append(stored(old.row).at(each.name))
                operation.progress("copy_volume", _progress(source.volume, len(names), len(names)))
                await self._copy_to(source.pool, source.volume, old, hidden, quiet)
                made.append(stored(old.row).at(hidden))
                await self._files.restored(old.pool, stored(old.row), hidden)
                await self._pools.storage.delete_volume(old.pool, made.pop())
                records = [_snapshot_record(each) for each in new]
                await self._files.add_snapshots(target, records, ends=intent)
            except BaseException:
                for each_made in made:
                    await self._pools.storage.delete_volume(old.pool, each_made)
                raise
        await self._drop(old, have.keys() - {each.name for each in source.snapshots})

    async def _copy_to(
        self, pool: Pool, volume: Volume, target: _Source, name: str, quiet: Quiet = quiet_already
    ) -> None:
        snapshot = stored(target.row).at(name)
        await self._pools.storage.copy(pool, volume, target.pool, snapshot, quiet)

    async def _drop(self, target: _Source, names: Collection[str]) -> None:
        """Delete those of a volume's snapshots that have one of these names."""
        for each in target.snapshots:
            if each.name in names:
                await self._files.delete_snapshot(
                    target.pool, target.place, stored(target.row).at(each.name), each.id
                )

    # Helpers

    def _quiet(self, source: _Source) -> Stillness:
        volume = stored(source.row)
        return self._users.stillness(
            source.pool, volume, lambda: self._disks.flush(source.pool, volume)
        )

    async def _exists(self, place: Place) -> bool:
        async with self._db.read() as session:
            return await queries.find(session, place.pool, place.project, place.name) is not None

    async def _find(self, place: Place, snapshot: str, *, alone: bool = False) -> _Source:
        pool = await self._pools.pool(place.pool)
        async with self._db.read() as session:
            row = await find(session, place)
            found = await queries.find_snapshot(session, row.id, snapshot) if snapshot else None
            snapshots = () if alone else tuple(await queries.snapshots(session, row.id))
        if snapshot and found is None:
            raise missing()
        return _Source(place, pool, row, found, snapshots)

    def _spawn(self, description: str, work: Work, place: Place) -> Operation:
        return self._registry.spawn(
            description,
            work,
            project=place.project,
            resources={"storage_volumes": [place.path]},
            cancellable=True,
        )

    def _tell(self, action: str, place: Place, context: Mapping[str, str] | None = None) -> None:
        name = f"storage-volume-{action}"
        self._lifecycle.emit(name, place.path, place.project, context)


def _snapshot_record(row: VolumeSnapshotRow) -> SnapshotRecord:
    return SnapshotRecord(
        row.name, row.created_at, row.expires_at, row.description, dict(row.config)
    )


def _of_then(volume: Volume, snapshot: VolumeSnapshotRow) -> Volume:
    """Return a volume with the size that it had when a snapshot was made."""
    size = snapshot.config.get("size", "")
    return replace(volume, config={"size": size} if size else {})


def _progress(volume: Volume, number: int, count: int) -> str:
    return f"Copying {volume.label} ({number} of {count})"
