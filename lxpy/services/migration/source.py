"""Instances are sent to another server, by LXD's protocol: what they are, snapshots, files.

They stay as they are; whoever moves one deletes it when the other server has it.
Source: LXD docs, "REST API", "Migration".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from typing import Any

from lxpy.api import instances as api
from lxpy.api.snapshots import SnapshotPost
from lxpy.backups.programs import wide_pipe
from lxpy.errors import BadRequest, Failed, NotFound, NotSupported
from lxpy.images.progress import Meter
from lxpy.instances import architectures
from lxpy.instances.model import Snapshot
from lxpy.migration import frames, rsync
from lxpy.migration.frames import Lost
from lxpy.migration.messages import (
    BTRFS_FEATURES,
    INDEX_VERSION,
    NEVER,
    Form,
    Header,
    SnapshotHeader,
    agreed,
    offered,
)
from lxpy.operations.channel import Channel
from lxpy.operations.registry import Operation, Registry
from lxpy.services.backups.described import portable
from lxpy.services.backups.exports import Exports, Still
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.memory.memory import Memory
from lxpy.services.migration import meetings
from lxpy.services.migration.meetings import Peer
from lxpy.services.migration.staging import Staging
from lxpy.storage import Pool, StoragePools, Volume
from lxpy.units import parse_size

#: how the description of a backup is called on the wire, where Go's own names of fields are used
_NAMES = {
    "container": "Container", "snapshots": "Snapshots", "pool": "Pool", "profiles": "Profiles",
    "volume": "Volume", "volume_snapshots": "VolumeSnapshots",
}  # fmt: skip
#: keys that only lxpy knows; LXD refuses a snapshot that has them
_OURS = ("snapshots.keep", "snapshots.schedule.stateful")
_BLOCK = 1 << 17


class MigrationSource:
    """Sends instances."""

    def __init__(
        self,
        store: InstanceStore,
        exports: Exports,
        power: Power,
        memory: Memory,
        staging: Staging,
        storage: StoragePools,
        registry: Registry,
    ) -> None:
        self._store = store
        self._exports = exports
        self._power = power
        self._memory = memory
        self._staging = staging
        self._storage = storage
        self._registry = registry

    def send(self, project: str, name: str, wish: api.InstancePost) -> Operation:
        """Start the migration of an instance: to a server that comes, or one that waits.

        One that runs and is to be moved with its memory is stopped with its state at the end, and
        goes on at the other server; or here, if that says that it cannot. Raises NotFound,
        BadRequest.
        """
        instance = self._store.get(project, name)
        alone = wish.instance_only or wish.container_only
        live = wish.live and self._power.is_running(instance)
        if live and instance.ephemeral:
            raise BadRequest(
                f'"{name}" is ephemeral, it would be gone when it stops: unset that first, or '
                "leave the memory behind (--stateless)"
            )

        async def work(operation: Operation, control: Channel, fs: Channel) -> None:
            async with self._exports.still(project, name, instance_only=alone) as (still, about):
                sending = Sending(self._storage, self._staging, still.pool, fs, operation)
                parting = Parting(self._power, self._memory, still, fs) if live else None
                try:
                    await sending.instance(
                        control, still, about, may_vanish=wish.allow_inconsistent, parting=parting
                    )
                except BaseException as error:
                    if parting is not None:
                        await parting.undo(error)
                    raise

        return meetings.meet(
            self._registry, "Migrating instance", work, peer_of(wish.target),
            project=project, resources={"instances": [f"/1.0/instances/{name}"]},
        )  # fmt: skip

    def send_snapshot(
        self, project: str, name: str, snapshot: str, wish: SnapshotPost
    ) -> Operation:
        """Start the migration of a snapshot, which is an instance at the other server.

        Raises NotFound, BadRequest.
        """
        instance = self._store.get(project, name)
        if self._store.snapshots.find(instance.id, snapshot) is None:
            raise NotFound("InstanceSnapshot not found")

        async def work(operation: Operation, control: Channel, fs: Channel) -> None:
            async with self._exports.still_snapshot(project, name, snapshot) as (still, about):
                sending = Sending(self._storage, self._staging, still.pool, fs, operation)
                await sending.instance(control, still, about, may_vanish=False)

        path = f"/1.0/instances/{name}"
        return meetings.meet(
            self._registry, "Transferring snapshot", work, peer_of(wish.target), project=project,
            resources={
                "instances": [path], "instances_snapshots": [f"{path}/snapshots/{snapshot}"],
            },
        )  # fmt: skip


def peer_of(target: api.MigrationTarget | None) -> Peer | None:
    """Return the server that waits to be sent something, None when the other one comes."""
    if target is None or not target.operation:
        return None
    return Peer(target.operation, target.secrets or {}, target.certificate)


class Parting:
    """The end of a running instance here, which goes on at the other server with its memory."""

    def __init__(self, power: Power, memory: Memory, still: Still, fs: Channel) -> None:
        self._power = power
        self._memory = memory
        self._key = still.instance.project, still.instance.name
        self._fs = fs
        self._has_stopped = False
        self._is_sent = False
        #: where its files are, without the snapshot
        self.volume = volume_of(still.instance)

    async def stop(self) -> None:
        """Have it stand still; its memory is on disk. Raises LxpyError."""
        await self._power.suspend(*self._key)
        self._has_stopped = True

    async def send(self) -> None:
        """Send the memory. Raises Failed."""
        async with self._memory.sent(*self._key, "") as sending:
            async for chunk in sending.chunks:
                await self._fs.send(chunk)
        await frames.end(self._fs)
        self._is_sent = True

    async def undo(self, error: BaseException) -> None:
        """Have it go on here, unless it may run there already. Raises Failed."""
        if not self._has_stopped:
            return
        if self._is_sent and isinstance(error, Lost):
            raise Failed(
                f'The other server has all of "{self._key[1]}", and has not said whether it runs '
                "there. It is stopped here, with its memory: look there, then delete it or start it"
            ) from error
        await self._power.start(*self._key)


class Sending:
    """The files of one volume with its snapshots, on their way over the socket `fs`."""

    def __init__(
        self,
        storage: StoragePools,
        staging: Staging,
        pool: Pool,
        fs: Channel,
        operation: Operation,
    ) -> None:
        self._storage = storage
        self._staging = staging
        self._pool = pool
        self._fs = fs
        self._operation = operation

    async def instance(
        self,
        control: Channel,
        still: Still,
        about: Mapping[str, Any],
        *,
        may_vanish: bool,
        parting: Parting | None = None,
    ) -> None:
        """Send an instance that stays as it is, or parts from here at the end. Raises Failed."""
        index = {_NAMES[key]: value for key, value in about.items() if key in _NAMES}
        snapshots = [_header(each, still.instance.architecture) for each in still.snapshots]
        await self.all(
            control, still.volume, snapshots, index, may_vanish=may_vanish, parting=parting
        )

    async def all(
        self,
        control: Channel,
        volume: Volume,
        snapshots: Sequence[SnapshotHeader],
        index: Mapping[str, Any],
        *,
        may_vanish: bool = False,
        parting: Parting | None = None,
    ) -> None:
        """Offer, then send what is taken of that; `volume` and snapshots stay as they are.

        Raises Failed.
        """
        streams = self._pool.driver == "btrfs" and self._storage.info(self._pool).streams
        form = Form.BTRFS if streams and parting is None else Form.RSYNC
        offer = Header(
            form,
            tuple(snapshots),
            rsync=offered(self._pool.config),
            btrfs=BTRFS_FEATURES if form is Form.BTRFS else frozenset(),
            index_version=INDEX_VERSION,
            memory=parting is not None,
        )
        await control.send(offer.encode())
        answer = await meetings.header(control)
        if parting is not None and not answer.memory:
            raise NotSupported(
                "Unable to perform container live migration: memory goes between lxpy servers "
                "only: stop the instance first, or leave the memory behind (--stateless)"
            )

        async def transfer() -> None:
            if answer.index_version:
                await self._describe(index)
            names = {each.name for each in answer.snapshots} if answer.refresh else None
            chosen = [each.name for each in snapshots if names is None or each.name in names]
            volumes = [*(volume.at(name) for name in chosen), volume]
            if answer.form == Form.BTRFS and form is Form.BTRFS:
                await self._streamed(volumes, answer)
            elif answer.form == Form.RSYNC:
                await self._synced(volumes, offer, answer, may_vanish)
            else:
                raise Failed("The other server wants the files in a form that was not offered")
            if parting is not None:
                await parting.stop()
                await self._synced([parting.volume], offer, answer, may_vanish)
                await parting.send()

        await meetings.send_all(control, transfer())

    async def _describe(self, index: Mapping[str, Any]) -> None:
        await frames.send_json(self._fs, {"config": dict(index)})
        reply = await frames.receive_json(self._fs)
        if reply.get("StatusCode") != 200:
            raise Failed(str(reply.get("Error") or "The other server does not take this volume"))

    async def _synced(
        self, volumes: Sequence[Volume], offer: Header, answer: Header, may_vanish: bool
    ) -> None:
        features = agreed(offer, answer)
        for volume in volumes:
            async with self._staging.sending(self._pool, volume) as tree:
                await rsync.send(
                    self._fs, tree, features, self._meter(volume).add,
                    limit_kib=_limit_kib(self._pool), may_vanish=may_vanish,
                )  # fmt: skip

    async def _streamed(self, volumes: Sequence[Volume], answer: Header) -> None:
        """Send each volume as the driver's own stream: what changed since the one before."""
        if 1 in answer.btrfs:
            found = [
                {"path": "/", "snapshot": each.snapshot, "readonly": True} for each in volumes[:-1]
            ]
            found.append({"path": "/", "snapshot": "", "readonly": False})
            await frames.send_json(self._fs, {"subvolumes": found})
        before = ""
        for volume in volumes:
            meter = self._meter(volume)
            reading, writing = wide_pipe()
            sending = asyncio.ensure_future(self._write(volume, before, writing))
            try:
                await _pump(reading, self._fs, meter)
                await sending
            finally:
                sending.cancel()
                await asyncio.wait((sending,))
            await frames.end(self._fs)
            before = volume.snapshot

    async def _write(self, volume: Volume, before: str, writing: int) -> None:
        try:
            await self._storage.send(self._pool, volume, before, writing)
        finally:
            os.close(writing)

    def _meter(self, volume: Volume) -> Meter:
        return Meter(self._operation.progress, "fs", volume.name)


