"""Instances go back to a snapshot: files, config, devices and profiles; later snapshots stay.

Source: LXD docs, "Instances", "Snapshots".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

from lxpy.errors import BadRequest, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.keys import is_volatile
from lxpy.instances.model import Instance, Snapshot
from lxpy.operations.registry import Operation, Registry
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Intent, Journal
from lxpy.services.locks import Locks
from lxpy.services.networks.networks import Networks
from lxpy.services.projects.profiles import Profiles
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool

#: what lxpy knows of the instance as it is now, whatever it was when the snapshot was made
_KEPT = ("volatile.idmap.", "volatile.last_state.", "volatile.uuid")


class Restoring:
    """Restores snapshots."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        locks: Locks,
        journal: Journal,
        pools: Pools,
        profiles: Profiles,
        networks: Networks,
        power: Power,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._store = store
        self._locks = locks
        self._journal = journal
        self._pools = pools
        self._profiles = profiles
        self._networks = networks
        self._power = power
        self._registry = registry
        self._lifecycle = lifecycle

    def restore(self, project: str, name: str, snapshot: str, *, stateful: bool) -> Operation:
        """Start the restoration; an instance that runs is stopped for it and started again.

        Raises NotFound, BadRequest.
        """
        self._store.get(project, name)
        wanted = snapshot.removeprefix(f"{name}/")  # lxc writes "INSTANCE/SNAPSHOT"

        async def work(_: Operation) -> None:
            async with self._locks.hold("instance", project, name):
                instance = self._store.get(project, name)
                await self.apply(instance, wanted, stateful=stateful)

        return self._registry.spawn(
            "Restoring snapshot",
            work,
            project=project,
            resources={"instances": [f"/1.0/instances/{name}"]},
        )

    async def apply(self, instance: Instance, name: str, *, stateful: bool = False) -> None:
        """Restore a snapshot, the instance's lock held; `stateful` with its memory.

        Raises LxpyError with nothing changed.
        """
        found = self._store.snapshots.find(instance.id, name)
        if found is None:
            raise NotFound(f"Snapshot {instance.name}/{name} does not exist")
        if stateful and not found.stateful:
            raise BadRequest(f'Snapshot "{instance.name}/{name}" has no state of processes')
        await self._restored(instance, found)  # what is wrong with it is said before it is stopped
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        async with self._interrupted(instance, name if stateful else ""):
            instance = self._store.get(instance.project, instance.name)
            new = await self._restored(instance, found)
            await self._swap(instance, new, found, pool)
            await self._networks.announce(new, instance)
        context = {"snapshot": f"{instance.name}/{name}"}
        path = f"/1.0/instances/{instance.name}"
        self._lifecycle.emit("instance-restored", path, instance.project, context)

    @asynccontextmanager
    async def _interrupted(self, instance: Instance, goes_on_from: str) -> AsyncIterator[None]:
        """Have the instance stopped for the length of a block; a daemon that dies is no reason
        for it to stay so, see `Startup.autostart`.
        """
        if not self._power.is_running(instance):
            async with self._power.interrupted(instance, goes_on_from=goes_on_from):
                yield
            return
        intent = await self._journal.begin("interrupted", instance.project, instance.name)
        try:
            async with self._power.interrupted(instance, goes_on_from=goes_on_from):
                yield
        finally:
            await self._journal.end(intent)

    async def _swap(self, old: Instance, new: Instance, found: Snapshot, pool: Pool) -> None:
        """Change row and files of a stopped instance; the row first, as that can be undone."""
        data = {"pool": pool.name, "snapshot": found.name}
        intent = Intent(str(uuid4()), "restore", old.project, old.name, data)
        await self._store.save(new, begins=intent)
        try:
            await self._pools.storage.restore(pool, volume_of(new), found.name)
        except BaseException:
            await self._store.save(old, ends=intent.id)
            raise
        await self._journal.end(intent.id)

    async def _restored(self, instance: Instance, found: Snapshot) -> Instance:
        """Return the instance as the snapshot has it.

        Raises NotFound when a profile is gone, BadRequest when it was on another pool.
        """
        profiles = await self._profiles.profiles(instance.project, list(found.profiles))
        kept = {key: value for key, value in instance.config.items() if key.startswith(_KEPT)}
        own = {key: value for key, value in found.config.items() if _is_of_then(key)}
        new = replace(
            instance, ephemeral=found.ephemeral, description=found.description, volume=found.volume
        )
        new = new.changed(profiles, config={**own, **kept}, devices=found.devices)
        before, after = instance.root_device[1]["pool"], new.root_device[1]["pool"]
        if before != after:
            raise BadRequest(
                f'Snapshot "{instance.name}/{found.name}" has its root disk on storage pool '
                f'"{after}", the instance is on "{before}": copy the snapshot to a new instance'
            )
        return new

    async def finish(self, intent: Intent) -> None:
        """Restore once more what a daemon has not finished: the row is changed already."""
        if not self._store.has(intent.project, intent.name):
            return
        instance = self._store.get(intent.project, intent.name)
        pool = await self._pools.pool(intent.data["pool"])
        await self._pools.storage.restore(pool, volume_of(instance), intent.data["snapshot"])


def _is_of_then(key: str) -> bool:
    """Whether a key goes back to what it was: not the state of a system that ran then."""
    return not key.startswith(_KEPT) and not (is_volatile(key) and key.endswith(".host_name"))
