"""Snapshots of instances: made, looked at, renamed, deleted.

Each change of the disk is noted before: `recover` finishes or undoes what a daemon left.
Source: LXD docs, "Instances", "Snapshots".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from msgspec import UNSET

from lxpy.api import snapshots as api
from lxpy.errors import BadRequest, Conflict, LxpyError, NotFound, NotSupported
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.model import Instance, Snapshot, snapshot_of
from lxpy.instances.names import check_snapshot_name
from lxpy.instances.snapshots import next_name
from lxpy.operations.registry import Operation, Registry, Work
from lxpy.runtime.container import Runtime
from lxpy.services.journal import Intent, Journal
from lxpy.services.locks import Locks
from lxpy.services.power import Power
from lxpy.services.quiet import Pause
from lxpy.services.starting import volume_of
from lxpy.services.storage import Pools
from lxpy.services.store import InstanceStore
from lxpy.services.views import Views
from lxpy.storage import Pool, Volume
from lxpy.units import expiry_date

Check = Callable[[object], None]
Handler = Callable[[Intent], Awaitable[None]]


class Snapshots:
    """The snapshots of instances."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        locks: Locks,
        journal: Journal,
        pools: Pools,
        power: Power,
        runtime: Runtime,
        views: Views,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._store = store
        self._locks = locks
        self._journal = journal
        self._pools = pools
        self._power = power
        self._runtime = runtime
        self._views = views
        self._registry = registry
        self._lifecycle = lifecycle

    # Looking

    def list(self, project: str, name: str) -> Sequence[api.Snapshot]:
        """Return the snapshots of an instance, oldest first. Raises NotFound."""
        return self._views.snapshots(self._store.get(project, name))

    async def get(self, project: str, name: str, snapshot: str) -> tuple[api.Snapshot, object]:
        """Return a snapshot with its size, and its writable part. Raises NotFound."""
        instance, found = self.find(project, name, snapshot)
        shown = self._views.snapshot(instance, found)
        try:
            pool = await self._pools.pool(instance.root_device[1]["pool"])
            usage = await self._pools.storage.usage(pool, volume_of(instance).at(snapshot))
        except LxpyError:
            usage = None  # a pool that is away does not keep us from showing what we know
        if usage is not None:
            shown.size = usage.used
        return shown, [shown.expires_at]

    def find(self, project: str, name: str, snapshot: str) -> tuple[Instance, Snapshot]:
        """Return an instance and its snapshot. Raises NotFound."""
        instance = self._store.get(project, name)
        found = self._store.snapshots.find(instance.id, snapshot)
        if found is None:
            raise NotFound(
                f'Failed to fetch snapshot "{snapshot}" of instance "{name}" in project '
                f'"{project}": InstanceSnapshot not found'
            )
        return instance, found

    # Making

    def create(
        self, project: str, name: str, wish: api.SnapshotsPost, *, scheduled: bool = False
    ) -> Operation:
        """Start the making of a snapshot. Raises NotFound, BadRequest."""
        self._store.get(project, name)
        if wish.stateful:
            raise BadRequest(
                "Stateful snapshots, with the memory, are not in this version of lxpy: leave "
                "stateful out"
            )
        if wish.name:
            check_snapshot_name(wish.name)

        async def work(operation: Operation) -> None:
            async with self._locks.hold("instance", project, name):
                instance = self._store.get(project, name)
                made = await self.take(instance, wish, scheduled=scheduled)
            operation.resources |= _urls(name, made.name)

        return self._spawn("Snapshotting instance", work, project, name, wish.name)

    async def take(
        self, instance: Instance, wish: api.SnapshotsPost, *, scheduled: bool = False
    ) -> Snapshot:
        """Make a snapshot, the instance's lock held; if it runs, it stands still for an instant.

        Raises BadRequest, Conflict, Failed with nothing left behind.
        """
        planned = self._planned(instance, wish, scheduled=scheduled)
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume = volume_of(instance).at(planned.name)
        pause = Pause(self._runtime, self._power, instance)
        async with self._journal.undoable(
            "snapshot", instance.project, instance.name,
            pool=pool.name, snapshot=planned.name, paused=pause.freezes,
        ) as intent:  # fmt: skip
            await self._pools.storage.snapshot(pool, volume, pause)
            try:
                made = await self._store.snapshots.add(
                    replace(planned, frozen_ms=_milliseconds(pause.lasted_s)), ends=intent
                )
            except BaseException:
                await self._pools.storage.delete_volume(pool, volume)
                raise
        self._tell("created", instance, made.name)
        return made

    def _planned(self, instance: Instance, wish: api.SnapshotsPost, *, scheduled: bool) -> Snapshot:
        now = datetime.now(UTC)
        taken = self._store.snapshots.names(instance.id)
        config = instance.expanded_config
        name = wish.name or next_name(config.get("snapshots.pattern", ""), taken, now.astimezone())
        if name in taken:
            raise Conflict(
                f'Failed creating instance snapshot record "{name}": '
                f'This "instances_snapshots" entry already exists: delete "{instance.name}/{name}"'
                " first, or use another name"
            )
        expires_at = _ends(wish.expires_at)
        if wish.expires_at is None:
            expires_at = expiry_date(config.get("snapshots.expiry", ""), now)
        planned = snapshot_of(instance, name, now)
        return replace(planned, expires_at=expires_at, scheduled=scheduled)

    # Changing

    def put(
        self, project: str, name: str, snapshot: str, wish: api.SnapshotPut, check: Check
    ) -> Operation:
        """Start the replacement of a snapshot's end. Raises NotFound, PreconditionFailed."""
        instance, found = self.find(project, name, snapshot)
        check([self._views.snapshot(instance, found).expires_at])

        async def work(_: Operation) -> None:
            async with self._locks.hold("instance", project, name):
                instance, found = self.find(project, name, snapshot)
                await self._store.snapshots.set_expiry(found, _ends(wish.expires_at))
            self._tell("updated", instance, snapshot)

        return self._spawn("Updating snapshot", work, project, name, snapshot)

    def patch(
        self, project: str, name: str, snapshot: str, wish: api.SnapshotPatch, check: Check
    ) -> Operation:
        """Start the change of what is given. Raises as `put`."""
        _, found = self.find(project, name, snapshot)
        expires_at = found.expires_at if wish.expires_at is UNSET else wish.expires_at
        return self.put(project, name, snapshot, api.SnapshotPut(expires_at=expires_at), check)

    def rename(self, project: str, name: str, snapshot: str, wish: api.SnapshotPost) -> Operation:
        """Start the renaming of a snapshot. Raises NotFound, BadRequest, Conflict."""
        instance, _ = self.find(project, name, snapshot)
        if wish.migration:
            raise NotSupported(
                "Moving snapshots between servers is not in this version of lxpy: copy the snapshot"
            )
        new_name = check_snapshot_name(wish.name)
        if self._store.snapshots.find(instance.id, new_name) is not None:
            raise Conflict(f'Snapshot "{new_name}" already in use')

        async def work(_: Operation) -> None:
            async with self._locks.hold("instance", project, name):
                await self._rename(*self.find(project, name, snapshot), new_name)

        return self._spawn("Renaming snapshot", work, project, name, snapshot)

    async def _rename(self, instance: Instance, old: Snapshot, new_name: str) -> None:
        if self._store.snapshots.find(instance.id, new_name) is not None:
            raise Conflict(f'Snapshot "{new_name}" already in use')
        pool, volume = await self._unused(instance, old.name)
        async with self._journal.undoable(
            "snapshot-rename", instance.project, instance.name,
            pool=pool.name, snapshot=old.name, to=new_name,
        ) as intent:  # fmt: skip
            await self._pools.storage.rename(pool, volume, new_name)
            try:
                await self._store.snapshots.rename(old, new_name, ends=intent)
            except BaseException:
                await self._pools.storage.rename(pool, volume.at(new_name), old.name)
                raise
        self._tell("renamed", instance, new_name, {"old_name": old.name})

    def delete(self, project: str, name: str, snapshot: str) -> Operation:
        """Start the deletion of a snapshot. Raises NotFound."""
        self.find(project, name, snapshot)

        async def work(_: Operation) -> None:
            await self.remove(project, name, snapshot)

        return self._spawn("Deleting snapshot", work, project, name, snapshot)

    async def remove(self, project: str, name: str, snapshot: str) -> None:
        """Delete a snapshot. Raises NotFound, Conflict while it is in use, Failed."""
        async with self._locks.hold("instance", project, name):
            instance, found = self.find(project, name, snapshot)
            pool, volume = await self._unused(instance, snapshot)
            intent = await self._journal.begin(
                "snapshot-delete", project, name, pool=pool.name, snapshot=snapshot
            )
            try:
                await self._pools.storage.delete_volume(pool, volume)
            except BaseException:
                await self._journal.end(intent)
                raise
            # From here on it has to go: should this fail, the next start or deletion ends it.
            await self._store.snapshots.remove(found, ends=intent)
        self._tell("deleted", instance, snapshot)

    async def _unused(self, instance: Instance, snapshot: str) -> tuple[Pool, Volume]:
        """Return where a snapshot lies. Raises Conflict when somebody reads it."""
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume = volume_of(instance).at(snapshot)
        if self._pools.storage.holders(pool, volume):
            raise Conflict(
                f'Snapshot "{volume.label}" is in use: it is mounted, exported or compared; try '
                "again when that has ended"
            )
        return pool, volume

    # After a crash

    def handlers(self) -> dict[str, Handler]:
        """Return what finishes or undoes unfinished work, by its kind."""
        return {
            "snapshot": self._undo_create,
            "snapshot-rename": self._settle_rename,
            "snapshot-delete": self._finish_delete,
        }

    async def _undo_create(self, intent: Intent) -> None:
        if self._row(intent, intent.data["snapshot"]) is None:
            pool, volume = await self._place(intent)
            await self._pools.storage.delete_volume(pool, volume)

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

    async def _finish_delete(self, intent: Intent) -> None:
        pool, volume = await self._place(intent)
        await self._pools.storage.delete_volume(pool, volume)
        found = self._row(intent, volume.snapshot)
        if found is not None:
            await self._store.snapshots.remove(found, ends=intent.id)

    async def _place(self, intent: Intent) -> tuple[Pool, Volume]:
        volume = Volume(intent.name, project=intent.project)
        return await self._pools.pool(intent.data["pool"]), volume.at(intent.data["snapshot"])

    def _row(self, intent: Intent, snapshot: str) -> Snapshot | None:
        if not self._store.has(intent.project, intent.name):
            return None
        instance = self._store.get(intent.project, intent.name)
        return self._store.snapshots.find(instance.id, snapshot)

    def _spawn(
        self, description: str, work: Work, project: str, name: str, snapshot: str
    ) -> Operation:
        resources = _urls(name, snapshot)
        return self._registry.spawn(description, work, project=project, resources=resources)

    def _tell(
        self,
        action: str,
        instance: Instance,
        snapshot: str,
        context: Mapping[str, str] | None = None,
    ) -> None:
        path = f"/1.0/instances/{instance.name}/snapshots/{snapshot}"
        self._lifecycle.emit(f"instance-snapshot-{action}", path, instance.project, context)


def _urls(name: str, snapshot: str) -> dict[str, list[str]]:
    url = f"/1.0/instances/{name}"
    found = {"instances": [url]}
    return found | {"instances_snapshots": [f"{url}/snapshots/{snapshot}"]} if snapshot else found


def _ends(given: datetime | None) -> datetime | None:
    """Return when something ends, None for LXD's way to say never."""
    return None if given is None or given == api.NEVER else given


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
