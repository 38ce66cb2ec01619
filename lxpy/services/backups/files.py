"""The files of backups that the daemon keeps: there under their names when they are complete.

ROOT/instances/ID/NAME, ROOT/volumes/ID/NAME    ID is the owner's, which no rename changes
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.db.backups import Owner
from lxpy.storage.files import fsync_directory
from lxpy.threads import in_thread

_KINDS = ("instances", "volumes")


class NewFile:
    """A file without a name: a crash leaves nothing of it."""

    def __init__(self, descriptor: int, directory: Path) -> None:
        self.descriptor = descriptor
        self._directory = directory

    @property
    def size_bytes(self) -> int:
        """How much has been written."""
        return os.fstat(self.descriptor).st_size

    async def name(self, name: str) -> None:
        """Write it out and give it its name. Raises FileExistsError."""

        def link() -> None:
            os.fsync(self.descriptor)
            # Only with a descriptor Python asks the kernel to follow the link in /proc.
            source = f"/proc/self/fd/{self.descriptor}"
            os.link(source, self._directory / name, src_dir_fd=self.descriptor)
            fsync_directory(self._directory)

        await in_thread(link)


class BackupFiles:
    """The files below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, owner: Owner, name: str) -> Path:
        """Return where a backup's file is."""
        return self._directory(owner) / name

    @asynccontextmanager
    async def new(self, owner: Owner) -> AsyncIterator[NewFile]:
        """Make a file for the length of a block; what has no name at its end is gone."""
        directory = self._directory(owner)

        def make() -> int:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)

        descriptor = await in_thread(make)
        try:
            yield NewFile(descriptor, directory)
        finally:
            os.close(descriptor)
            await in_thread(self._tidy, directory)

    async def also(self, owner: Owner, name: str, new_name: str) -> None:
        """Give a file a second name. Raises FileNotFoundError, FileExistsError."""

        def link() -> None:
            os.link(self.path(owner, name), self.path(owner, new_name))
            fsync_directory(self._directory(owner))

        await in_thread(link)

    async def delete(self, owner: Owner, name: str) -> None:
        """Remove a file; one that is not there is none."""

        def remove() -> None:
            self.path(owner, name).unlink(missing_ok=True)
            self._tidy(self._directory(owner))

        await in_thread(remove)

    async def delete_all(self, owner: Owner) -> None:
        """Remove all files of an owner that is gone."""

        def remove() -> None:
            shutil.rmtree(self._directory(owner), ignore_errors=True)
            self._tidy(self._directory(owner).parent)

        await in_thread(remove)

    async def sweep(self, known: Collection[Path]) -> set[Path]:
        """Remove files that no row knows of; return those of the known ones that are missing."""

        def work() -> set[Path]:
            if self._root.is_symlink() and not self._root.exists():
                return set()  # it leads to a volume that is not at hand
            found = {path for kind in _KINDS for path in (self._root / kind).glob("*/*")}
            for path in found - set(known):
                path.unlink(missing_ok=True)
            for kind in _KINDS:
                for directory in (self._root / kind).glob("*"):
                    self._tidy(directory)
            return set(known) - found

        return await in_thread(work)

    def _directory(self, owner: Owner) -> Path:
        return self._root / owner.kind / str(owner.id)

    def _tidy(self, directory: Path) -> None:
        """Remove directories in which nothing is left, up to the root."""
        while directory.is_relative_to(self._root):
            try:
                directory.rmdir()
            except OSError:
                return
            directory = directory.parent
