"""Snapshots of custom volumes: made, looked at, renamed, deleted, by schedule or by hand.

Source: LXD docs, "Storage volumes", "Snapshots".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec import UNSET

from lxpy.api import storage as api
from lxpy.api.snapshots import NEVER
from lxpy.db import intents
from lxpy.db import volumes as queries
from lxpy.db.engine import Database
from lxpy.db.rows import VolumeRow, VolumeSnapshotRow
from lxpy.errors import BadRequest, Conflict, NotFound, NotSupported
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.names import check_snapshot_name
from lxpy.instances.snapshots import next_name
from lxpy.operations.registry import Operation, Registry, Work
from lxpy.services.commit import to_the_end
from lxpy.services.journal import Journal
from lxpy.services.locks import Locks
from lxpy.services.storage import views
from lxpy.services.storage.disks import Disks
from lxpy.services.storage.files import SnapshotRecord, VolumeFiles
from lxpy.services.storage.places import Place, find, stored
from lxpy.services.storage.pools import Pools
from lxpy.services.storage.roots import RootVolumes
from lxpy.services.storage.users import VolumeUsers
from lxpy.storage import Pool, Volume, VolumeType
from lxpy.units import expiry_date

#: in the config of a snapshot that a schedule has made: only those are deleted by "snapshots.keep"
SCHEDULED = "volatile.snapshot.scheduled"

Check = Callable[[object], None]


@dataclass(frozen=True, slots=True)
class _Found:
    """A snapshot of a volume."""

    pool: Pool
    row: VolumeRow
    snapshot: VolumeSnapshotRow

    @property
    def volume(self) -> Volume:
        """The snapshot as storage knows it."""
        return stored(self.row).at(self.snapshot.name)


class VolumeSnapshots:
    """The snapshots of custom volumes."""

    def __init__(
        self,
        *,
        db: Database,
        pools: Pools,
        roots: RootVolumes,
        locks: Locks,
        journal: Journal,
        files: VolumeFiles,
        users: VolumeUsers,
        disks: Disks,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._pools = pools
        self._roots = roots
        self._locks = locks
        self._journal = journal
        self._files = files
        self._users = users
        self._disks = disks
        self._registry = registry
        self._lifecycle = lifecycle

    # Looking

    async def list(self, place: Place) -> Sequence[api.VolumeSnapshot]:
        """Return a volume's snapshots, oldest first. Raises NotFound, BadRequest."""
        if place.kind == VolumeType.CONTAINER:
            return [self._roots.show(place, each.name) for each in self._roots.snapshots(place)]
        async with self._db.read() as session:
            row = await find(session, place)
            found = await queries.snapshots(session, row.id)
        return [views.of_snapshot(row, each) for each in found]

    async def get(self, place: Place, name: str) -> tuple[api.VolumeSnapshot, object]:
        """Return a snapshot and its writable part. Raises NotFound, BadRequest."""
        if place.kind == VolumeType.CONTAINER:
            shown = self._roots.show(place, name)
        else:
            found = await self._find(place, name)
            shown = views.of_snapshot(found.row, found.snapshot)
        return shown, views.writable_snapshot(shown)

    # Making

    async def create(
        self, place: Place, wish: api.VolumeSnapshotsPost, *, scheduled: bool = False
    ) -> Operation:
        """Start the making of a snapshot. Raises NotFound, BadRequest, Conflict."""
        async with self._db.read() as session:
            row = await find(session, place)
            taken = {each.name for each in await queries.snapshots(session, row.id)}
        if wish.name:
            _check_free(check_snapshot_name(wish.name), taken)

        async def work(operation: Operation) -> None:
            name = await self.take(place, wish, scheduled=scheduled)
            operation.resources |= _urls(place, name)

        return self._spawn("Creating storage volume snapshot", work, place, wish.name)

    async def take(
        self, place: Place, wish: api.VolumeSnapshotsPost, *, scheduled: bool = False
    ) -> str:
        """Make a snapshot and return its name; running users stand still for an instant.

        Raises NotFound, Conflict, Failed with nothing left behind.
        """
        pool = await self._pools.pool(place.pool)
        async with self._db.read() as session:
            volume = stored(await find(session, place))
        async with self._users.locked(pool, volume, place):
            record = await self._planned(place, wish, scheduled=scheduled)
            snapshot = volume.at(record.name)
            quiet = self._users.stillness(pool, volume, lambda: self._disks.flush(pool, volume))
            async with self._journal.undoable(
                "volume-snapshot", place.project, place.name,
                pool=place.pool, snapshots=[record.name], paused=quiet.freezes,
            ) as intent:  # fmt: skip
                await self._pools.storage.snapshot(pool, snapshot, quiet)
                async with self._files.or_removed(pool, snapshot):
                    await self._files.add_snapshots(place, [record], ends=intent)
        self._tell("created", place, record.name)
        return record.name

    async def _planned(
        self, place: Place, wish: api.VolumeSnapshotsPost, *, scheduled: bool
    ) -> SnapshotRecord:
        now = datetime.now(UTC)
        async with self._db.read() as session:
            row = await find(session, place)
            taken = {each.name for each in await queries.snapshots(session, row.id)}
        pattern = row.config.get("snapshots.pattern", "")
        name = wish.name or next_name(pattern, taken, now.astimezone())
        _check_free(name, taken)
        expires_at = _ends(wish.expires_at)
        if wish.expires_at is None:
            expires_at = expiry_date(row.config.get("snapshots.expiry", ""), now)
        config = {**row.config, SCHEDULED: "true"} if scheduled else row.config
        description = wish.description or row.description
        return SnapshotRecord(name, now, expires_at, description, config)

    # Changing

    async def put(self, place: Place, name: str, wish: api.VolumeSnapshotPut, check: Check) -> None:
        """Replace a snapshot's writable part. Raises NotFound, BadRequest, PreconditionFailed."""
        if place.kind == VolumeType.CONTAINER:
            await self._put_of_instance(place, name, wish, check)
            return
        async with self._locks.hold(*place.key):
            shown, writable = await self.get(place, name)
            check(writable)
            async with self._db.write() as session:
                row = await find(session, place)
                found = await queries.find_snapshot(session, row.id, shown.name)
                if found is None:
                    raise _missing(place, name)
                found.description, found.expires_at = wish.description, _ends(wish.expires_at)
        self._tell("updated", place, name)

    async def _put_of_instance(
        self, place: Place, name: str, wish: api.VolumeSnapshotPut, check: Check
    ) -> None:
        async with self._roots.locked(place):
            shown, writable = await self.get(place, name)
            check(writable)
            if _ends(wish.expires_at) not in (None, _ends(shown.expires_at)):
                raise BadRequest(
                    f'"{place.name}/{name}" ends with the snapshot of the instance: set '
                    '"expires_at" there'
                )
            await self._roots.write_snapshot(place, name, wish.description)
        self._tell("updated", place, name)

    async def patch(
        self, place: Place, name: str, wish: api.VolumeSnapshotPatch, check: Check
    ) -> None:
        """Change what is given. Raises as `put`."""
        shown, _ = await self.get(place, name)
        whole = api.VolumeSnapshotPut(
            description=shown.description if wish.description is UNSET else wish.description,
            expires_at=shown.expires_at if wish.expires_at is UNSET else wish.expires_at,
        )
        await self.put(place, name, whole, check)

    async def rename(self, place: Place, name: str, wish: api.VolumeSnapshotPost) -> Operation:
        """Start the renaming of a snapshot. Raises NotFound, BadRequest, Conflict."""
        found = await self._find(place, name)
        if wish.migration:
            raise NotSupported(
                "Moving snapshots between servers is not in this version of lxpy: copy the snapshot"
            )
        new_name = check_snapshot_name(wish.name)
        async with self._db.read() as session:
            others = await queries.snapshots(session, found.row.id)
        _check_free(new_name, {each.name for each in others})

        async def work(_: Operation) -> None:
            async with self._locks.hold(*place.key):
                await self._rename(place, await self._at_rest(place, name), new_name)
            self._tell("renamed", place, new_name, {"old_name": name})

        return self._spawn("Renaming storage volume snapshot", work, place, name)

    async def _rename(self, place: Place, found: _Found, new_name: str) -> None:
        async with self._db.read() as session:
            others = await queries.snapshots(session, found.row.id)
        _check_free(new_name, {each.name for each in others})
        old, volume = found.snapshot.name, found.volume
        async with self._journal.undoable(
            "volume-snapshot-rename", place.project, place.name,
            pool=place.pool, snapshot=old, to=new_name,
        ) as intent:  # fmt: skip
            await self._pools.storage.rename(found.pool, volume, new_name)
            try:
                await to_the_end(self._rename_row(found, new_name, intent))
            except BaseException:
                await self._pools.storage.rename(found.pool, volume.at(new_name), old)
                raise

    async def _rename_row(self, found: _Found, new_name: str, intent: str) -> None:
        async with self._db.write() as session:
            row = await session.get_one(VolumeSnapshotRow, found.snapshot.id)
            row.name = new_name
            await intents.end(session, intent)

    async def delete(self, place: Place, name: str) -> Operation:
        """Start the deletion of a snapshot. Raises NotFound, BadRequest."""
        await self._find(place, name)

        async def work(_: Operation) -> None:
            async with self._locks.hold(*place.key):
                await self.remove(place, name)

        return self._spawn("Deleting storage volume snapshot", work, place, name)

    async def remove(self, place: Place, name: str) -> None:
        """Delete a snapshot, the volume's lock held. Raises NotFound, Conflict, Failed."""
        found = await self._at_rest(place, name)
        await self._files.delete_snapshot(found.pool, place, found.volume, found.snapshot.id)
        self._tell("deleted", place, name)

    async def _find(self, place: Place, name: str) -> _Found:
        pool = await self._pools.pool(place.pool)
        async with self._db.read() as session:
            row = await find(session, place)
            snapshot = await queries.find_snapshot(session, row.id, name)
        if snapshot is None:
            raise _missing(place, name)
        return _Found(pool, row, snapshot)

    async def _at_rest(self, place: Place, name: str) -> _Found:
        """Return a snapshot that nobody reads. Raises NotFound, Conflict."""
        found = await self._find(place, name)
        if not await self._pools.storage.is_free(found.pool, found.volume):
            raise Conflict(
                f'Snapshot "{found.volume.label}" is in use: it is mounted, exported or compared; '
                "try again when that has ended"
            )
        return found

    def _spawn(self, description: str, work: Work, place: Place, name: str) -> Operation:
        resources = _urls(place, name)
        return self._registry.spawn(description, work, project=place.project, resources=resources)

    def _tell(
        self, action: str, place: Place, name: str, context: Mapping[str, str] | None = None
    ) -> None:
        event = f"storage-volume-snapshot-{action}"
        self._lifecycle.emit(event, f"{place.path}/snapshots/{name}", place.project, context)


def _urls(place: Place, name: str) -> dict[str, list[str]]:
    found = {"storage_volumes": [place.path]}
    snapshots = {"storage_volume_snapshots": [f"{place.path}/snapshots/{name}"]}
    return found | snapshots if name else found


def _check_free(name: str, taken: set[str]) -> None:
    if name in taken:
        raise Conflict(f'Snapshot "{name}" already in use: delete it first, or use another name')


def _missing(place: Place, name: str) -> NotFound:
    return NotFound(f'Storage pool volume not found: "{place.name}" has no snapshot "{name}"')


def _ends(given: datetime | None) -> datetime | None:
    """Return when something ends, None for LXD's way to say never."""
    return None if given is None or given == NEVER else given
