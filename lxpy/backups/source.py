"""A volume or snapshot, opened so that the packing program can read it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from lxpy.backups.pack import Directory, File, Part
from lxpy.storage import ContentType, Pool, Rootfs, StoragePools, Volume, VolumeType, view
from lxpy.threads import in_thread


@asynccontextmanager
async def opened(
    storage: StoragePools, pool: Pool, volume: Volume, name: str
) -> AsyncIterator[list[Part]]:
    """Hold a volume or snapshot for the length of a block, which gets the parts of an archive.

    Of an instance they are metadata.yaml, templates/ and rootfs/ below `name`; of a custom volume
    the files below `name`, or the disk `name`.img. Nobody must write to it. Raises NotFound.
    """
    if volume.content is not ContentType.FILESYSTEM:
        async with _disk(storage, pool, volume) as descriptor:
            yield [File(f"{name}.img", descriptor)]
        return
    async with storage.held(pool, volume) as rootfs:
        metadata = None
        if volume.type is VolumeType.CONTAINER:
            metadata = await storage.metadata(pool, volume)
        with ExitStack() as descriptors:
            yield await in_thread(_open, descriptors, rootfs, metadata, name)


@asynccontextmanager
async def tree(storage: StoragePools, pool: Pool, volume: Volume) -> AsyncIterator[int]:
    """Hold a volume or snapshot for the length of a block, which gets its tree. Raises NotFound."""
    async with storage.held(pool, volume) as rootfs:
        with ExitStack() as descriptors:
            yield await in_thread(_tree, descriptors, rootfs)


@asynccontextmanager
async def _disk(storage: StoragePools, pool: Pool, volume: Volume) -> AsyncIterator[int]:
    holder = f"backup/{volume.label}"
    await storage.hold(pool, volume, holder)
    try:
        path = await storage.disk(pool, volume)
        descriptor = await in_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    finally:
        await storage.let_go(pool, volume, holder)


def _open(descriptors: ExitStack, rootfs: Rootfs, metadata: Path | None, name: str) -> list[Part]:
    parts: list[Part] = []
    if metadata is not None:
        for entry, kind in (("metadata.yaml", File), ("templates", Directory)):
            try:
                opened_entry = os.open(metadata / entry, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            descriptors.callback(os.close, opened_entry)
            parts.append(kind(f"{name}/{entry}".lstrip("/"), opened_entry))
        name = f"{name}/rootfs".lstrip("/")
    parts.append(Directory(name, _tree(descriptors, rootfs)))
    return parts


def _tree(descriptors: ExitStack, rootfs: Rootfs) -> int:
    tree = view.open_tree(rootfs)
    descriptors.callback(os.close, tree)
    return tree
