"""Instances from archives: unpacked while they are received, there when all of it has come.

Source: LXD docs, "REST API", "Instances", POST of an octet-stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lxpy.backups import reader
from lxpy.backups.reader import Incoming
from lxpy.backups.writer import Chunks
from lxpy.errors import BadRequest, Failed, InvalidConfig, NotFound
from lxpy.instances.model import Instance, root_device
from lxpy.instances.names import check_name
from lxpy.operations.registry import Operation, Registry
from lxpy.services.backups import arrivals
from lxpy.services.backups.fillings import fill, telling
from lxpy.services.backups.increments import Increments
from lxpy.services.instances.creation import Creation
from lxpy.services.instances.starting import volume_of, with_config
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Journal
from lxpy.services.locks import Locks
from lxpy.services.projects.profiles import Profiles
from lxpy.services.storage.pools import Pools

#: in the metadata of the operation
_STAGE = "create_instance_from_backup"


@dataclass(frozen=True, slots=True)
class Wish:
    """Another name and another pool than the backup says; "" is what it says."""

    name: str = ""
    pool: str = ""


class Imports:
    """Makes instances of backups; what fails or breaks off leaves nothing."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        locks: Locks,
        journal: Journal,
        profiles: Profiles,
        pools: Pools,
        creation: Creation,
        increments: Increments,
        registry: Registry,
    ) -> None:
        self._store = store
        self._locks = locks
        self._journal = journal
        self._profiles = profiles
        self._pools = pools
        self._creation = creation
        self._increments = increments
        self._registry = registry

    async def receive(self, project: str, chunks: Chunks, wish: Wish) -> Operation:
        """Import a backup as it comes; return the operation when it has ended.

        Raises Failed for what is no backup, BadRequest, NotFound for a pool; what is wrong with
        the rest the operation says.
        """
        async with reader.incoming(chunks) as archive:
            if archive.index.type != "container":
                raise BadRequest(
                    "The backup is of a custom volume: import it by `lxpy storage volume import`"
                )
            name = check_name(wish.name or archive.index.name)
            if wish.pool:
                await self._pools.pool(wish.pool)

            async def work(operation: Operation) -> None:
                async with self._locks.hold("instance", project, name):
                    if archive.index.since is not None:
                        tell = telling(operation, _STAGE)
                        await self._increments.apply(project, name, archive, tell)
                    else:
                        await self._import(project, name, wish.pool, archive, operation)

            operation = self._registry.spawn(
                "Restoring backup",
                work,
                project=project,
                resources={"instances": [f"/1.0/instances/{name}"]},
                cancellable=True,
            )
            await operation.attend()
        return operation

    async def _import(
        self, project: str, name: str, pool_name: str, archive: Incoming, operation: Operation
    ) -> None:
        """Make the instance, its lock held."""
        if self._store.has(project, name):
            raise Failed(
                "Create instance from backup: Cannot restore volume, already exists on target: "
                f'there is an instance "{name}", give another name or delete it'
            )
        found = arrivals.described(archive.index, project, name)
        renamed = name != archive.index.name
        base = arrivals.completed(found.instance, self._store.listed(), renamed=renamed)
        profiles = await self._profiles.profiles(project, list(found.profiles))
        own = base.changed(profiles)
        chosen = pool_name or await self._pool_name(archive.index.pool, own)
        base = arrivals.on_pool(base, profiles, chosen)
        instance = await self._creation.completed(base, "copy")
        instance = with_config(
            instance, arrivals.kept(base.config, dict(instance.config), renamed=renamed)
        )
        pool = await self._creation.pool_of(instance)
        self._pools.check_root(pool, instance.root_device[1])
        snapshots = [arrivals.snapshot_on_pool(each, pool.name) for each in found.snapshots]
        async with self._journal.undoable("create", project, name, pool=pool.name) as intent:
            tell = telling(operation, _STAGE)
            storage, volume = self._pools.storage, volume_of(instance)
            await fill(storage, pool, volume, archive, tell=tell, check=_check_roots)
            await self._creation.insert(instance, pool, intent, snapshots)
        self._creation.tell_created(instance, pool)

    async def _pool_name(self, wanted: str, instance: Instance) -> str:
        """Return the backup's pool if there is one of that name, else that of the profiles."""
        try:
            await self._pools.pool(wanted)
        except NotFound:
            devices = instance.expanded_devices
        else:
            return wanted
        (default,) = await self._profiles.profiles(instance.project, ["default"])
        for each in (devices, default.devices):
            try:
                name = root_device(each)[1].get("pool", "")
                await self._pools.pool(name)
            except (InvalidConfig, NotFound):
                continue
            return name
        raise Failed(
            f'Storage pool "{wanted}" of the backup does not exist here, and the default profile '
            "names none: say which one to use (--storage)"
        )


def _check_roots(targets: dict[str, Path]) -> None:
    for name, path in targets.items():
        if not (path / "rootfs").is_dir():
            raise Failed(f"Invalid backup: it has no {name}/rootfs")
