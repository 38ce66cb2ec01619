"""Copies of instances and of their snapshots: new ones, and ones brought up to date again.

Source: LXD docs, "Instances", "Copy".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

from lxpy.api.instances import InstanceSource
from lxpy.errors import BadRequest, NotFound
from lxpy.instances import keys
from lxpy.instances.model import Device, Instance, Snapshot, root_device, snapshot_of
from lxpy.operations.registry import Operation
from lxpy.runtime.container import Runtime
from lxpy.services.images.images import Images
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Journal
from lxpy.services.server import access
from lxpy.services.snapshots.files import Make, SnapshotFiles
from lxpy.services.snapshots.quiet import Pause, Saving
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume
from lxpy.storage.drivers.base import quiet_already

#: volatile keys of the snapshots of a copy that are their own, not the copy's
_OF_FILES = ("volatile.base_image", "volatile.idmap.", "volatile.last_state.")


@dataclass(frozen=True, slots=True)
class Source:
    """What is copied: an instance, by itself or with its snapshots, or one of these."""

    instance: Instance
    snapshot: Snapshot | None
    snapshots: tuple[Snapshot, ...]
    alone: bool

    @property
    def made_of(self) -> Snapshot:
        """What config, devices and profiles come from."""
        return self.snapshot or snapshot_of(self.instance, "", datetime.now(UTC))

    @property
    def volume(self) -> Volume:
        """Where the files are."""
        volume = volume_of(self.instance)
        return volume if self.snapshot is None else volume.at(self.snapshot.name)


class Copies:
    """Copies the files; rows are its callers' to write. Locks of both sides are held."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        journal: Journal,
        files: SnapshotFiles,
        pools: Pools,
        images: Images,
        power: Power,
        runtime: Runtime,
    ) -> None:
        self._store = store
        self._journal = journal
        self._files = files
        self._pools = pools
        self._images = images
        self._power = power
        self._runtime = runtime

    def source(self, project: str, wish: InstanceSource) -> Source:
        """Return what "c1" or "c1/snap0" names. Raises BadRequest, NotFound."""
        name, _, snapshot = wish.source.partition("/")
        if not name:
            raise BadRequest("Must specify a source instance")
        access.check(wish.project or project)
        instance = self._store.get(wish.project or project, name)
        if not snapshot:
            alone = wish.instance_only or wish.container_only
            found = () if alone else tuple(self._store.snapshots.of(instance.id))
            return Source(instance, None, found, alone)
        one = self._store.snapshots.find(instance.id, snapshot)
        if one is None:
            raise NotFound(
                f'Failed to fetch snapshot "{snapshot}" of instance "{name}" in project '
                f'"{instance.project}": InstanceSnapshot not found'
            )
        return Source(instance, one, (), alone=True)

    def pause(self, source: Source) -> Pause | None:
        """Return what makes the source stand still; None for a snapshot, which does already."""
        if source.snapshot is not None:
            return None
        return Pause(self._runtime, self._power, source.instance)

    async def copy(
        self,
        source: Source,
        target: Instance,
        pool: Pool,
        pause: Pause | Saving | None,
        operation: Operation,
    ) -> list[Snapshot]:
        """Make a new instance's volume with its snapshots; return what rows these get.

        Raises LxpyError with nothing left behind.
        """
        from_pool = await self._pools.pool(source.instance.root_device[1]["pool"])
        volume = volume_of(target)
        wanted = [source.volume, *(volume_of(source.instance).at(s.name) for s in source.snapshots)]
        await self._bring_images(from_pool, wanted, pool, operation)
        await self._transfer(source.volume, from_pool, volume, pool, pause)
        try:
            for each in source.snapshots:
                old = volume_of(source.instance).at(each.name)
                await self._transfer(old, from_pool, volume.at(each.name), pool, None)
        except BaseException:
            await self._pools.storage.delete_volume(pool, volume)
            raise
        return [adapted(each, target, pool) for each in source.snapshots]

    async def refresh(self, source: Source, target: Instance, operation: Operation) -> None:
        """Make a stopped copy what its source is now; its own config and devices stay.

        Snapshots that the source has and the copy has not come along, others go. Each step is
        whole by itself: one that was interrupted is taken again by the next refresh.
        """
        if self._power.is_running(target):
            raise BadRequest("Cannot refresh a running instance: stop it first")
        pool = await self._pools.pool(target.root_device[1]["pool"])
        from_pool = await self._pools.pool(source.instance.root_device[1]["pool"])
        if not source.alone:
            await self._refresh_snapshots(source, target, from_pool, pool, operation)
        await self._bring_images(from_pool, [source.volume], pool, operation)
        # What arrives does so as a snapshot, without a row: a crash takes it away again.
        arrival = volume_of(target).at(f"lxpy-refresh-{uuid4().hex[:12]}")
        pause = self.pause(source)
        intent = await self._journal.begin(
            "snapshot", target.project, target.name,
            pool=pool.name, snapshot=arrival.snapshot, paused=pause.freezes if pause else "",
        )  # fmt: skip
        try:
            await self._transfer(source.volume, from_pool, arrival, pool, pause)
            await self._pools.storage.restore(pool, volume_of(target), arrival.snapshot)
        finally:
            await self._pools.storage.delete_volume(pool, arrival)
            await self._journal.end(intent)

    async def _refresh_snapshots(
        self, source: Source, target: Instance, from_pool: Pool, pool: Pool, operation: Operation
    ) -> None:
        """Have the snapshots of the copy be those of the source: same name, same time."""
        have = {each.name: each for each in self._store.snapshots.of(target.id)}
        want = {each.name: each for each in source.snapshots}
        for name, each in have.items():
            if name not in want or want[name].created_at != each.created_at:
                await self._files.remove(target, each)
        volumes = [volume_of(source.instance).at(name) for name in want]
        await self._bring_images(from_pool, volumes, pool, operation)
        kept = self._store.snapshots.names(target.id)
        for each in source.snapshots:
            if each.name not in kept:
                await self._files.add(
                    target, each.name, self._maker(source, each, target, from_pool), paused=""
                )

    def _maker(self, source: Source, snapshot: Snapshot, target: Instance, from_pool: Pool) -> Make:
        """Return what copies one snapshot to an existing copy of its instance."""

        async def make(pool: Pool, volume: Volume) -> Snapshot:
            old = volume_of(source.instance).at(snapshot.name)
            await self._transfer(old, from_pool, volume, pool, None)
            return replace(adapted(snapshot, target, pool), instance_id=target.id)

        return make

    async def _transfer(
        self,
        source: Volume,
        from_pool: Pool,
        target: Volume,
        pool: Pool,
        pause: Pause | Saving | None,
    ) -> None:
        quiet = quiet_already if pause is None else pause
        await self._pools.storage.copy(from_pool, source, pool, target, quiet)

    async def _bring_images(
        self, from_pool: Pool, volumes: Iterable[Volume], pool: Pool, operation: Operation
    ) -> None:
        """Have the images that volumes stand on be on the other pool, too."""
        if pool.name == from_pool.name:
            return
        found = {await self._pools.storage.image_of(from_pool, each) for each in volumes}
        for image in sorted(each for each in found if each is not None):
            await self._images.ensure_on_pool(pool, image, operation.progress)


def adapted(snapshot: Snapshot, target: Instance, pool: Pool) -> Snapshot:
    """Return the row of a snapshot of a copy.

    Its addresses and its identity are the copy's: going back to it makes the copy no other.
    """
    kept = keys.copied(snapshot.config)
    own = {
        key: value
        for key, value in target.config.items()
        if keys.is_volatile(key) and not key.startswith(_OF_FILES)
    }
    devices: dict[str, Device] = dict(snapshot.devices)
    inherited: dict[str, Device] = dict(snapshot.inherited_devices)
    name, root = root_device(snapshot.expanded_devices)
    if root["pool"] != pool.name:
        own_name, own_root = target.root_device
        if name in devices or own_name in target.devices:
            devices[name] = {**root, "pool": pool.name}
        else:  # of a profile, which names another pool here
            inherited = {key: each for key, each in inherited.items() if key != name}
            inherited[own_name] = own_root
    return replace(
        snapshot,
        stateful=False,  # the memory is the source's
        config={**kept, **own, "volatile.apply_template": "copy"},
        devices=devices,
        inherited_devices={key: device for key, device in inherited.items() if key not in devices},
    )
