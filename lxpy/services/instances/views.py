"""Instances and what they do now, as clients see them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from lxpy.api import instances as api
from lxpy.api.backups import Backup
from lxpy.api.envelope import Status
from lxpy.api.snapshots import NEVER, UNKNOWN, Making, Snapshot, Stateful
from lxpy.errors import LxpyError
from lxpy.instances import model
from lxpy.instances.keys import READY
from lxpy.instances.model import Instance
from lxpy.runtime.container import Runtime, StartFailed
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import volume_of
from lxpy.services.networks.networks import Networks
from lxpy.services.snapshots.store import SnapshotStore
from lxpy.services.storage.pools import Pools
from lxpy.units import is_true

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Views:
    """Renders instances; knows which run and which are frozen."""

    def __init__(
        self,
        store: SnapshotStore,
        runtime: Runtime,
        power: Power,
        networks: Networks,
        pools: Pools,
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._power = power
        self._networks = networks
        self._pools = pools
        #: returns the backups that are kept of an instance
        self.backups: Callable[[Instance], Awaitable[Sequence[Backup]]] = _no_backups

    def status(self, instance: Instance) -> Status:
        """Return Running, Ready (it has said so at /dev/lxd), Frozen or Stopped."""
        if not self._power.is_running(instance):
            return Status.STOPPED
        if instance.unique_name in self._power.frozen:
            return Status.FROZEN
        return Status.READY if is_true(instance.config.get(READY)) else Status.RUNNING

    def show(self, instance: Instance) -> api.Instance:
        """Return an instance as `GET /1.0/instances/NAME` shows it."""
        return api.Instance(**self._fields(instance))

    async def full(self, instance: Instance) -> api.InstanceFull:
        """Return an instance with its state, snapshots and backups."""
        state = await self.state(instance)
        fields = self._fields(instance)
        snapshots = self.snapshots(instance) or None
        backups = list(await self.backups(instance)) or None
        return api.InstanceFull(**fields, state=state, snapshots=snapshots, backups=backups)

    async def fulls(self, instances: Sequence[Instance]) -> list[api.InstanceFull]:
        """Return many instances with their states."""
        return [await self.full(each) for each in instances]

    def snapshots(self, instance: Instance) -> list[Snapshot]:
        """Return the snapshots of an instance, oldest first; what they take is not counted."""
        return [self.snapshot(instance, each) for each in self._store.of(instance.id)]

    def snapshot(self, instance: Instance, found: model.Snapshot) -> Snapshot:
        """Return a snapshot as `GET /1.0/instances/NAME/snapshots/SNAPSHOT` shows it."""
        memory = None
        if found.stateful:
            size = UNKNOWN if found.memory_bytes is None else found.memory_bytes
            memory = Stateful(size=size, frozen_ms=found.frozen_ms)
        return Snapshot(
            name=found.name,
            created_at=found.created_at,
            expires_at=found.expires_at or NEVER,
            last_used_at=found.last_used_at or _NEVER,
            architecture=instance.architecture,
            config=found.config,
            devices=found.devices,
            ephemeral=found.ephemeral,
            expanded_config=found.expanded_config,
            expanded_devices=found.expanded_devices,
            profiles=list(found.profiles),
            stateful=found.stateful,
            description=found.description,
            lxpy=Making(scheduled=found.scheduled, frozen_ms=found.frozen_ms),
            lxpy_stateful=memory,
        )

    async def state(self, instance: Instance) -> api.InstanceState:
        """Return what an instance does and uses now; zeros when it does not run."""
        status = self.status(instance)
        held = self._runtime.held(instance.unique_name)
        disk = await self._disk(instance)
        stopped = api.InstanceState(
            status=Status.STOPPED.text, status_code=Status.STOPPED, disk=disk
        )
        if held is None:
            return stopped
        try:
            usage = self._runtime.usage(instance.unique_name)
            network = await self._networks.guest_state(held.pid)
        except (StartFailed, OSError):
            return stopped  # it has ended meanwhile
        return api.InstanceState(
            status=status.text,
            status_code=status,
            disk=disk,
            memory=api.Memory(
                usage=max(0, usage.memory_bytes),
                usage_peak=max(0, usage.memory_peak_bytes),
                swap_usage=max(0, usage.swap_bytes),
                swap_usage_peak=max(0, usage.swap_peak_bytes),
            ),
            network=network,
            pid=held.pid,
            processes=usage.processes,
            cpu=api.Cpu(usage=max(0, usage.cpu_ns)),
        )

    async def _disk(self, instance: Instance) -> dict[str, dict[str, int]]:
        """Return what the root disk takes, where its pool can tell quickly."""
        name, device = instance.root_device
        try:
            pool = await self._pools.pool(device["pool"])
            usage = await self._pools.storage.usage(pool, volume_of(instance))
        except LxpyError:
            return {}  # a pool that is away does not keep us from showing what we know
        if usage is None:
            return {}
        return {name: {"usage": usage.used} | ({"total": usage.total} if usage.total else {})}

    def writable(self, instance: Instance) -> list[object]:
        """Return what the ETag of an instance stands for."""
        return [
            instance.architecture,
            instance.config,
            instance.devices,
            instance.ephemeral,
            list(instance.profiles),
        ]

    def _fields(self, instance: Instance) -> dict[str, Any]:  # arguments by name
        status = self.status(instance)
        return {
            "architecture": instance.architecture,
            "config": instance.config,
            "devices": instance.devices,
            "ephemeral": instance.ephemeral,
            "profiles": list(instance.profiles),
            "stateful": instance.stateful,
            "description": instance.description,
            "created_at": instance.created_at,
            "expanded_config": instance.expanded_config,
            "expanded_devices": instance.expanded_devices,
            "name": instance.name,
            "status": status.text,
            "status_code": status,
            "last_used_at": instance.last_used_at or _NEVER,
            "project": instance.project,
        }


async def _no_backups(_: Instance) -> Sequence[Backup]:
    return ()
