"""Watches (inotify) in a dump: what CRIU knows by a handle alone gets its path.

CRIU finds a link that is watched by comparing the device of its file system with what stat(2)
tells: on btrfs, where each subvolume has a device of its own, it finds none. A handle does for the
same subvolume only, which a restored snapshot is not. Source: criu's images/fsnotify.proto,
open_by_handle_at(2).
"""

from __future__ import annotations

import os
import re
import struct

from lxpy.kernel import files
from lxpy.runtime.criu_images import Message, read_records, write_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BTRFS = 0x9123683E
# message: field
_FILE_WATCHER = 13
_WATCHER_WATCHES = 5
_WATCH_INODE, _WATCH_DEVICE, _WATCH_HANDLE = 2, 5, 7
_HANDLE_SIZE, _HANDLE_TYPE, _HANDLE_WORDS, _HANDLE_PATH, _HANDLE_MOUNT = 1, 2, 3, 4, 5
_ESCAPED = re.compile(r"\\([0-7]{3})")  # as mountinfo writes blanks


def are_found(pid: int) -> bool:
    """Tell whether CRIU finds links on the root file system of a process."""
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return files.file_system(root) != BTRFS
    finally:
        os.close(root)


def give_paths(directory: str, pid: int) -> None:
    """Give the watches of a finished dump their paths; `pid` is the system's init, alive.

    Raises FileNotFoundError for what is watched and has no name any more; OSError.
    """
    path = f"{directory}/files.img"
    head, records = read_records(path)
    changed = False
    for index, raw in enumerate(records):
        file = Message(raw)
        watcher = file.message(_FILE_WATCHER)
        if watcher is None or all(map(_has_path, watcher.messages(_WATCHER_WATCHES))):
            continue
        watcher.each(_WATCHER_WATCHES, lambda watch: _give_path(watch, pid))
        file.set(_FILE_WATCHER, watcher.encode())
        records[index], changed = file.encode(), True
    if changed:
        write_records(path, head, records)


def _has_path(watch: Message) -> bool:
    handle = watch.message(_WATCH_HANDLE)
    return handle is None or bool(handle.text(_HANDLE_PATH))


def _give_path(watch: Message, pid: int) -> None:
    handle = watch.message(_WATCH_HANDLE)
    if handle is None or _has_path(watch):
        return
    mount, path = _find(_raw(handle), watch.number(_WATCH_DEVICE), watch.number(_WATCH_INODE), pid)
    handle.fields += [(_HANDLE_PATH, 2, os.fsencode(path)), (_HANDLE_MOUNT, 0, mount)]
    watch.set(_WATCH_HANDLE, handle.encode())


def _raw(handle: Message) -> bytes:
    """Return a handle as the kernel takes it (struct file_handle)."""
    size = handle.number(_HANDLE_SIZE)
    words = [value for number, _, value in handle.fields if number == _HANDLE_WORDS]
    content = b"".join(struct.pack("<Q", word) for word in words)[:size]
    return struct.pack("<Ii", size, handle.number(_HANDLE_TYPE)) + content


def _find(handle: bytes, device: int, inode: int, pid: int) -> tuple[int, str]:
    """Return the mount that shows what a handle names, and its path there."""
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for mount, place in _mounts(pid, device):
            path = _path(root, place, handle)
            if path and _inode(root, path) == inode:
                return mount, path
    finally:
        os.close(root)
    raise FileNotFoundError(2, f"a process watches inode {inode}, which has no name any more")


def _mounts(pid: int, device: int) -> Iterator[tuple[int, str]]:
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            id, _, numbers, _, place = line.split(" ")[:5]
            major, minor = map(int, numbers.split(":"))
            if major << 20 | minor == device:
                yield int(id), _ESCAPED.sub(lambda match: chr(int(match[1], 8)), place)


def _path(root: int, place: str, handle: bytes) -> str:
    """Return the path of what a handle names on a mount, "" when it is not there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
    try:
        mount = files.open_within(root, place, flags)
    except OSError:
        return ""  # a file, or covered by another mount
    try:
        found = files.open_by_handle(mount, handle, os.O_PATH)
    except OSError:
        return ""
    finally:
        os.close(mount)
    try:
        return os.readlink(f"/proc/self/fd/{found}")
    finally:
        os.close(found)


def _inode(root: int, path: str) -> int:
    """Return the inode at a path, 0 for none; a link is not followed."""
    above, _, name = path.rpartition("/")
    try:
        directory = files.open_within(root, above or "/", os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return 0
    try:
        return os.stat(name or ".", dir_fd=directory, follow_symlinks=False).st_ino
    except OSError:
        return 0
    finally:
        os.close(directory)