def _limit_kib(pool: Pool) -> int:
    limit = pool.config.get("rsync.bwlimit", "")
    return max(1, parse_size(limit) // 1024) if limit and parse_size(limit) else 0


async def _pump(reading: int, fs: Channel, meter: Meter) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_BLOCK)
    protocol = asyncio.StreamReaderProtocol(reader)
    # The transport closes the file.
    transport, _ = await loop.connect_read_pipe(lambda: protocol, FileIO(reading, "r"))
    try:
        while data := await reader.read(_BLOCK):
            meter.add(len(data))
            await fs.send(data)
    finally:
        transport.close()


def _header(snapshot: Snapshot, architecture: str) -> SnapshotHeader:
    def seconds(moment: Any) -> int:
        return NEVER if moment is None else int(moment.timestamp())

    config = portable(snapshot.config)
    return SnapshotHeader(
        name=snapshot.name,
        config={key: value for key, value in config.items() if key not in _OURS},
        devices=snapshot.devices,
        profiles=tuple(snapshot.profiles),
        ephemeral=snapshot.ephemeral,
        architecture=architectures.IDS.get(architecture, 0),
        stateful=False,
        created=seconds(snapshot.created_at),
        used=seconds(snapshot.last_used_at),
        expires=seconds(snapshot.expires_at),
    )
