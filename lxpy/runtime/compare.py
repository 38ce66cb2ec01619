"""The program that compares two trees of files: one short, single-threaded process.

It is not part of the daemon's process, so that a million files never delay a request. Runs on
Python's own library alone. Its arguments are two descriptors of directories and the number of
changes to tell; it writes one JSON object, `{"error": TEXT}` when it fails. Contents are not read:
a file is the same when its size and time are. Of directories, only what `chmod` and `chown` set
counts: what is new in them is told of by itself.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from lxpy.kernel.libc import prctl

_PR_SET_PDEATHSIG = 1
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char-device",
    stat.S_IFBLK: "block-device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
#: entries that go away while they are looked at: the instance may run
_GONE = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True, slots=True)
class Change:
    """A path that differs: `what` is "added", "removed" or "modified", `how` says by what."""

    path: str
    what: str
    type: str
    how: tuple[str, ...] = ()


@dataclass(slots=True)
class _Pair:
    """A directory on both sides, or one of them, with the names that are still to be looked at."""

    path: str
    old: int | None
    new: int | None
    names: list[str]

    def close(self) -> None:
        for fd in (self.old, self.new):
            if fd is not None:
                os.close(fd)


def compare(old: int, new: int) -> Iterator[Change]:
    """Yield what is different in the tree at descriptor `new`, sorted in each directory.

    Raises OSError.
    """
    # Descriptors of mounts cannot be read themselves.
    pairs = [_pair("", *(os.open(".", _DIRECTORY, dir_fd=fd) for fd in (old, new)))]
    try:
        while pairs:
            top = pairs[-1]
            if not top.names:
                pairs.pop().close()
                continue
            name = top.names.pop()
            before, after = _look(top.old, name), _look(top.new, name)
            path = f"{top.path}/{name}"
            yield from _changes(top, name, before, after)
            below = _enter(path, name, top, before, after)
            if below is not None:
                pairs.append(below)
    finally:
        for pair in pairs:
            pair.close()


def _pair(path: str, old: int | None, new: int | None) -> _Pair:
    names = {name for fd in (old, new) if fd is not None for name in os.listdir(fd)}
    return _Pair(path, old, new, sorted(names, key=os.fsencode, reverse=True))


def _look(directory: int | None, name: str) -> os.stat_result | None:
    if directory is None:
        return None
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except _GONE:
        return None


def _enter(
    path: str,
    name: str,
    top: _Pair,
    before: os.stat_result | None,
    after: os.stat_result | None,
) -> _Pair | None:
    """Return the pair of what is a directory on either side."""
    old, new = _open(top.old, name, before), _open(top.new, name, after)
    return None if old is None and new is None else _pair(path, old, new)


def _open(directory: int | None, name: str, found: os.stat_result | None) -> int | None:
    if directory is None or found is None or not stat.S_ISDIR(found.st_mode):
        return None
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except _GONE:
        return None


def _changes(
    top: _Pair, name: str, before: os.stat_result | None, after: os.stat_result | None
) -> Iterator[Change]:
    path = f"{top.path}/{name}"
    if before is None and after is not None:
        yield Change(path, "added", _type(after))
    elif before is not None and after is None:
        yield Change(path, "removed", _type(before))
    elif before is not None and after is not None:
        how = tuple(_differences(top, name, before, after))
        if how:
            yield Change(path, "modified", _type(after), how)


def _differences(
    top: _Pair, name: str, before: os.stat_result, after: os.stat_result
) -> Iterator[str]:
    kind = stat.S_IFMT(after.st_mode)
    if stat.S_IFMT(before.st_mode) != kind:
        yield "type"
        return
    if before.st_mode != after.st_mode:
        yield "mode"
    if (before.st_uid, before.st_gid) != (after.st_uid, after.st_gid):
        yield "owner"
    if kind == stat.S_IFREG:
        if before.st_size != after.st_size:
            yield "size"
        if before.st_mtime_ns != after.st_mtime_ns:
            yield "mtime"
    elif kind == stat.S_IFLNK:
        if _target(top.old, name) != _target(top.new, name):
            yield "target"
    elif kind in (stat.S_IFCHR, stat.S_IFBLK) and before.st_rdev != after.st_rdev:
        yield "device"


def _target(directory: int | None, name: str) -> str:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return ""  # it has become something else meanwhile


def _type(found: os.stat_result) -> str:
    return _TYPES.get(stat.S_IFMT(found.st_mode), "unknown")


def shown(path: str) -> str:
    """Return a path that no terminal takes for more than text: the rest is written as \\xNN."""
    if path.isprintable() and "\\" not in path:
        return path
    parts: list[str] = []
    for letter in path:
        if letter == "\\":
            parts.append("\\\\")
        elif letter.isprintable():
            parts.append(letter)
        else:
            parts += (f"\\x{byte:02x}" for byte in os.fsencode(letter))
    return "".join(parts)


def report(old: int, new: int, limit: int) -> dict[str, object]:
    """Return all changes counted, and the first of them. Raises OSError."""
    counts = {"added": 0, "removed": 0, "modified": 0}
    changes: list[dict[str, object]] = []
    for each in compare(old, new):
        counts[each.what] += 1
        if len(changes) < limit:
            changes.append({"path": shown(each.path), "what": each.what, "type": each.type,
                            "how": list(each.how)})  # fmt: skip
    return {**counts, "changes": changes, "truncated": sum(counts.values()) > len(changes)}


def main() -> None:
    """Compare what the arguments say."""
    prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGKILL)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two for each level of the trees
    old, new, limit = map(int, sys.argv[1:4])
    try:
        found = report(old, new, limit)
    except OSError as error:
        found = {"error": f"{error.strerror} ({shown(str(error.filename or ''))})"}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
