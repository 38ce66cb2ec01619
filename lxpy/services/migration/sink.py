"""Instances come from another server, by LXD's protocol: new ones, or copies brought up to date.

A new one has its row when all of it is there; what breaks off before leaves nothing.
Source: LXD docs, "REST API", "Migration".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from lxpy.api.instances import InstancesPost
from lxpy.backups.index import by_name
from lxpy.errors import BadRequest, Conflict, Failed, NotSupported
from lxpy.instances import names
from lxpy.instances.model import Instance, Snapshot, snapshot_of
from lxpy.migration.messages import NEVER, Header, SnapshotHeader
from lxpy.operations.channel import Channel
from lxpy.operations.registry import Operation, Registry
from lxpy.services.backups import arrivals
from lxpy.services.backups.described import portable
from lxpy.services.instances import host
from lxpy.services.instances.copies import adapted
from lxpy.services.instances.creation import Creation
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import volume_of, with_config
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Journal
from lxpy.services.locks import Locks
from lxpy.services.memory.memory import Memory
from lxpy.services.migration import meetings
from lxpy.services.migration.meetings import Peer
from lxpy.services.migration.receiving import Receiving
from lxpy.services.migration.staging import Staging
from lxpy.services.projects.profiles import Profiles
from lxpy.services.snapshots.files import SnapshotFiles
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume

_MODES = ("pull", "push")
_TEMPLATE = "volatile.apply_template"
#: what an instance keeps that is moved; another one must not have the same
_IDENTITY = ("volatile.uuid", "volatile.cloud-init.instance-id")


@dataclass(frozen=True, slots=True)
class Parts:
    """What instances are made with."""

    store: InstanceStore
    locks: Locks
    journal: Journal
    profiles: Profiles
    pools: Pools
    power: Power
    creation: Creation
    files: SnapshotFiles
    staging: Staging
    registry: Registry
    memory: Memory
    #: removes an instance that does not run, its lock held
    remove: Callable[[Instance], Awaitable[None]]


class MigrationSink:
    """Receives instances."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def receive(self, project: str, wish: InstancesPost) -> Operation:
        """Start the migration to here: from a server that waits (pull), or comes (push).

        Raises BadRequest, NotFound for a profile, Conflict when the instance exists.
        """
        name = names.check_name(wish.name)
        mode = wish.source.mode or "pull"
        if mode not in _MODES:
            raise BadRequest(f'Mode "{mode}" not implemented: use pull or push')
        if wish.type not in ("", "container"):
            raise BadRequest(
                f'Instance type "{wish.type}" is not supported: lxpy runs containers only'
            )
        refreshes = wish.source.refresh and self._parts.store.has(project, name)
        self._check_free(project, name, refreshes=refreshes)
        base = await self._base(project, name, wish)

        async def work(operation: Operation, control: Channel, fs: Channel) -> None:
            async with self._parts.locks.hold("instance", project, name):
                self._check_free(project, name, refreshes=refreshes)
                if refreshes:
                    target = self._parts.store.get(project, name)
                    alone = wish.source.instance_only or wish.source.container_only
                    await self._refresh(operation, control, fs, target, alone=alone)
                else:
                    await self._create(operation, control, fs, base)

        source = wish.source
        peer = Peer(source.operation, source.secrets or {}, source.certificate)
        return meetings.meet(
            self._parts.registry, "Creating instance", work, peer if mode == "pull" else None,
            project=project, resources={"instances": [f"/1.0/instances/{name}"]},
        )  # fmt: skip

    def _check_free(self, project: str, name: str, *, refreshes: bool) -> None:
        if not refreshes:
            if self._parts.store.has(project, name):
                raise Conflict(
                    "Failed creating instance record: Add instance info to the database: "
                    f'This "instances" entry already exists: "{name}"'
                )
            return
        if self._parts.power.is_running(self._parts.store.get(project, name)):
            raise BadRequest("Cannot refresh a running instance: stop it first")

    async def _base(self, project: str, name: str, wish: InstancesPost) -> Instance:
        """Return the instance as the request has it; it keeps who it was, unless that is taken."""
        wanted = ["default"] if wish.profiles is None else wish.profiles
        profiles = await self._parts.profiles.profiles(project, wanted)
        config = {key: value for key, value in (wish.config or {}).items() if value != ""}
        base = Instance(
            id=0,
            project=project,
            name=name,
            architecture=arrivals.architecture(wish.architecture or host.architecture()),
            config=portable(config),
            devices=wish.devices or {},
            expanded_config={},
            expanded_devices={},
            profiles=(),
            created_at=datetime.now(UTC),
            ephemeral=wish.ephemeral,
            description=wish.description,
        )
        unique = arrivals.completed(base, self._parts.store.listed(), renamed=False)
        return unique.changed(profiles)

    # A new one

    async def _create(
        self, operation: Operation, control: Channel, fs: Channel, base: Instance
    ) -> None:
        offer = await meetings.header(control)
        parts = self._parts
        instance = await parts.creation.completed(base, "copy")
        instance = with_config(instance, _identified(instance.config, base.config))
        pool = await parts.creation.pool_of(instance)
        parts.pools.check_root(pool, instance.root_device[1])
        volume = volume_of(instance)
        receiving = Receiving(parts.pools.storage, parts.staging, pool, fs, operation, base.name)
        if offer.memory and "volatile.uuid" not in base.config:
            raise NotSupported(
                "Unable to perform container live migration: memory goes along with moves, not "
                "with copies: leave it behind (--stateless)"
            )
        answer = receiving.answer(offer, refresh=None)
        await control.send(answer.encode())

        async def transfer() -> None:
            index = await receiving.description(answer)
            made = replace(instance, volume=arrivals.written(index.get("Volume")))
            snapshots = [adapted(each, made, pool) for each in _snapshots(made, answer, index)]
            async with parts.journal.undoable(
                "create", instance.project, instance.name, pool=pool.name
            ) as intent:
                await receiving.new(volume, offer, answer)
                await parts.creation.insert(made, pool, intent, snapshots)
            if answer.memory:
                await self._go_on(instance, receiving, offer, answer)

        await meetings.receive_all(control, transfer())
        parts.creation.tell_created(parts.store.get(instance.project, instance.name), pool)

    async def _go_on(
        self, instance: Instance, receiving: Receiving, offer: Header, answer: Header
    ) -> None:
        """Have a new instance go on here that has stopped there: what has changed, and memory."""
        parts, key = self._parts, (instance.project, instance.name)
        try:
            await receiving.step(volume_of(instance), offer, answer)
            await parts.memory.arrive(parts.store.get(*key), receiving.memory())
            await parts.power.revive(*key, _no_more)
        except BaseException:
            await parts.remove(parts.store.get(*key))
            raise

    # One that is here already

    async def _refresh(
        self, operation: Operation, control: Channel, fs: Channel, target: Instance, *, alone: bool
    ) -> None:
        """Make a stopped copy what its source is now; its own config and devices stay.

        Its files change on a copy, which takes their place at the end; snapshots come one by one.
        """
        offer = await meetings.header(control)
        parts = self._parts
        have = {each.name: each for each in parts.store.snapshots.of(target.id)}
        needed = [each for each in offer.snapshots if not _is_here(each, have)]
        pool = await parts.pools.pool(target.root_device[1]["pool"])
        receiving = Receiving(parts.pools.storage, parts.staging, pool, fs, operation, target.name)
        answer = receiving.answer(offer, refresh=needed)
        await control.send(answer.encode())

        async def transfer() -> None:
            index = await receiving.description(answer)
            snapshots = {each.name: each for each in _snapshots(target, answer, index)}
            if not alone:
                await self._drop(target, have, {each.name for each in offer.snapshots}, needed)
            async with self._copy(target, pool) as copy:
                for each in answer.snapshots:
                    await receiving.step(copy, offer, answer)
                    row = adapted(snapshots[each.name], target, pool)
                    await self._keep(target, row, copy)
                await receiving.step(copy, offer, answer)
                await self._take(target, pool, copy)

        await meetings.receive_all(control, transfer())

    async def _drop(
        self,
        target: Instance,
        have: Mapping[str, Snapshot],
        offered: set[str],
        needed: Sequence[SnapshotHeader],
    ) -> None:
        """Remove the snapshots that the source has not, or others of the same name."""
        stale = {each.name for each in needed}
        for name, snapshot in have.items():
            if name not in offered or name in stale:
                await self._parts.files.remove(target, snapshot)

    def _copy(self, target: Instance, pool: Pool) -> _Copy:
        return _Copy(self._parts, target, pool)

    async def _keep(self, target: Instance, row: Snapshot, copy: Volume) -> None:
        storage = self._parts.pools.storage

        async def make(pool: Pool, volume: Volume) -> Snapshot:
            await storage.copy(pool, copy, pool, volume)
            return replace(row, instance_id=target.id)

        await self._parts.files.add(target, row.name, make, paused="")

    async def _take(self, target: Instance, pool: Pool, copy: Volume) -> None:
        """Restore the instance from its finished copy, by a snapshot that nobody sees."""
        parts, storage = self._parts, self._parts.pools.storage
        arrival = volume_of(target).at(f"lxpy-refresh-{token_hex(6)}")
        intent = await parts.journal.begin(
            "snapshot", target.project, target.name, pool=pool.name, snapshot=arrival.snapshot
        )
        try:
            await storage.copy(pool, copy, pool, arrival)
            await storage.restore(pool, volume_of(target), arrival.snapshot)
        finally:
            await storage.delete_volume(pool, arrival)
            await parts.journal.end(intent)


