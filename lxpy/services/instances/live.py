"""Changing an instance while it runs: limits, disks, device nodes, nics; undone when one fails."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

from lxpy.errors import BadRequest, Failed, LxpyError
from lxpy.instances import devices
from lxpy.instances.devices import disk, plans
from lxpy.instances.devices.nic_kinds import LIVE
from lxpy.instances.expand import acting, changed_keys, device_changes
from lxpy.instances.limits import KEYS as LIMITS
from lxpy.instances.model import Instance
from lxpy.runtime.container import Runtime, StartFailed
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import Starter, load_modules
from lxpy.services.networks.networks import Networks

Options = Mapping[str, str]


class Live:
    """Applies what is different between two versions of a running instance."""

    def __init__(
        self, runtime: Runtime, power: Power, starter: Starter, networks: Networks
    ) -> None:
        self._runtime = runtime
        self._power = power
        self._starter = starter
        self._networks = networks

    async def apply(self, old: Instance, new: Instance) -> dict[str, str]:
        """Make the running `old` into `new`; return the volatile keys of what was added.

        Raises LxpyError with everything as it was.
        """
        volatile: dict[str, str] = {}
        changed_config = changed_keys(old.expanded_config, new.expanded_config)
        if "linux.kernel_modules" in changed_config:
            await load_modules(new)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._starter.settle, old)
            added, removed, changed = _changes(old, new)
            changed = [name for name in changed if not _is_resized_root(old, new, name)]
            in_place = [name for name in changed if self._is_live(old, new, name)]
            for name in in_place:
                await self._replug(new, name)
                undo.push_async_callback(self._replug, old, name)
            replaced = [name for name in changed if name not in in_place]
            for name in [*removed, *replaced]:
                await self._remove(old, name)
                undo.push_async_callback(self._add, old, name)
            for name in [*added, *replaced]:
                volatile |= await self._add(new, name)
                undo.push_async_callback(self._remove, new, name)
            if LIMITS.intersection(changed_config) or _limits(old) != _limits(new):
                undo.push_async_callback(self._power.apply_limits, old)
                await self._power.apply_limits(new)
            await self._proxies(old, new, undo)
            if _shows_api(old) != _shows_api(new):
                undo.push_async_callback(self._show_api, old)
                await self._show_api(new)
            undo.pop_all()
        await self._starter.settle(new)
        return volatile

    async def _replug(self, instance: Instance, name: str) -> None:
        one = {name: instance.expanded_devices[name]}
        if one[name].get("type") != "nic":
            return  # limits of disks come with those of the instance
        for nic in devices.plan(instance.config, one).nics:
            await self._networks.replug(instance, nic)

    async def _proxies(self, old: Instance, new: Instance, undo: AsyncExitStack) -> None:
        """Have the proxies of `new`; those that are as before are not disturbed."""
        before, after = plans.forwarded(old.expanded_devices), plans.forwarded(new.expanded_devices)
        if plans.translated(old.expanded_devices) != plans.translated(new.expanded_devices):
            undo.push_async_callback(self._starter.translate, old)
            await self._starter.translate(new)
        if before != after:
            try:
                await self._runtime.devices.set_proxies(new.unique_name, after)
            except StartFailed as error:
                text = f"Error occurred when starting proxy device: {error}"
                raise Failed(text) from error
            undo.push_async_callback(self._runtime.devices.set_proxies, old.unique_name, before)

    async def _show_api(self, instance: Instance) -> None:
        """Show /dev/lxd, or show it no longer."""
        parts = self._runtime.devices
        change = parts.add_disk if _shows_api(instance) else parts.remove_disk
        await change(instance.unique_name, self._starter.guest_api)

    async def _add(self, instance: Instance, name: str) -> dict[str, str]:
        volatile: dict[str, str] = {}
        one = {name: instance.expanded_devices[name]}
        _check_root(name, one[name])
        parents = await self._starter.confine(instance.project, one)
        found = await self._starter.look_up(instance, one)
        plan = devices.plan(instance.config, one, *found, parents)
        unique = instance.unique_name
        try:
            for disk in plan.disks:
                await self._runtime.devices.add_disk(unique, disk)
            taken = {node.path for node in self._runtime.devices.nodes(unique)}
            for node in plan.nodes:
                if node.path not in taken:  # else it is another device's, which stays
                    await self._runtime.devices.add_node(unique, node)
            if plan.nics:
                noted = await self._networks.attach(instance, plan.nics, self._pid(instance))
                volatile |= {f"volatile.{key}": value for key, value in noted.items()}
        except LxpyError as error:
            text = f'Failed to start device "{name}": '
            raise Failed(text + str(error).removeprefix(text)) from error
        return volatile

    async def _remove(self, instance: Instance, name: str) -> None:
        one = {name: instance.expanded_devices[name]}
        _check_root(name, one[name])
        volumes, _ = await self._starter.look_up(instance, one)
        is_node = one[name].get("type") not in ("disk", "nic")
        plan = devices.plan(instance.config, {} if is_node else one, volumes)
        unique = instance.unique_name
        try:
            for disk in plan.disks:
                await self._runtime.devices.remove_disk(unique, disk)
            for node in self._runtime.devices.nodes(unique):
                if node.device == name:
                    await self._runtime.devices.remove_node(unique, node)
            for nic in plan.nics:
                await self._networks.unplug(instance, nic)
        except LxpyError as error:
            raise Failed(f'Failed to stop device "{name}": {error}') from error

    def kept(self, old: Instance, new: Instance) -> frozenset[str]:
        """Return the changed devices that stay where they are in the running instance."""
        _, _, changed = _changes(old, new)
        return frozenset(
            name
            for name in changed
            if self._is_live(old, new, name) or _is_resized_root(old, new, name)
        )

    def _is_live(self, old: Instance, new: Instance, name: str) -> bool:
        """Whether a changed device is a nic that keeps its link."""
        before, after = (acting(each.expanded_devices)[name] for each in (old, new))
        if disk.is_root(after) or after.get("type") == before.get("type") == "disk":
            return disk.LIVE.issuperset(changed_keys(before, after))
        if after.get("type") != "nic" or before.get("type") != "nic":
            return False
        live = LIVE.get(self._networks.nictype(after), frozenset())
        return live.issuperset(changed_keys(before, after))

    def _pid(self, instance: Instance) -> int:
        held = self._runtime.held(instance.unique_name)
        if held is None:
            raise BadRequest("Instance is not running")
        return held.pid


def _shows_api(instance: Instance) -> bool:
    return instance.flag("security.devlxd", default=True)


def _limits(instance: Instance) -> dict[str, list[str]]:
    """Return the limits of its disks."""
    return {
        name: [given.get(key, "") for key in ("limits.read", "limits.write", "limits.max")]
        for name, given in instance.expanded_devices.items()
        if disk.is_limited(given)
    }


def _is_resized_root(old: Instance, new: Instance, name: str) -> bool:
    """Whether a changed device is the root disk, of which what changed is seen to elsewhere."""
    before, after = old.expanded_devices[name], new.expanded_devices[name]
    return after.get("path") == "/" and {"size", *disk.LIVE}.issuperset(changed_keys(before, after))


def _check_root(name: str, device: Options) -> None:
    if device.get("type") == "disk" and device.get("path") == "/":
        raise BadRequest(
            f'Device "{name}" is the root disk of a running instance: stop it before changing that'
        )


def _changes(old: Instance, new: Instance) -> tuple[list[str], list[str], list[str]]:
    """Return the names of devices added, removed and changed, as far as they act on anything."""
    return device_changes(acting(old.expanded_devices), acting(new.expanded_devices))
