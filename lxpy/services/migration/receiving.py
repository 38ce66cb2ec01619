"""The files of a volume with its snapshots, as they come over the socket `fs`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from io import FileIO
from typing import Any

from lxpy.backups import programs
from lxpy.errors import Failed, NotSupported
from lxpy.images.progress import Meter
from lxpy.migration import frames, rsync
from lxpy.migration.messages import (
    BTRFS_FEATURES,
    INDEX_VERSION,
    Form,
    Header,
    Rsync,
    Shift,
    SnapshotHeader,
    agreed,
    offered,
)
from lxpy.operations.channel import Channel
from lxpy.operations.registry import Operation
from lxpy.services.migration.staging import Staging
from lxpy.storage import Pool, StoragePools, Volume


class Receiving:
    """What comes for one volume of a pool; `label` is what progress is told of."""

    def __init__(
        self,
        storage: StoragePools,
        staging: Staging,
        pool: Pool,
        fs: Channel,
        operation: Operation,
        label: str,
    ) -> None:
        self._label = label
        self._storage = storage
        self._staging = staging
        self._pool = pool
        self._fs = fs
        self._operation = operation

    def answer(self, offer: Header, *, refresh: Sequence[SnapshotHeader] | None) -> Header:
        """Return what is taken of an offer: with `refresh`, these snapshots only.

        Raises NotSupported for an instance that is to come with LXD's kind of memory, Failed.
        """
        if offer.live and not offer.memory:
            raise NotSupported(
                "The memory of running instances goes between lxpy servers only, by `lxpy move "
                "--live`: stop the instance first, or leave the memory behind (--stateless)"
            )
        streams = self._pool.driver == "btrfs" and self._storage.info(self._pool).streams
        as_stream = offer.form == Form.BTRFS and streams and refresh is None and not offer.shifts
        answer = Header(
            Form.BTRFS if as_stream else Form.RSYNC,
            tuple(offer.snapshots if refresh is None else refresh),
            rsync=offered(self._pool.config).both(offer.rsync or Rsync()),
            btrfs=BTRFS_FEATURES & offer.btrfs if as_stream else frozenset(),
            refresh=refresh is not None,
            index_version=min(offer.index_version, INDEX_VERSION),
            memory=offer.memory and refresh is None,
        )
        if not as_stream:
            agreed(answer, answer)
        return answer

    async def description(self, answer: Header) -> Mapping[str, Any]:
        """Return what the source says of the volume, and say that it may send it."""
        if not answer.index_version:
            return {}
        found = await frames.receive_json(self._fs)
        reply = {"StatusCode": 200, "Error": "", "Refresh": answer.refresh}
        await frames.send_json(self._fs, reply)
        config = found.get("config")
        return config if isinstance(config, dict) else {}

    async def new(self, volume: Volume, offer: Header, answer: Header) -> None:
        """Make a volume with its snapshots. Raises Failed, Conflict with nothing left."""
        if answer.form == Form.BTRFS:
            await self._streams(volume, answer)
            return
        await self._storage.create_volume(self._pool, volume)
        try:
            for each in answer.snapshots:
                await self.step(volume, offer, answer)
                await self._storage.snapshot(self._pool, volume.at(each.name))
            await self.step(volume, offer, answer)
        except BaseException:
            await self._storage.delete_volume(self._pool, volume)
            raise

    async def step(self, volume: Volume, offer: Header, answer: Header) -> None:
        """Make a volume what comes next: a snapshot of the source, or at the end itself."""
        meter = Meter(self._operation.progress, "fs", self._label)
        async with self._staging.receiving(self._pool, volume) as tree:
            await rsync.receive(self._fs, tree, agreed(answer, answer), meter.add)
            if offer.shifts:
                await _unshift(tree.descriptor, offer.shifts)

    def memory(self) -> AsyncIterator[bytes]:
        """Yield the archive of an instance's memory."""
        return frames.stream(self._fs)

    async def _streams(self, volume: Volume, answer: Header) -> None:
        """Make them of the storage driver's own streams, which come oldest first."""
        if 1 in answer.btrfs:
            described = await frames.receive_json(self._fs)
            _check_plain(described.get("subvolumes"))
        begun = False  # what lies there under this name before that is not ours
        try:
            for each in (*(volume.at(s.name) for s in answer.snapshots), volume):
                await self._stream(each)
                begun = True
        except BaseException:
            if begun:
                await self._storage.delete_volume(self._pool, volume)
            raise

    async def _stream(self, volume: Volume) -> None:
        meter = Meter(self._operation.progress, "fs", self._label)
        reading, writing = programs.wide_pipe()
        taking = asyncio.ensure_future(self._take(volume, reading))
        feeding = asyncio.ensure_future(_feed(self._fs, writing, meter))
        try:
            await asyncio.wait((taking, feeding), return_when=asyncio.FIRST_EXCEPTION)
            if taking.done():
                taking.result()
            await feeding
            await taking
        finally:
            for each in (taking, feeding):
                each.cancel()
            await asyncio.wait((taking, feeding))

    async def _take(self, volume: Volume, reading: int) -> None:
        try:
            await self._storage.receive(self._pool, volume, reading)
        finally:
            os.close(reading)


async def _feed(fs: Channel, writing: int, meter: Meter) -> None:
    """Write the next stream to a pipe; what nobody reads any more is left out."""
    loop = asyncio.get_running_loop()
    file = FileIO(writing, "w")  # the transport closes it
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, file)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        async for data in frames.stream(fs):
            meter.add(len(data))
            try:
                writer.write(data)
                await writer.drain()
            except (BrokenPipeError, ConnectionResetError):
                continue
    finally:
        writer.close()


def _check_plain(subvolumes: object) -> None:
    """Raise NotSupported for a volume with others in it."""
    listed = subvolumes if isinstance(subvolumes, list) else []
    inner = [each["path"] for each in listed if isinstance(each, dict) and each["path"] != "/"]
    if inner:
        raise NotSupported(
            f"The volume has other subvolumes in it ({inner[0]}): choose a storage pool of another "
            "driver here, then it comes as files"
        )


async def _unshift(descriptor: int, shifts: Sequence[Shift]) -> None:
    """Give the files the owners that the guest knows."""
    command = programs.ours("lxpy.migration.unshift")
    spans = [f"{int(s.uid)}:{int(s.gid)}:{s.host}:{s.inside}:{s.size}" for s in shifts]
    process = await programs.start((*command, str(descriptor), *spans), pass_fds=(descriptor,))
    try:
        assert process.stderr is not None
        said = await process.stderr.read()
        if await process.wait() != 0:
            raise Failed(
                "Changing the owners of the files failed: "
                f"{programs.complaint(said, process.returncode)}"
            )
    finally:
        await programs.end(process)
