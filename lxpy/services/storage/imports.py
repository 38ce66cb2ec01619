"""Custom volumes that arrive as a file: ISO images and backups, unpacked while they come.

Source: LXD docs, "Storage volumes", "Create a custom storage volume", "Back up a custom volume".
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from lxpy.backups import reader
from lxpy.backups.index import Index, Object, moment, strings
from lxpy.backups.reader import Incoming
from lxpy.errors import BadRequest, Failed
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.names import check_snapshot_name
from lxpy.operations.registry import Operation, Registry
from lxpy.services.backups.fillings import fill, telling
from lxpy.services.locks import Locks
from lxpy.services.storage.files import Record, SnapshotRecord, VolumeFiles
from lxpy.services.storage.places import Place, check_name, custom, portable
from lxpy.services.storage.pools import Pools
from lxpy.services.storage.volumes import Volumes
from lxpy.storage import ContentType, Pool
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
        place = custom(pool_name, check_name(name), project)
        pool = await self._pools.pool(pool_name)
        size = {} if length is None else {"size": str(length)}
        record = Record(place, ContentType.ISO, size)
        async with self._locks.hold(*place.key):
            await self._volumes.check_free(place)
            await self._volumes.check_allowed(place, size)
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

    async def backup(self, pool_name: str, project: str, name: str, chunks: Chunks) -> Operation:
        """Import a backup as it comes, under another name if one is given.

        Returns the operation when it has ended. Raises Failed for what is no backup, NotFound,
        BadRequest; what is wrong with the rest the operation says.
        """
        pool = await self._pools.pool(pool_name)
        async with reader.incoming(chunks) as archive:
            if archive.index.type != "custom":
                raise BadRequest("The backup is of an instance: import it by `lxpy import`")
            place = custom(pool_name, check_name(name or archive.index.name), project)

            async def work(operation: Operation) -> None:
                async with self._locks.hold(*place.key):
                    await self._import(pool, place, archive, operation)
                self._lifecycle.emit("storage-volume-created", place.path, project)

            operation = self._registry.spawn(
                "Restoring custom volume backup",
                work,
                project=project,
                resources={"storage_volumes": [place.path]},
                cancellable=True,
            )
            await operation.attend()
        return operation

    async def _import(
        self, pool: Pool, place: Place, archive: Incoming, operation: Operation
    ) -> None:
        """Make the volume, its lock held."""
        await self._volumes.check_free(place)
        record = _described(archive.index, place)
        record = replace(record, config=portable(pool, record.config))
        self._pools.storage.validate_volume(pool, record.config)
        await self._volumes.check_allowed(place, record.config)
        async with self._files.making(record) as intent:
            tell = telling(operation, "create_volume_from_backup")
            check = partial(_check_content, record.content)
            storage = self._pools.storage
            await fill(storage, pool, record.volume, archive, tell=tell, check=check)
            async with self._files.or_removed(pool, record.volume):
                await self._files.insert(record, ends=intent)


def _described(index: Index, place: Place) -> Record:
    """Return the volume that a backup describes. Raises Failed, BadRequest."""
    found = index.config.get("volume")
    if not isinstance(found, dict):
        raise Failed("Invalid backup: it does not describe its volume")
    content = str(found.get("content_type") or ContentType.FILESYSTEM)
    if content not in list(ContentType):
        raise Failed(f'Invalid backup: its volume has an unknown content type "{content}"')
    listed = index.config.get("volume_snapshots") or []
    by_name = {
        str(each.get("name")).rpartition("/")[2]: each
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
    }
    return Record(
        place,
        content,
        strings(found.get("config"), "the volume's config"),
        str(found.get("description") or ""),
        snapshots=tuple(_snapshot(each, by_name.get(each) or {}) for each in index.snapshots),
    )


def _snapshot(name: str, found: Object) -> SnapshotRecord:
    return SnapshotRecord(
        check_snapshot_name(name),
        moment(found.get("created_at")) or datetime.now(UTC),
        moment(found.get("expires_at")),
        str(found.get("description") or ""),
        strings(found.get("config"), f'the config of snapshot "{name}"'),
    )


def _check_content(content: str, targets: dict[str, Path]) -> None:
    for name, path in targets.items():
        if content != ContentType.FILESYSTEM and not (path / BLOCK_FILE).is_file():
            raise Failed(f"Invalid backup: it has no {name}.img")


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
