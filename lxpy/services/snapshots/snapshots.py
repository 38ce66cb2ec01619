"""Snapshots of instances: made, looked at, renamed, deleted.

Source: LXD docs, "Instances", "Snapshots".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from msgspec import UNSET

from lxpy.api import snapshots as api
from lxpy.errors import BadRequest, Conflict, LxpyError, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.model import Instance, Snapshot, snapshot_of
from lxpy.instances.names import check_snapshot_name
from lxpy.instances.snapshots import next_name
from lxpy.operations.registry import Operation, Registry, Work
from lxpy.runtime.container import Runtime
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.instances.views import Views
from lxpy.services.locks import Locks
from lxpy.services.memory.checkpoints import Checkpoints
from lxpy.services.projects.allowances import Allowances
from lxpy.services.snapshots.files import SnapshotFiles
from lxpy.services.snapshots.quiet import Pause, Saving
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume
from lxpy.units import expiry_date

Check = Callable[[object], None]


class Snapshots:
    """The snapshots of instances."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        locks: Locks,
        files: SnapshotFiles,
        checkpoints: Checkpoints,
        pools: Pools,
        power: Power,
        runtime: Runtime,
        views: Views,
        allowances: Allowances,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._store = store
        self._locks = locks
        self._files = files
        self._checkpoints = checkpoints
        self._pools = pools
        self._power = power
        self._runtime = runtime
        self._views = views
        self._allowances = allowances
        self._registry = registry
        self._lifecycle = lifecycle

    # Looking

    async def list(self, project: str, name: str, *, sizes: bool) -> Sequence[api.Snapshot]:
        """Return the snapshots of an instance, oldest first. Raises NotFound."""
        instance = self._store.get(project, name)
        found = self._views.snapshots(instance)
        if sizes:
            await self._measure(instance, found)
        return found

    async def get(self, project: str, name: str, snapshot: str) -> tuple[api.Snapshot, object]:
        """Return a snapshot with its size, and its writable part. Raises NotFound."""
        instance, found = self.find(project, name, snapshot)
        shown = self._views.snapshot(instance, found)
        await self._measure(instance, [shown])
        return shown, [shown.expires_at]

    async def _measure(self, instance: Instance, shown: Sequence[api.Snapshot]) -> None:
        """Fill in what snapshots take, where the pool can tell."""
        volume = volume_of(instance)
        try:
            pool = await self._pools.pool(instance.root_device[1]["pool"])
            for each in shown:
                usage = await self._pools.storage.usage(pool, volume.at(each.name))
                if usage is not None:
                    each.size = usage.used
        except LxpyError:
            return  # a pool that is away does not keep us from showing what we know

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
        self._allowances.check_feature(project, "snapshots")
        if wish.stateful and not self._power.is_running(self._store.get(project, name)):
            raise BadRequest("Unable to create a stateful snapshot. The instance isn't running")
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
        pause: Pause | Saving = Pause(self._runtime, self._power, instance)
        if wish.stateful:
            place = self._checkpoints.place(instance.unique_name, planned.name)
            pause = Saving(self._checkpoints, instance, place)

        async def make(pool: Pool, volume: Volume) -> Snapshot:
            await self._pools.storage.snapshot(pool, volume, pause)
            frozen_ms = _milliseconds(pause.lasted_s)
            return replace(planned, frozen_ms=frozen_ms, memory_bytes=pause.saved_bytes)

        made = await self._files.add(instance, planned.name, make, paused=pause.freezes)
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
        return replace(planned, expires_at=expires_at, scheduled=scheduled, stateful=wish.stateful)

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
        await self._files.rename(instance, old, new_name)
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
            await self._files.remove(instance, found)
        self._tell("deleted", instance, snapshot)

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
