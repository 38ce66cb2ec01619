"""Instances: looking at them, deleting them."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from lxpy.api import instances as api
from lxpy.errors import BadRequest, Conflict, Forbidden
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.model import Instance, unique_name
from lxpy.operations.registry import Operation, Registry, Work
from lxpy.services.directories import Directories
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.instances.views import Views
from lxpy.services.journal import Journal
from lxpy.services.locks import Locks
from lxpy.services.networks.networks import Networks
from lxpy.services.storage.pools import Pools
from lxpy.storage import Volume, VolumeType
from lxpy.threads import in_thread


class Instances:
    """The instances of this installation."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        locks: Locks,
        journal: Journal,
        directories: Directories,
        pools: Pools,
        networks: Networks,
        power: Power,
        views: Views,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._store = store
        self._locks = locks
        self._journal = journal
        self._directories = directories
        self._pools = pools
        self._networks = networks
        self._power = power
        self._views = views
        self._registry = registry
        self._lifecycle = lifecycle
        #: called with an instance that has been deleted
        self.on_removed: Callable[[Instance], Awaitable[None]] = _keep
        power.on_ephemeral_end = self.remove

    # Looking

    def list(self, project: str | None) -> Sequence[api.Instance]:
        """Return the instances of a project, None: of all."""
        return [self._views.show(each) for each in self._store.listed(project)]

    async def list_full(self, project: str | None) -> Sequence[api.InstanceFull]:
        """Return the instances with their states."""
        return await self._views.fulls(self._store.listed(project))

    def get(self, project: str, name: str) -> tuple[api.Instance, object]:
        """Return an instance and its writable part. Raises NotFound."""
        instance = self._store.get(project, name)
        return self._views.show(instance), self._views.writable(instance)

    async def get_full(self, project: str, name: str) -> tuple[api.InstanceFull, object]:
        """Return an instance with its state, and its writable part. Raises NotFound."""
        instance = self._store.get(project, name)
        return await self._views.full(instance), self._views.writable(instance)

    async def state(self, project: str, name: str) -> api.InstanceState:
        """Return what an instance does now. Raises NotFound."""
        return await self._views.state(self._store.get(project, name))

    # Deleting

    def delete(self, project: str, name: str) -> Operation:
        """Start the deletion of a stopped instance. Raises NotFound, BadRequest."""
        if self._power.is_running(self._store.get(project, name)):
            raise BadRequest("Instance is running")

        async def work(_: Operation) -> None:
            async with self._locks.hold("instance", project, name):
                instance = self._store.get(project, name)
                if self._power.is_running(instance):
                    raise BadRequest("Instance is running")
                if instance.flag("security.protection.delete"):
                    raise Forbidden(
                        f'Container is protected: unset security.protection.delete of "{name}"'
                    )
                await self.check_unread(instance)
                await self.remove(instance)

        return self._spawn("Deleting instance", project, name, work)

    async def check_unread(self, instance: Instance) -> None:
        """Raise Conflict while somebody reads the instance or a snapshot of it."""
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume, storage = volume_of(instance), self._pools.storage
        states = [volume, *map(volume.at, await storage.snapshots(pool, volume))]
        for each in states:
            if not await storage.is_free(pool, each):
                raise Conflict(
                    f'Instance "{instance.name}" is being exported, copied or read: try again '
                    "when that has ended"
                )

    async def rename_files(self, old: str, new: str) -> None:
        """Have what lies beside an instance's volume, and what networks know of it, follow it.

        Both are unique names; what is not there any more has followed already.
        """
        if old == new:
            return
        for place in (self._directories.logs, self._directories.states_of):
            await in_thread(_move, place(old), place(new))
        await self._networks.forget(old)

    async def announce(self, instance: Instance) -> None:
        """Have networks reserve what one has that does not run; logs what fails."""
        await self._networks.announce(instance)

    async def remove(self, instance: Instance) -> None:
        """Delete an instance that does not run, its lock held. A crash in between is made good."""
        pool_name = instance.root_device[1]["pool"]
        intent = await self._store.remove(instance, intent={"pool": pool_name})
        await self.clear(instance.project, instance.name, pool_name)
        await self.on_removed(instance)
        await self._journal.end(intent)
        self._tell("instance-deleted", instance)

    async def clear(self, project: str, name: str, pool_name: str) -> None:
        """Remove what an instance without a row has on disk."""
        unique = unique_name(project, name)
        await self._networks.forget(unique)
        pool = await self._pools.pool(pool_name)
        volume = Volume(name, VolumeType.CONTAINER, project)
        await self._pools.storage.delete_volume(pool, volume)
        for place in (self._directories.logs, self._directories.states_of):
            await in_thread(shutil.rmtree, place(unique), True)

    def _spawn(self, description: str, project: str, name: str, work: Work) -> Operation:
        resources = {"instances": [f"/1.0/instances/{name}"]}
        return self._registry.spawn(description, work, project=project, resources=resources)

    def _tell(self, action: str, instance: Instance) -> None:
        self._lifecycle.emit(action, f"/1.0/instances/{instance.name}", instance.project)


async def _keep(_: Instance) -> None:
    """Do nothing more."""


def _move(old: Path, new: Path) -> None:
    if old.exists():
        shutil.rmtree(new, ignore_errors=True)
        old.rename(new)
