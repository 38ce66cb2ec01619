"""Mounts by descriptor: fsopen, open_tree, mount_setattr, move_mount, pivot_root.

Descriptors instead of paths: a path inside a rootfs belongs to its container. Source: mount(2),
"mount_setattr(2)", "fsopen(2)", "open_tree(2)".
"""

from __future__ import annotations

import os
import struct

from lxpy.kernel.libc import AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, function, syscall

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

RDONLY = 0x1
NOSUID = 0x2
NODEV = 0x4
NOEXEC = 0x8
NOATIME = 0x10
_ATIME = 0x70  # one of several choices: the others have to be cleared
IDMAP = 0x100000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
ST_RDONLY = 1

#: of a file system: an int is passed as a descriptor, None as a flag
Options = dict[str, "str | int | None"]


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount by path: only where the path is ours. Source: mount(2)."""
    function(
        "mount", target, source.encode(), target.encode(), kind.encode() or None, flags,
        data.encode() or None,
    )  # fmt: skip


def unmount(target: str, flags: int = 0) -> None:
    """Source: umount2(2)."""
    function("umount2", target, target.encode(), flags)


def make_private(target: str = "/") -> None:
    """End propagation of everything below `target`, both ways."""
    mount("none", target, "", MS_REC | MS_PRIVATE)


def clone_tree(path: str, *, dir_fd: int = AT_FDCWD, recursive: bool = False) -> int:
    """Return a detached copy (a bind mount in the making) of the mount at `path`."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
    if recursive:
        flags |= AT_RECURSIVE
    if not path:
        flags |= AT_EMPTY_PATH
    return syscall("open_tree", path or f"descriptor {dir_fd}", dir_fd, path.encode(), flags)


def set_attributes(
    fd: int, subject: str, flags: int, *, clear: int = 0, userns_fd: int = -1,
    propagation: int = 0, recursive: bool = False,
) -> None:  # fmt: skip
    """Set mount attributes, and one of MS_PRIVATE, MS_SLAVE ...; with IDMAP, map by `userns_fd`."""
    clear |= _ATIME if flags & _ATIME else 0
    attributes = struct.pack("4Q", flags, clear, propagation, max(userns_fd, 0))
    at = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", subject, fd, b"", at, attributes, len(attributes))


def attach(fd: int, subject: str, *, path: str = "", dir_fd: int = AT_FDCWD) -> None:
    """Attach a detached mount at `path`, or on the descriptor `dir_fd` itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if path else MOVE_MOUNT_T_EMPTY_PATH)
    syscall("move_mount", subject, fd, b"", dir_fd, path.encode(), flags)


def make(kind: str, options: Options, flags: int = 0, source: str = "") -> int:
    """Make a filesystem and return its mount, detached.

    "lowerdir+" may not repeat here, see `configure`.
    """
    fs = start(kind)
    try:
        if source:
            configure(fs, "source", source)
        for key, value in options.items():
            configure(fs, key, value)
        return finish(fs, kind, flags)
    finally:
        os.close(fs)


def start(kind: str) -> int:
    """Open a filesystem context. Source: fsopen(2)."""
    return syscall("fsopen", kind, kind.encode(), 1)


def configure(fs: int, key: str, value: str | int | None) -> None:
    """Set one option of a filesystem context. Source: fsconfig(2)."""
    if value is None:
        syscall("fsconfig", key, fs, FSCONFIG_SET_FLAG, key.encode(), None, 0)
    elif isinstance(value, int):
        syscall("fsconfig", key, fs, FSCONFIG_SET_FD, key.encode(), None, value)
    else:
        subject = f"{key}={value}"
        syscall("fsconfig", subject, fs, FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)


def finish(fs: int, kind: str, flags: int = 0) -> int:
    """Create the superblock and return the detached mount. Source: fsmount(2)."""
    syscall("fsconfig", f"create {kind}", fs, FSCONFIG_CMD_CREATE, None, None, 0)
    return syscall("fsmount", kind, fs, 1, flags)


def is_readonly(fd: int) -> bool:
    """Tell whether the filesystem behind `fd` takes no writes."""
    return bool(os.fstatvfs(fd).f_flag & ST_RDONLY)


def pivot_here() -> None:
    """Make the working directory, a mount point, the root.

    The old root stays mounted below it until it is unmounted through a descriptor taken before.
    Source: pivot_root(2), 'pivot_root(".", ".")'.
    """
    syscall("pivot_root", ".", b".", b".")
