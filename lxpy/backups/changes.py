"""What is different between two states of a tree. Standard library only: see `lxpy.backups.pack`.

A file that nobody has touched has the same times in both, the time of its last change of status
included, which no guest can set. Where a storage driver has copied it, that time tells nothing:
then attributes and contents do.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lxpy.backups.tarball import Walk, attributes_of, open_directory

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 1 << 18


@dataclass(slots=True)
class Changes:
    """Paths: `gone` from the old tree; `changed` are new or different in the new one.

    Directories come before what is in them; below a directory that is gone nothing is listed.
    """

    gone: list[bytes] = field(default_factory=list)
    changed: list[bytes] = field(default_factory=list)


def compare(old: int, new: int) -> Changes:
    """Compare two trees, given as descriptors of their tops. Raises OSError."""
    found = Changes()
    for path, descriptor, entries in Walk(new):
        with _opened(old, path) as before:
            _compare(found, path, _Pair(before, descriptor), dict(entries))
    return found


@dataclass(frozen=True, slots=True)
class _Pair:
    """One directory in both trees; there may be none in the old one."""

    old: int | None
    new: int

    def entries(self) -> dict[bytes, os.stat_result]:
        """Return what is in the old one."""
        if self.old is None:
            return {}
        return {
            os.fsencode(name): os.stat(name, dir_fd=self.old, follow_symlinks=False)
            for name in os.listdir(self.old)
        }

    def is_same(self) -> bool:
        """Tell whether the directory itself is as it was."""
        if self.old is None:
            return False
        was, now = os.fstat(self.old), os.fstat(self.new)
        if _marks(was) == _marks(now) and was.st_ctime_ns == now.st_ctime_ns:
            return True
        return _marks(was) == _marks(now) and attributes_of(self.old) == attributes_of(self.new)

    def has_same(self, name: bytes, was: os.stat_result, now: os.stat_result) -> bool:
        """Tell whether an entry other than a directory is as it was."""
        if _marks(was) != _marks(now):
            return False
        if was.st_ctime_ns == now.st_ctime_ns:
            return True
        if stat.S_ISLNK(now.st_mode):
            return os.readlink(name, dir_fd=self.old) == os.readlink(name, dir_fd=self.new)
        # Of several names it could not be told which belong together.
        return stat.S_ISREG(now.st_mode) and now.st_nlink == 1 and self._has_same_content(name)

    def _has_same_content(self, name: bytes) -> bool:
        first = os.open(name, _READ, dir_fd=self.old)
        try:
            second = os.open(name, _READ, dir_fd=self.new)
            try:
                return attributes_of(first) == attributes_of(second) and _equal(first, second)
            finally:
                os.close(second)
        finally:
            os.close(first)


def _compare(found: Changes, path: bytes, pair: _Pair, now: dict[bytes, os.stat_result]) -> None:
    """Add what is different in one directory."""
    before = pair.entries()
    below = path + b"/" if path else b""
    found.gone += [
        below + name
        for name, was in before.items()
        if name not in now or stat.S_IFMT(was.st_mode) != stat.S_IFMT(now[name].st_mode)
    ]
    changed = [
        below + name
        for name, status in now.items()
        if not stat.S_ISDIR(status.st_mode)
        and (name not in before or not pair.has_same(name, before[name], status))
    ]
    # Unpacking what is in it changes a directory's time: then it is told, too.
    if changed or not pair.is_same():
        found.changed.append(path)
    found.changed += changed


@contextmanager
def _opened(root: int, path: bytes) -> Iterator[int | None]:
    """Open a directory of the old tree for the length of a block; None where there is none."""
    try:
        descriptor = open_directory(root, path)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _equal(first: int, second: int) -> bool:
    while True:
        one, other = os.read(first, _BLOCK_BYTES), os.read(second, _BLOCK_BYTES)
        if one != other:
            return False
        if not one:
            return True


def _marks(found: os.stat_result) -> tuple[int, ...]:
    # A directory's size and number of links say nothing of what is in it.
    sizes = () if stat.S_ISDIR(found.st_mode) else (found.st_size, found.st_nlink)
    return (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, *sizes)
