"""What is different between two states of a tree. Standard library only: see `lxpy.backups.pack`.

A file that nobody has touched has the same times in both, the time of its last change of status
included, which no guest can set: contents are not read.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from lxpy.backups.tarball import Walk, open_directory

_Entries = dict[bytes, os.stat_result]


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
        here = os.fstat(descriptor)
        before = _entries(old, path)
        below = path + b"/" if path else b""
        now = dict(entries)
        found.gone += [
            below + name
            for name, was in before.items()
            if name not in now or stat.S_IFMT(was.st_mode) != stat.S_IFMT(now[name].st_mode)
        ]
        changed = [
            below + name
            for name, found_now in entries
            if not stat.S_ISDIR(found_now.st_mode) and _differs(before.get(name), found_now)
        ]
        # Unpacking what is in it changes a directory's time: then it is told, too.
        if changed or _differs(_status(old, path), here):
            found.changed.append(path)
        found.changed += changed
    return found


def _entries(root: int, path: bytes) -> _Entries:
    """Return what is in a directory of the old tree; nothing where that is none."""
    try:
        descriptor = open_directory(root, path)
    except OSError:
        return {}
    try:
        return {
            os.fsencode(name): os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            for name in os.listdir(descriptor)
        }
    finally:
        os.close(descriptor)


def _status(root: int, path: bytes) -> os.stat_result | None:
    try:
        descriptor = open_directory(root, path)
    except OSError:
        return None
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _differs(old: os.stat_result | None, new: os.stat_result) -> bool:
    return old is None or _marks(old) != _marks(new)


def _marks(found: os.stat_result) -> tuple[int, ...]:
    return (
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
