"""Changing instances: config, devices, profiles; checked, applied to what runs, then stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from msgspec import UNSET

from lxpy.api.instances import InstancePatch, InstancePut
from lxpy.errors import BadRequest, Failed, InvalidConfig, LxpyError
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances import cloudinit, devices, keys
from lxpy.instances.devices.plans import volatile_config
from lxpy.instances.expand import merge_patch, without_unset
from lxpy.instances.model import Instance
from lxpy.operations.registry import Operation, Registry
from lxpy.services.instances.live import Live
from lxpy.services.instances.power import Power
from lxpy.services.instances.restoring import Restoring
from lxpy.services.instances.starting import Starter, volume_of, with_config
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.networks.networks import Networks
from lxpy.services.networks.nics import nic_devices
from lxpy.services.projects.allowances import Allowances
from lxpy.services.projects.profiles import Profiles
from lxpy.services.storage.pools import Pools

#: what lxpy must not forget, even when a client's PUT leaves it out
_KEPT = ("volatile.idmap.", "volatile.last_state.", "volatile.uuid", "volatile.base_image",
         "volatile.cloud-init.")  # fmt: skip

Wish = Callable[[Instance], InstancePut]


class Updates:
    """Changes instances."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        locks: Locks,
        profiles: Profiles,
        allowances: Allowances,
        pools: Pools,
        networks: Networks,
        power: Power,
        starter: Starter,
        live: Live,
        restoring: Restoring,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        #: is told what a running instance was and is, and the changed devices that stay plugged
        self.on_change: Callable[[Instance, Instance, frozenset[str]], None] = _nothing
        self._store = store
        self._locks = locks
        self._profiles = profiles
        self._allowances = allowances
        self._pools = pools
        self._networks = networks
        self._power = power
        self._starter = starter
        self._live = live
        self._restoring = restoring
        self._registry = registry
        self._lifecycle = lifecycle

    def put(self, project: str, name: str, wish: InstancePut) -> Operation:
        """Start the replacement of an instance's writable part, or its restoration.

        Raises NotFound, BadRequest.
        """
        self._store.get(project, name)
        if wish.restore:
            return self._restoring.restore(project, name, wish.restore, stateful=wish.stateful)

        async def work(_: Operation) -> None:
            await self._update(project, name, lambda _: wish)

        return self._registry.spawn(
            "Updating instance",
            work,
            project=project,
            resources={"instances": [f"/1.0/instances/{name}"]},
        )

    async def patch(self, project: str, name: str, wish: InstancePatch) -> None:
        """Change what is given. Raises LxpyError."""
        self._store.get(project, name)
        await self._update(project, name, lambda old: _patched(old, wish))

    async def profile_changed(self, project: str, profile: str) -> None:
        """Apply a changed profile to its users. Raises Failed naming those that did not take it."""
        failures: list[str] = []
        for old, new in await self._store.reload(project, profile):
            async with self._locks.hold("instance", old.project, old.name):
                try:
                    await self._apply(old, new)
                except LxpyError as error:
                    failures.append(f"\n - Project: {old.project}, Instance: {old.name}: {error}")
        if failures:
            text = "The following instances failed to update (profile change still saved):"
            raise Failed(text + "".join(failures))

    async def _update(self, project: str, name: str, wish: Wish) -> None:
        async with self._locks.hold("instance", project, name):
            old = self._store.get(project, name)
            new = await self._changed(old, wish(old))
            await self._apply(old, new)
        self._lifecycle.emit("instance-updated", f"/1.0/instances/{name}", project)

    async def _apply(self, old: Instance, new: Instance) -> None:
        """Store a changed instance; if it runs, change it there, too. Its lock is held."""
        used = await self._profiles.profiles(new.project, list(new.profiles))
        config = self._settled(new, gone=old)
        if cloudinit.begins_anew(old, new):
            config[cloudinit.INSTANCE_ID] = cloudinit.new_id()
        new = new.changed(used, config=config)
        async with self._resized(old, new):
            if not self._power.is_running(old):
                await self._store.save(new)
                await self._announce(old, new)
                return
            volatile = await self._live.apply(old, new)
            new = with_config(new, {**new.config, **volatile})
            try:
                await self._store.save(new)
            except BaseException:
                await self._live.apply(new, old)
                raise
            await self._announce(old, new)
        self.on_change(old, new, self._live.kept(old, new))

    async def _announce(self, old: Instance, new: Instance) -> None:
        if nic_devices(old) != nic_devices(new):
            await self._networks.announce(new, old)

    @asynccontextmanager
    async def _resized(self, old: Instance, new: Instance) -> AsyncIterator[None]:
        """Give the root disk another size, for good if the block succeeds."""
        before, after = volume_of(old), volume_of(new)
        if before.size_bytes == after.size_bytes:
            yield
            return
        storage = self._pools.storage
        pool = await self._pools.pool(new.root_device[1]["pool"])
        await storage.resize(pool, after, after.size_bytes)
        try:
            yield
        except BaseException:
            await storage.resize(pool, before, before.size_bytes)
            raise

    def _settled(self, new: Instance, *, gone: Instance | None = None) -> dict[str, str]:
        """Return its own config with the volatile keys of its devices."""
        return volatile_config(
            new.config,
            new.expanded_devices,
            self._networks.make_hwaddr,
            gone=None if gone is None else gone.expanded_devices,
        )

    async def _changed(self, old: Instance, wish: InstancePut) -> Instance:
        """Return what the instance becomes. Raises LxpyError when that cannot be."""
        config = {key: value for key, value in (wish.config or {}).items() if value != ""}
        kept = {k: v for k, v in old.config.items() if k.startswith(_KEPT) and k not in config}
        used = await self._profiles.profiles(old.project, wish.profiles or [])
        new = replace(old, ephemeral=wish.ephemeral, description=wish.description)
        new = new.changed(used, config={**kept, **config}, devices=without_unset(wish.devices))
        try:
            keys.validate(new.config)
            keys.validate_expanded(new.expanded_config)
        except LxpyError as error:
            raise InvalidConfig(f"Invalid config: {error}") from error
        try:
            devices.validate(new.devices)
            devices.validate(new.expanded_devices, expanded=True, instance=new.name)
        except LxpyError as error:
            raise InvalidConfig(f"Invalid devices: {error}") from error
        _check_root(old, new)
        device = new.root_device[1]
        if device.get("size"):
            self._pools.check_root(await self._pools.pool(device["pool"]), device)
        before, after = old.expanded_devices, new.expanded_devices
        changed = {name: each for name, each in after.items() if each != before.get(name)}
        self._allowances.check_volatile(old.project, old.name, old.config, new.config)
        await self._allowances.check_instance(new, "update")
        await self._starter.check(old.project, changed)
        nics = nic_devices(new)
        if nics != nic_devices(old):
            plan = devices.plan(self._settled(new), nics)
            await self._networks.validate_nics(new, plan.nics)
        return new


def _nothing(_: Instance, __: Instance, ___: frozenset[str]) -> None:
    """Tell nobody."""


def _check_root(old: Instance, new: Instance) -> None:
    before, after = old.root_device[1]["pool"], new.root_device[1]["pool"]
    if before != after:
        raise BadRequest(
            f'Cannot update root disk device pool name from "{before}" to "{after}": '
            "copy the instance to the other pool"
        )


def _patched(old: Instance, wish: InstancePatch) -> InstancePut:
    """Return the whole writable part after a PATCH."""
    config = old.config if wish.config is UNSET else merge_patch(old.config, wish.config)
    own = {name: dict(device) for name, device in old.devices.items()}
    if wish.devices is not UNSET:
        own |= wish.devices or {}
    profiles = None if wish.profiles is UNSET else wish.profiles
    return InstancePut(
        architecture=old.architecture,
        config=dict(config),
        devices=own,
        ephemeral=old.ephemeral if wish.ephemeral is UNSET else wish.ephemeral,
        profiles=list(old.profiles) if profiles is None else profiles,
        description=old.description if wish.description is UNSET else wish.description,
    )