class _Copy:
    """A copy of an instance's volume for the length of a block.

    To a daemon that finds it at its start it is an instance that was not finished.
    """

    def __init__(self, parts: Parts, target: Instance, pool: Pool) -> None:
        self._parts = parts
        self._target = target
        self._pool = pool
        self._volume = replace(volume_of(target), name=f"refresh-{token_hex(6)}")
        self._intent = ""

    async def __aenter__(self) -> Volume:
        self._intent = await self._parts.journal.begin(
            "create", self._target.project, self._volume.name, pool=self._pool.name
        )
        storage, old = self._parts.pools.storage, volume_of(self._target)
        try:
            await storage.copy(self._pool, old, self._pool, self._volume)
        except BaseException:
            await self.__aexit__()
            raise
        return self._volume

    async def __aexit__(self, *_: object) -> None:
        await self._parts.pools.storage.delete_volume(self._pool, self._volume)
        await self._parts.journal.end(self._intent)


def _identified(made: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the config of a new instance that is who it was, if it is moved and not copied.

    Its templates are due as they were then.
    """
    kept = {key: given[key] for key in _IDENTITY if key in given}
    config = {**made, **kept}
    if "volatile.uuid" in kept:
        config.pop(_TEMPLATE, None)
        if template := given.get(_TEMPLATE):
            config[_TEMPLATE] = template
    return config


async def _no_more(_: int) -> None:
    """Leave an instance as it comes: it is who it was."""


def _is_here(offered: SnapshotHeader, have: Mapping[str, Snapshot]) -> bool:
    found = have.get(offered.name)
    return found is not None and int(found.created_at.timestamp()) == offered.created


def _snapshots(instance: Instance, answer: Header, index: Mapping[str, Any]) -> Sequence[Snapshot]:
    """Return the snapshots that come; a description has more to say of them than a header."""
    told, volumes = by_name(index.get("Snapshots")), by_name(index.get("VolumeSnapshots"))
    return [
        _snapshot(instance, each, told.get(each.name), volumes.get(each.name))
        for each in answer.snapshots
    ]


def _snapshot(
    instance: Instance,
    header: SnapshotHeader,
    told: Mapping[str, Any] | None,
    volume: Mapping[str, Any] | None,
) -> Snapshot:
    name = names.check_snapshot_name(header.name)
    if told is not None:
        found = arrivals.snapshot(name, told, volume)
    else:
        base = snapshot_of(instance, name, _moment(header.created) or datetime.now(UTC))
        found = replace(
            base,
            config=portable(header.config),
            devices={key: dict(device) for key, device in header.devices.items()},
            profiles=header.profiles,
            expires_at=_moment(header.expires),
            ephemeral=header.ephemeral,
        )
    if not any(_is_root(each) for each in found.expanded_devices.values()):
        key, root = instance.root_device
        if key in instance.devices:
            found = replace(found, devices={**found.devices, key: root})
        else:
            inherited = {**found.inherited_devices, key: root}
            found = replace(found, inherited_devices=inherited)
    return found


def _is_root(device: Mapping[str, str]) -> bool:
    return device.get("type") == "disk" and device.get("path") == "/"


def _moment(seconds: int) -> datetime | None:
    """Return a date of a header. Raises Failed for what is none."""
    if seconds in (0, NEVER):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise Failed(f"The other server's snapshots have an invalid date ({seconds})") from error


__all__ = ["MigrationSink", "Parts"]
