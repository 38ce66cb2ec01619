"""Volumes as rsync sees them: an instance's metadata.yaml, templates/ and rootfs/ in one place.

They are put together below LXPY_DIR/transfers; of the files themselves only the process that
transfers them has a mount, so nothing has to be unmounted.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from secrets import token_hex

from lxpy.backups import source
from lxpy.backups.pack import Directory, File, Part
from lxpy.migration.rsync import Tree
from lxpy.storage import Pool, StoragePools, Volume, VolumeType, view
from lxpy.threads import in_thread, resource

_ROOTFS = "rootfs"
#: the mode that LXD gives to the directory of a container
_TOP_MODE = 0o100
_MAX_METADATA_BYTES = 1 << 20
_MAX_TEMPLATES = 1000


class Staging:
    """The places where volumes are put together."""

    def __init__(self, root: Path, storage: StoragePools) -> None:
        self._root = root
        self._storage = storage

    async def start(self) -> None:
        """Remove what a former daemon has left."""
        await in_thread(shutil.rmtree, self._root, True)
        await in_thread(partial(self._root.mkdir, mode=0o700, parents=True))

    @asynccontextmanager
    async def sending(self, pool: Pool, volume: Volume) -> AsyncIterator[Tree]:
        """Show a volume or snapshot that nobody writes to."""
        async with source.opened(self._storage, pool, volume, "") as parts:
            *metadata, files = parts
            assert isinstance(files, Directory)
            async with self._top() as top:
                if volume.type is VolumeType.CONTAINER:
                    await in_thread(_copy_out, metadata, top)
                yield Tree(top, files.name or ".", files.descriptor)

    @asynccontextmanager
    async def receiving(self, pool: Pool, volume: Volume) -> AsyncIterator[Tree]:
        """Show a volume that somebody writes to during the block, and keep what is written."""
        async with self._storage.held(pool, volume) as rootfs, self._top() as top:
            opened = resource(partial(view.open_tree, rootfs, writable=True), os.close)
            if volume.type is not VolumeType.CONTAINER:
                async with opened as descriptor:
                    yield Tree(top, ".", descriptor)
                return
            place = self._storage.directory(pool, volume)
            await in_thread(_copy_metadata, place, top)
            await in_thread((top / _ROOTFS).mkdir)
            async with opened as descriptor:
                yield Tree(top, _ROOTFS, descriptor)
            await in_thread(_copy_metadata, top, place)

    @asynccontextmanager
    async def _top(self) -> AsyncIterator[Path]:
        path = self._root / token_hex(8)
        await in_thread(path.mkdir, _TOP_MODE)
        try:
            yield path
        finally:
            await in_thread(shutil.rmtree, path, True)


def _copy_out(parts: list[Part], top: Path) -> None:
    (top / _ROOTFS).mkdir(mode=0o755)
    for part in parts:
        target = top / part.name
        if isinstance(part, File):
            with open(part.descriptor, "rb", closefd=False) as file:
                target.write_bytes(file.read())
        elif isinstance(part, Directory):
            shutil.copytree(f"/proc/self/fd/{part.descriptor}", target)


def _copy_metadata(old: Path, new: Path) -> None:
    """Have metadata.yaml and templates/ in a directory as in another: plain files only."""
    (new / "metadata.yaml").unlink(missing_ok=True)
    shutil.rmtree(new / "templates", ignore_errors=True)
    _copy_file(old / "metadata.yaml", new / "metadata.yaml")
    templates = old / "templates"
    if not templates.is_dir() or templates.is_symlink():
        return
    (new / "templates").mkdir(mode=0o755)
    for name in sorted(os.listdir(templates))[:_MAX_TEMPLATES]:
        _copy_file(templates / name, new / "templates" / name)


def _copy_file(old: Path, new: Path) -> None:
    try:
        descriptor = os.open(old, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # there is none, or it is a link
    with open(descriptor, "rb") as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            new.write_bytes(file.read(_MAX_METADATA_BYTES))
            new.chmod(0o644)
