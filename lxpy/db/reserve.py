"""Disk space that is given up when there is no other: what makes room can still be noted.

Without it a full disk would keep instances from being stopped and deleted, as both are written
down. What is left after it was given up is for that alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

SIZE_BYTES = 4 << 20
#: made again when this many times its size is free
_ROOM = 8


def free_bytes(path: Path) -> int:
    """Return how much space is free for root in the file system of a path."""
    found = os.statvfs(path)
    return found.f_bfree * found.f_frsize


class Reserve:
    """A file beside the database that only takes up space."""

    def __init__(self, database: Path, free: Callable[[Path], int] = free_bytes) -> None:
        self.path = database.with_name(f"{database.name}.reserve")
        self.missing = True  # as far as is known
        self._free = free

    def lend(self) -> None:
        """Give the space up if there is hardly any other."""
        if self._free(self.path.parent) < SIZE_BYTES:
            self.path.unlink(missing_ok=True)
            self.missing = True

    def keep(self) -> bool:
        """Take the space if it is not taken yet and there is plenty.

        Return False when so little is free that only deleting may be written.
        """
        if self._is_there():
            self.missing = False
            return True
        free = self._free(self.path.parent)
        if free > _ROOM * SIZE_BYTES:
            self._make()
        return free >= 2 * SIZE_BYTES

    def _is_there(self) -> bool:
        try:
            return self.path.stat().st_size == SIZE_BYTES
        except FileNotFoundError:
            return False

    def _make(self) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SIZE_BYTES)
            self.missing = False
        except OSError:
            # The disk has filled up meanwhile: the next time.
            with contextlib.suppress(OSError):
                self.path.unlink()
        finally:
            os.close(fd)
