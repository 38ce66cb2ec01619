"""Instances get another name, storage pool or project, with their snapshots.

Within a pool the volume is renamed; to another one it is copied, and the old one goes once the row
says where the instance is. What a daemon that died in between has left, `Startup` settles by the
row.

Source: LXD docs, "Instances", "Move".
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from lxpy.api.instances import InstancePost
from lxpy.errors import BadRequest, Conflict
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances import cloudinit, devices, keys, names
from lxpy.instances.model import Instance, Snapshot, root_device
from lxpy.operations.registry import Operation, Registry
from lxpy.services.commit import to_the_end
from lxpy.services.instances.copies import Copies, Source
from lxpy.services.instances.instances import Instances
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import Starter, volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Journal
from lxpy.services.locks import Locks
from lxpy.services.projects.allowances import Allowances
from lxpy.services.projects.profiles import Profiles
from lxpy.services.server import access
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool


@dataclass(frozen=True, slots=True)
class _Plan:
    """A move: what the instance and its snapshots are before and after, and on which pools."""

    old: Instance
    new: Instance
    old_pool: Pool
    new_pool: Pool
    snapshots: tuple[Snapshot, ...]
    drops_snapshots: bool

    @property
    def renames(self) -> bool:
        """Whether the volume stays and gets another name only."""
        return self.old_pool.name == self.new_pool.name and not self.drops_snapshots


class Moves:
    """Moves instances that are stopped; one that fails has changed nothing."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        locks: Locks,
        journal: Journal,
        pools: Pools,
        profiles: Profiles,
        allowances: Allowances,
        copies: Copies,
        starter: Starter,
        instances: Instances,
        power: Power,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._store = store
        self._locks = locks
        self._journal = journal
        self._pools = pools
        self._profiles = profiles
        self._allowances = allowances
        self._copies = copies
        self._starter = starter
        self._instances = instances
        self._power = power
        self._registry = registry
        self._lifecycle = lifecycle

    async def move(self, project: str, name: str, wish: InstancePost) -> Operation:
        """Start a move. Raises NotFound, BadRequest for a bad name, Conflict for one taken.

        Whether its profiles, devices and limits fit in the other project, the operation says.
        """
        old = self._store.get(project, name)
        target = (wish.project or project, names.check_name(wish.name or name))
        access.check(target[0])
        if wish.pool:
            await self._pools.pool(wish.pool)
        self._check_free(old, target, wish)

        async def work(operation: Operation) -> None:
            async with AsyncExitStack() as held:
                for each in sorted({(project, name), target}):
                    await held.enter_async_context(self._locks.hold("instance", *each))
                await self._move((project, name), target, wish, operation)

        return self._registry.spawn(
            "Migrating instance" if wish.pool or wish.project else "Renaming instance",
            work,
            project=project,
            resources={"instances": [f"/1.0/instances/{name}"]},
            cancellable=True,
        )

    def _check_free(self, old: Instance, target: tuple[str, str], wish: InstancePost) -> None:
        stays = target == (old.project, old.name) and wish.pool
        if self._store.has(*target) and not stays:
            raise Conflict(f'Name "{target[1]}" already in use in project "{target[0]}"')

    def _check_stopped(self, old: Instance, wish: InstancePost) -> None:
        if not self._power.is_running(old):
            return
        if wish.pool or wish.project:
            raise BadRequest(
                f'Instance must be stopped to be moved statelessly: stop "{old.name}" first'
            )
        raise BadRequest("Renaming of running container not allowed")

    async def _move(
        self,
        source: tuple[str, str],
        target: tuple[str, str],
        wish: InstancePost,
        operation: Operation,
    ) -> None:
        old = self._store.get(*source)
        self._check_stopped(old, wish)
        self._check_free(old, target, wish)
        await self._instances.check_unread(old)
        plan = await self._plan(old, target, wish)
        if plan.new_pool.name == plan.old_pool.name and target == source:
            return  # it is there
        intent = await self._journal.begin(
            "move", old.project, old.name, id=old.id, pool=plan.old_pool.name,
            to_pool=plan.new_pool.name, to_project=target[0], to=target[1],
        )  # fmt: skip
        try:
            if plan.renames:
                await self._rename(plan)
            else:
                await self._copy(plan, operation)
        except BaseException:
            await self._journal.end(intent)
            raise
        await to_the_end(self._leave(plan, intent))
        context = {"old_name": source[1]}
        if target != source:
            path = f"/1.0/instances/{target[1]}"
            self._lifecycle.emit("instance-renamed", path, target[0], context)
        else:
            self._lifecycle.emit("instance-updated", f"/1.0/instances/{target[1]}", target[0])

    async def _plan(self, old: Instance, target: tuple[str, str], wish: InstancePost) -> _Plan:
        """Return what the instance becomes. Raises LxpyError when it cannot be there."""
        used = await self._profiles.profiles(target[0], old.profiles)
        config, own = dict(old.config), dict(old.devices)
        if target[1] != old.name:
            config.setdefault("volatile.apply_template", "rename")
            config[cloudinit.INSTANCE_ID] = cloudinit.new_id()
        pool_name = wish.pool or old.root_device[1]["pool"]
        new = replace(old, project=target[0], name=target[1])
        new = new.changed(used, config=config, devices=own)
        root, device = _root(new, old)
        if device.get("pool") != pool_name:
            own[root] = {**device, "pool": pool_name}
            new = new.changed(used, devices=own)
        new_pool = await self._pools.pool(pool_name)
        if wish.pool or wish.project:
            await self._check_fits(old, new, new_pool)
        snapshots = tuple(self._store.snapshots.of(old.id))
        alone = (wish.instance_only or wish.container_only) and bool(snapshots)
        kept = () if alone else tuple(_elsewhere(each, pool_name) for each in snapshots)
        return _Plan(old, new, await self._pool_of(old), new_pool, kept, alone)

    async def _check_fits(self, old: Instance, new: Instance, pool: Pool) -> None:
        keys.validate_expanded(new.expanded_config)
        devices.validate(new.expanded_devices, expanded=True, instance=new.name)
        self._pools.check_root(pool, new.root_device[1])
        await self._starter.check(new.project, new.expanded_devices)
        if new.project != old.project:
            await self._allowances.check_instance(new, "creation")

    async def _pool_of(self, instance: Instance) -> Pool:
        return await self._pools.pool(instance.root_device[1]["pool"])

    async def _rename(self, plan: _Plan) -> None:
        storage, old, new = self._pools.storage, volume_of(plan.old), volume_of(plan.new)
        await storage.rename(plan.old_pool, old, new.name, project=new.project)
        try:
            await to_the_end(self._store.save(plan.new, snapshots=plan.snapshots))
        except BaseException:
            await storage.rename(plan.old_pool, new, old.name, project=old.project)
            raise

    async def _copy(self, plan: _Plan, operation: Operation) -> None:
        snapshots: Sequence[Snapshot] = ()
        if not plan.drops_snapshots:
            snapshots = self._store.snapshots.of(plan.old.id)
        source = Source(plan.old, None, tuple(snapshots), plan.drops_snapshots)
        await self._copies.copy(source, plan.new, plan.new_pool, None, operation)
        try:
            await to_the_end(self._store.save(plan.new, snapshots=plan.snapshots))
        except BaseException:
            await self._pools.storage.delete_volume(plan.new_pool, volume_of(plan.new))
            raise

    async def _leave(self, plan: _Plan, intent: str) -> None:
        """Have nothing left where the instance was: its row says that it is elsewhere."""
        if not plan.renames:
            await self._pools.storage.delete_volume(plan.old_pool, volume_of(plan.old))
        await self._instances.rename_files(plan.old.unique_name, plan.new.unique_name)
        await self._instances.announce(plan.new)
        await self._journal.end(intent)


def _root(new: Instance, old: Instance) -> tuple[str, dict[str, str]]:
    """Return the root disk that an instance has with its profiles elsewhere, or the one it had."""
    found = {
        name: dict(device)
        for name, device in new.expanded_devices.items()
        if device.get("type") == "disk" and device.get("path") == "/"
    }
    if len(found) == 1:
        return next(iter(found.items()))
    name, device = old.root_device
    return name, {**device, "pool": ""}


def _elsewhere(snapshot: Snapshot, pool: str) -> Snapshot:
    """Return a snapshot whose root disk is on a pool: it goes where its instance goes."""
    name, root = root_device(snapshot.expanded_devices)
    if root["pool"] == pool:
        return snapshot
    inherited = {key: each for key, each in snapshot.inherited_devices.items() if key != name}
    own = {**snapshot.devices, name: {**root, "pool": pool}}
    return replace(snapshot, devices=own, inherited_devices=inherited)
