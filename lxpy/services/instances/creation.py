"""New instances: from an image, from nothing, as a copy of another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from lxpy.api.instances import InstancesPost
from lxpy.errors import BadRequest, Conflict, Failed, LxpyError, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances import architectures, cloudinit, devices, keys, names, sizes
from lxpy.instances.devices.plans import volatile_config
from lxpy.instances.expand import without_unset
from lxpy.instances.model import Config, Instance, Profile, RootVolume, Snapshot
from lxpy.operations.registry import Operation, Registry
from lxpy.services.images.images import Images
from lxpy.services.instances import host
from lxpy.services.instances.copies import Copies, Source
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import Starter, volume_of, with_config
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Journal
from lxpy.services.locks import Locks
from lxpy.services.memory.twins import Twins
from lxpy.services.networks.networks import Networks
from lxpy.services.networks.nics import nic_devices
from lxpy.services.projects.allowances import Allowances
from lxpy.services.projects.profiles import Profiles
from lxpy.services.snapshots.quiet import Pause, Saving
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool

_SOURCES = ("image", "none", "copy")


class Creation:
    """Makes instances; a failed or interrupted one leaves nothing behind."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        locks: Locks,
        journal: Journal,
        profiles: Profiles,
        allowances: Allowances,
        images: Images,
        pools: Pools,
        networks: Networks,
        starter: Starter,
        power: Power,
        copies: Copies,
        twins: Twins,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._store = store
        self._locks = locks
        self._journal = journal
        self._profiles = profiles
        self._allowances = allowances
        self._images = images
        self._pools = pools
        self._networks = networks
        self._starter = starter
        self._power = power
        self._copies = copies
        self._twins = twins
        self.on_failure = power.on_ephemeral_end
        self._registry = registry
        self._lifecycle = lifecycle

    async def create(self, project: str, wish: InstancesPost) -> Operation:
        """Start the creation of an instance.

        Raises BadRequest for an invalid name, type or source, NotFound for an unknown profile,
        image alias or source instance; what is wrong with config and devices the operation says.
        """
        taken = {each.name for each in self._store.listed(project)}
        name = names.check_name(wish.name) if wish.name else names.generate_name(taken)
        _check_type(wish)
        base = await self._base(project, name, wish)
        self._allowances.check_volatile(project, name, {}, wish.config or {})
        await self._allowances.check_instance(base, "creation")
        if wish.source.type == "image":
            await self._images.resolve(project, wish.source)

        async def work(operation: Operation) -> None:
            async with AsyncExitStack() as held:
                for each in _involved(project, name, wish):
                    await held.enter_async_context(self._locks.hold("instance", *each))
                await self._create(base, wish, operation, held)
            if wish.start and not self._power.is_running(self._store.get(project, name)):
                await self._power.start(project, name)

        return self._registry.spawn(
            "Creating instance",
            work,
            project=project,
            resources={"instances": [f"/1.0/instances/{name}"]},
            cancellable=True,
        )

    async def _base(self, project: str, name: str, wish: InstancesPost) -> Instance:
        """Return the instance as the request, and the source of a copy, have it."""
        config = {**sizes.limits_of(wish.instance_type), **(wish.config or {})}
        given = without_unset(wish.devices)
        wanted = wish.profiles
        ephemeral, description, volume = wish.ephemeral, wish.description, RootVolume()
        if wish.source.type == "copy":
            source = self._copies.source(project, wish.source).made_of
            config = keys.copied(source.config) | _differing(config, source.config)
            given = {**source.devices, **given}  # type: ignore[dict-item]
            wanted = list(source.profiles) if wanted is None else wanted
            description, volume = description or source.description, source.volume
        return Instance(
            id=0,
            project=project,
            name=name,
            architecture=host.architecture(),
            config={key: value for key, value in config.items() if value != ""},
            devices=given,
            expanded_config={},
            expanded_devices={},
            profiles=(),
            created_at=datetime.now(UTC),
            ephemeral=ephemeral,
            description=description,
            volume=volume,
        ).changed(await self._profiles.profiles(project, ["default"] if wanted is None else wanted))

    async def _create(
        self, base: Instance, wish: InstancesPost, operation: Operation, held: AsyncExitStack
    ) -> None:
        """Make the instance, its lock `held`; or bring a copy up to date."""
        if self._store.has(base.project, base.name):
            if wish.source.type == "copy" and wish.source.refresh:
                target = self._store.get(base.project, base.name)
                source = self._copies.source(base.project, wish.source)
                await self._copies.refresh(source, target, operation)
                return
            raise Conflict(
                "Failed creating instance record: Add instance info to the database: "
                f'This "instances" entry already exists: "{base.name}"'
            )
        fingerprint = ""
        if wish.source.type == "image":
            image = await self._images.obtain(base.project, wish.source, operation, held)
            fingerprint = image.fingerprint
            base = await self._of_image(
                base, wish, image.architecture, image.properties, image.profiles
            )
            base = with_config(base, {**base.config, "volatile.base_image": fingerprint})
        template = "copy" if wish.source.type == "copy" else "create"
        instance = await self.completed(base, template, starts=bool(wish.source.lxpy_twin))
        pool = await self.pool_of(instance)
        self._pools.check_root(pool, instance.root_device[1])
        if wish.source.type == "image":
            await self._images.ensure_on_pool(pool, fingerprint, operation.progress)
        elif wish.source.type == "copy":
            source = self._copies.source(base.project, wish.source)
            # Not "live": lxc says that of each running instance, and wants a stopped copy.
            twin = wish.source.lxpy_twin and source.snapshot is None
            await self._copy(instance, pool, source, operation, twin=twin)
            self.tell_created(instance, pool)
            return
        async with self._journal.undoable(
            "create", instance.project, instance.name, pool=pool.name
        ) as intent:
            image_name = fingerprint or None
            await self._pools.storage.create_volume(pool, volume_of(instance), image_name)
            await self.insert(instance, pool, intent)
        self.tell_created(instance, pool)

    async def pool_of(self, instance: Instance) -> Pool:
        """Return the pool that a new instance's root disk names. Raises Failed, Unavailable."""
        name = instance.root_device[1]["pool"]
        try:
            return await self._pools.pool(name)
        except NotFound as error:
            raise Failed(
                f'Failed creating instance record: Failed loading storage pool "{name}": {error}'
            ) from error

    async def _copy(
        self,
        instance: Instance,
        pool: Pool,
        source: Source,
        operation: Operation,
        *,
        twin: bool = False,
    ) -> None:
        """Make the instance's volume from that of another, which is frozen meanwhile if it runs.

        A `twin` has the memory of the other, and runs at once.
        """
        pause: Pause | Saving | None = self._copies.pause(source)
        if twin:
            pause = self._twins.saving(source.instance, instance)
        async with self._journal.undoable(
            "create", instance.project, instance.name,
            pool=pool.name, paused=pause.freezes if pause else "",
        ) as intent:  # fmt: skip
            try:
                snapshots = await self._copies.copy(source, instance, pool, pause, operation)
                await self.insert(instance, pool, intent, snapshots)
            except BaseException:
                await self._twins.forget(instance)
                raise
        if twin:
            await self._begin_twin(source.instance, instance)

    async def _begin_twin(self, source: Instance, target: Instance) -> None:
        try:
            await self._twins.begin(source, target.project, target.name)
        except BaseException:
            await self.on_failure(self._store.get(target.project, target.name))
            raise

    async def insert(
        self, instance: Instance, pool: Pool, intent: str, snapshots: Iterable[Snapshot] = ()
    ) -> None:
        """Store the instance, whose volume is there; remove the volume when that fails."""
        try:
            async with self._locks.hold("idmap"):
                claimed = await self._starter.claim_ids(instance)
                await self._store.add(claimed, ends=intent, snapshots=snapshots)
        except BaseException:
            await self._pools.storage.delete_volume(pool, volume_of(instance))
            raise
        await self._networks.announce(claimed)

    def tell_created(self, instance: Instance, pool: Pool) -> None:
        """Send the event."""
        self._lifecycle.emit(
            "instance-created",
            f"/1.0/instances/{instance.name}",
            instance.project,
            {"type": "container", "location": "none", "storage-pool": pool.name},
        )

    async def _of_image(
        self,
        base: Instance,
        wish: InstancesPost,
        architecture: str,
        properties: Mapping[str, str],
        profiles: list[str],
    ) -> Instance:
        """Return the instance with what its image brings: architecture, properties, profiles."""
        used: list[Profile]
        if wish.profiles is None:
            used = await self._profiles.profiles(base.project, profiles)
        else:
            used = await self._profiles.profiles(base.project, list(base.profiles))
        own = {f"image.{key}": value for key, value in properties.items() if _is_key(key)}
        changed = base.changed(used, config={**own, **base.config})
        return _architecture(changed, architecture)

    async def completed(self, base: Instance, template: str, *, starts: bool = False) -> Instance:
        """Return the instance checked, with its volatile keys. Raises Failed in LXD's words.

        A copy may have an address that is taken, unless it `starts` at once.
        """
        try:
            keys.validate(base.config)
            keys.validate_expanded(base.expanded_config)
            devices.validate(base.devices)
            devices.validate(base.expanded_devices, expanded=True, instance=base.name)
        except LxpyError as error:
            raise Failed(f"Failed creating instance record: {error}") from error
        await self._allowances.check_instance(base, "creation")
        await self._starter.check(base.project, base.expanded_devices)
        config = volatile_config(base.config, base.expanded_devices, self._networks.make_hwaddr)
        config |= {
            "volatile.apply_template": template,
            cloudinit.INSTANCE_ID: cloudinit.new_id(),
            "volatile.last_state.power": "STOPPED",
            "volatile.uuid": str(uuid4()),
        }
        instance = with_config(base, config)
        await self._networks.validate_nics(
            instance, devices.plan(instance.config, nic_devices(instance)).nics,
            may_be_taken=template == "copy" and not starts,
        )  # fmt: skip
        return instance


