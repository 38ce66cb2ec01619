"""Custom volumes as directories of their own.

    SOURCE/custom/NAME/files/                    a volume of files without a size
    SOURCE/custom/NAME/{disk.img, disk/}         one with a size, in a disk of its own
    SOURCE/custom/NAME/root.img                  a block volume
    SOURCE/custom-snapshots/NAME/SNAPSHOT/...    the same

Several instances may write to such a volume at once, so there are no layers: a copy is a copy,
which shares its blocks where the file system can.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.errors import Failed, NotFound
from lxpy.storage import files, projects, trees
from lxpy.storage.drivers import layout, quotas
from lxpy.storage.drivers.base import Quiet
from lxpy.storage.transfer import BLOCK_FILE
from lxpy.storage.trash import Trash
from lxpy.storage.volume import ContentType, Plain, Pool, Usage, Volume
from lxpy.threads import in_thread, in_thread_or_undo

FILES = "files"
_DEFAULT_BLOCK_BYTES = 10 << 30


class Directories:
    """The custom volumes of one pool."""

    def __init__(self, pool: Pool, trash: Trash) -> None:
        self.pool = pool
        self._trash = trash
        self.in_use: set[Path] = set()

    def place(self, volume: Volume) -> Path:
        """Return the directory of a volume or snapshot."""
        return layout.volume_path(self.pool, volume)

    async def create(self, volume: Volume) -> None:
        """Make an empty volume. Raises Conflict."""
        async with self._new(volume) as new:
            if volume.content is not ContentType.FILESYSTEM:
                size = volume.size_bytes or _DEFAULT_BLOCK_BYTES
                await in_thread(_make_block, new / BLOCK_FILE, size)

    @asynccontextmanager
    async def filling(self, volume: Volume) -> AsyncIterator[Path]:
        """Make a volume or snapshot of the files that the block writes."""
        async with self._new(volume) as new:
            if volume.content is ContentType.FILESYSTEM:
                yield await in_thread(_files, new)
            else:
                yield new
            await in_thread(files.syncfs, new)

    async def copy(self, source: Volume, target: Volume, quiet: Quiet | None) -> None:
        """Copy a volume or snapshot to a new one. Raises NotFound, Conflict."""
        await self.copy_to(source, self, target, quiet)

    async def copy_to(
        self, source: Volume, there: Directories, target: Volume, quiet: Quiet | None
    ) -> None:
        """Copy a volume or snapshot to a new one in another pool."""
        old = await in_thread(self._existing, source)
        in_use = self.place(source) in self.in_use
        async with there._new(target) as new, quotas.mounted(old, already=in_use):
            with layout.full_told(there.pool):
                await self._content(target.content, old, new, quiet if in_use else None)
                await in_thread(files.syncfs, new)

    async def _content(
        self, content: ContentType, old: Path, new: Path, quiet: Quiet | None
    ) -> None:
        if content is ContentType.FILESYSTEM:
            await trees.copy(
                await in_thread(_files, old), await in_thread(_files, new), (".",), quiet
            )
        else:
            await trees.copy(old, new, (BLOCK_FILE,), quiet)

    @asynccontextmanager
    async def _new(self, volume: Volume) -> AsyncIterator[Path]:
        """Make a volume's directory, which the block fills; whole at its end, or not at all."""
        place = self.place(volume)
        new = layout.unfinished(place)
        if await in_thread(place.exists):
            raise layout.taken(place)
        await in_thread(_make_directory, new)
        try:
            await self._sized(new, volume)
            yield new
            await quotas.unmount(new)
            await in_thread_or_undo(
                lambda: layout.claim(new, place), lambda _: self._trash.discard(place)
            )
        except BaseException:
            await quotas.unmount(new)
            await in_thread(shutil.rmtree, new, True)
            await in_thread(layout.remove_if_empty, place.parent)
            raise

    async def _sized(self, new: Path, volume: Volume) -> None:
        """Make where the files of a volume go, held to its size."""
        size = volume.size_bytes
        if volume.content is not ContentType.FILESYSTEM:
            return
        kind = await quotas.kind_for(self.pool, None if volume.snapshot else size)
        if kind == "loop" and size is not None:
            await quotas.make_disk(new, size)
            await quotas.mount(new)
        else:
            await in_thread(os.mkdir, new / FILES, 0o711)
            if kind == "project":
                await in_thread(projects.limit, new, size)

    async def snapshot(self, snapshot: Volume, quiet: Quiet | None) -> None:
        """Copy a volume beside it."""
        await self.copy(snapshot.whole, snapshot, quiet)

    async def restore(self, volume: Volume, snapshot: str) -> None:
        """Copy a snapshot, and put the copy in the volume's place."""
        place = await in_thread(self._existing, volume)
        source = await in_thread(self._existing, volume.at(snapshot))
        new = layout.unfinished(place)
        await in_thread(_make_directory, new)
        try:
            await self._sized(new, volume)
            with layout.full_told(self.pool):
                await self._content(volume.content, source, new, None)
            await quotas.unmount(new)
            await quotas.unmount(place)
            await in_thread(files.exchange, new, place)
        finally:
            await quotas.unmount(new)
            await in_thread(self._trash.discard, new)

    async def delete(self, volume: Volume) -> None:
        """Remove a volume with its snapshots, or one snapshot."""
        place = self.place(volume)
        await quotas.unmount(place)
        self.in_use.discard(place)
        await in_thread(self._delete, volume)

    def _delete(self, volume: Volume) -> None:
        doomed = [self.place(volume)]
        if not volume.snapshot:
            doomed.append(layout.snapshots_path(self.pool, volume))
        with layout.told(self.pool):
            for each in doomed:
                if each.exists():
                    self._trash.discard(each)
            layout.remove_if_empty(layout.snapshots_path(self.pool, volume))

    async def resize(self, volume: Volume, size_bytes: int | None) -> None:
        """Hold a volume to another size."""
        place = await in_thread(self._existing, volume)
        in_use = place in self.in_use
        if volume.content is not ContentType.FILESYSTEM:
            await in_thread(_resize_block, place / BLOCK_FILE, size_bytes or _DEFAULT_BLOCK_BYTES)
            return
        has_disk = await in_thread(quotas.has_disk, place)
        if has_disk and size_bytes and await in_thread(quotas.can_resize, place, size_bytes):
            async with quotas.mounted(place, already=in_use):
                await quotas.resize_disk(place, size_bytes)
            return
        if not has_disk and await quotas.kind(self.pool) == "project":
            await in_thread(projects.resize, place, size_bytes)
            return
        if not has_disk and size_bytes is None:
            return
        await quotas.kind_for(self.pool, size_bytes)
        if in_use:
            raise quotas.only_at_rest(self.pool, volume)
        await self._move(volume, place)

    async def _move(self, volume: Volume, place: Path) -> None:
        """Move a volume's files into a disk of its own, or out of it."""
        new = layout.unfinished(place)
        await in_thread(_make_directory, new)
        try:
            await self._sized(new, volume)
            async with quotas.mounted(place):
                with layout.full_told(self.pool):
                    await self._content(volume.content, place, new, None)
            await quotas.unmount(new)
            await in_thread(files.exchange, new, place)
        finally:
            await quotas.unmount(new)
            await in_thread(self._trash.discard, new)

    async def mount(self, volume: Volume) -> None:
        """Have a volume's or snapshot's files at hand."""
        place = await in_thread(self._existing, volume)
        if await in_thread(quotas.has_disk, place):
            await quotas.mount(place)
        self.in_use.add(place)

    async def unmount(self, volume: Volume) -> None:
        """Let a volume rest."""
        place = self.place(volume)
        await quotas.unmount(place)
        self.in_use.discard(place)

    def rootfs(self, volume: Volume) -> Plain:
        """Return where the files of a mounted volume are."""
        return Plain(str(_files(self._existing(volume))))

    def disk(self, volume: Volume) -> Path:
        """Return the file of a block volume."""
        return self._existing(volume) / BLOCK_FILE

    async def usage(self, volume: Volume) -> Usage | None:
        """Return what a volume with a size holds; of a block volume, the blocks it takes."""
        place = await in_thread(self._existing, volume)
        if volume.content is not ContentType.FILESYSTEM:
            found = await in_thread(os.stat, place / BLOCK_FILE)
            return Usage(found.st_blocks * 512, found.st_size)
        if await in_thread(quotas.has_disk, place):
            async with quotas.mounted(place, already=place in self.in_use):
                return await in_thread(quotas.usage, place)
        if volume.size_bytes and await quotas.kind(self.pool) == "project":
            return await in_thread(projects.usage, place)
        return None

    def _existing(self, volume: Volume) -> Path:
        place = self.place(volume)
        if not place.is_dir():
            what = "Snapshot" if volume.snapshot else "Volume"
            raise NotFound(f'{what} "{volume.label}" is not in storage pool "{self.pool.name}"')
        return place


def _files(place: Path) -> Path:
    return quotas.inside(place) if quotas.has_disk(place) else place / FILES


def _make_block(path: Path, size_bytes: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def _resize_block(path: Path, size_bytes: int) -> None:
    if size_bytes < path.stat().st_size:
        raise Failed(
            f'Block volume "{path.parent.name}" cannot shrink: what is at its end would be lost; '
            "make a smaller one and copy to it"
        )
    os.truncate(path, size_bytes)


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
