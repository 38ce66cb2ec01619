"""Custom volumes that arrive as a file: ISO images.

Source: LXD docs, "Storage volumes", "Create a custom storage volume".
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

from lxpy.errors import BadRequest
from lxpy.events.lifecycle import Lifecycle
from lxpy.operations.registry import Operation, Registry
from lxpy.services.locks import Locks
from lxpy.services.storage import Pools
from lxpy.services.volume_files import Record, VolumeFiles
from lxpy.services.volume_places import check_name, check_project, custom
from lxpy.services.volumes import Volumes
from lxpy.storage import ContentType
from lxpy.storage.transfer import BLOCK_FILE
from lxpy.threads import in_thread

Chunks = AsyncIterator[bytes]


class VolumeImports:
    """Receives volumes."""

    def __init__(
        self,
        *,
        pools: Pools,
        locks: Locks,
        files: VolumeFiles,
        volumes: Volumes,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._files = files
        self._volumes = volumes
        self._registry = registry
        self._lifecycle = lifecycle

    async def iso(
        self, pool_name: str, project: str, name: str, chunks: Chunks, length: int | None
    ) -> Operation:
        """Make a volume of an ISO image; `length` is its size in bytes as far as it is known.

        Raises NotFound, BadRequest, Conflict, Failed: nothing is left then. The operation that it
        returns has nothing more to do than to tell.
        """
        check_project(project)
        place = custom(pool_name, check_name(name), project)
        pool = await self._pools.pool(pool_name)
        size = {} if length is None else {"size": str(length)}
        record = Record(place, ContentType.ISO, size)
        async with self._locks.hold(*place.key):
            await self._volumes.check_free(place)
            async with self._files.making(record) as intent:
                async with self._pools.storage.filling(pool, record.volume) as directory:
                    written = await _receive(chunks, directory / BLOCK_FILE)
                record = Record(place, ContentType.ISO, {"size": str(written)})
                async with self._files.or_removed(pool, record.volume):
                    await self._files.insert(record, ends=intent)

        async def work(_: Operation) -> None:
            self._lifecycle.emit("storage-volume-created", place.path, project)

        return self._registry.spawn(
            "Creating storage volume",
            work,
            project=project,
            resources={"storage_volumes": [place.path]},
        )


async def _receive(chunks: Chunks, path: Path) -> int:
    """Write what arrives to a new file, and to the disk; return its size in bytes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        written = 0
        async for chunk in chunks:
            await in_thread(_write, descriptor, chunk)
            written += len(chunk)
        if not written:
            raise BadRequest("The ISO image is empty")
        await in_thread(os.fsync, descriptor)
    finally:
        os.close(descriptor)
    return written


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