def _architecture(instance: Instance, architecture: str) -> Instance:
    """Return the instance with its image's architecture. Raises Failed when it cannot run here."""
    name = architectures.lxd_name(architecture)
    if name not in architectures.runnable(host.architecture()):
        raise Failed(
            f"Requested architecture isn't supported by this host: the image is for {name}, "
            f"the host is {host.architecture()}"
        )
    return replace(instance, architecture=name)


def _involved(project: str, name: str, wish: InstancesPost) -> list[tuple[str, str]]:
    """Return project and name of the instances that must not change meanwhile, in one order."""
    found = {(project, name)}
    if wish.source.type == "copy":
        found.add((wish.source.project or project, wish.source.source.partition("/")[0]))
    return sorted(found)


def _differing(given: Config, source: Config) -> dict[str, str]:
    """Return what a request says of a copy, without the identity of the source.

    With --refresh, lxc sends all of the source's volatile keys.
    """
    return {
        key: value
        for key, value in given.items()
        if not keys.is_volatile(key) or source.get(key) != value
    }


def _is_key(key: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._-]+", key) is not None


def _check_type(wish: InstancesPost) -> None:
    if wish.type not in ("", "container"):
        raise BadRequest(f'Instance type "{wish.type}" is not supported: lxpy runs containers only')
    if wish.source.type not in _SOURCES:
        known = ", ".join(_SOURCES)
        raise BadRequest(f'Unknown source type "{wish.source.type}": use one of {known}')
