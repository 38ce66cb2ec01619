"""Project quotas: a directory with all below it is held to a size by its file system.

Ext4 (made with `-O project,quota`) and xfs have them, where they are mounted with `prjquota`; the
file system then tells the guest its quota as the size of the disk (statfs). All of this blocks.
Source: quotactl(2), ioctl_xfs_fsgetxattr(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct
from pathlib import Path

from lxpy.errors import Failed
from lxpy.kernel.libc import syscall
from lxpy.storage.volume import Usage

_PROJECT = 2  # PRJQUOTA
_GET_QUOTA, _SET_QUOTA = 0x800007, 0x800008
_DQBLK = struct.Struct("=8QI4x")  # struct if_dqblk: limits in KiB, space in bytes
_VALID_SPACE_LIMITS = 1
_FSXATTR = struct.Struct("=5I8x")  # struct fsxattr: flags, extent size, extents, project, ...
_GET_FSXATTR, _SET_FSXATTR = 0x801C581F, 0x401C5820
_INHERIT = 0x200  # FS_XFLAG_PROJINHERIT
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def are_enforced(path: Path) -> bool:
    """Tell whether project quotas are enforced where `path` is."""
    try:
        _quota(path, _GET_QUOTA, 0, bytearray(_DQBLK.size))
    except OSError:
        return False
    return True


def limit(directory: Path, size_bytes: int | None) -> None:
    """Hold a directory to a size; None lifts the limit. What is in it already counts, too.

    Raises OSError.
    """
    number = os.stat(directory).st_ino & 0x7FFFFFFF  # nobody else has it on this file system
    blocks = 0 if size_bytes is None else -(-size_bytes // 1024)
    quota = bytearray(_DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _VALID_SPACE_LIMITS))
    _quota(directory, _SET_QUOTA, number, quota)
    if _project_of(directory) == number:
        return
    for _, _, names, descriptor in os.fwalk(directory, follow_symlinks=False):
        _assign(descriptor, number)
        for name in names:
            if stat.S_ISREG(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                file = os.open(name, _OPEN, dir_fd=descriptor)
                try:
                    _assign(file, number)
                finally:
                    os.close(file)


def resize(directory: Path, size_bytes: int | None) -> None:
    """Hold a directory to another size; None lifts the limit.

    Raises Failed when it holds more than that, and the old limit stays; OSError.
    """
    known = _project_of(directory) != 0
    if not known:
        limit(directory, size_bytes)  # only now it is counted
    used = usage(directory).used
    if size_bytes is not None and used > size_bytes:
        if not known:
            limit(directory, None)
        raise Failed(
            f"The volume cannot shrink to {size_bytes} bytes: it holds {used}; remove files first"
        )
    if known:
        limit(directory, size_bytes)


def usage(directory: Path) -> Usage:
    """Return what a directory's project takes and may take."""
    quota = bytearray(_DQBLK.size)
    _quota(directory, _GET_QUOTA, _project_of(directory), quota)
    limit, _, space, *_ = _DQBLK.unpack(quota)
    return Usage(space, limit * 1024)


def _quota(path: Path, command: int, number: int, buffer: bytearray) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        raw = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        syscall("quotactl_fd", str(path), descriptor, command << 8 | _PROJECT, number, raw)
    finally:
        os.close(descriptor)


def _project_of(path: Path) -> int:
    descriptor = os.open(path, _OPEN)
    try:
        raw = fcntl.ioctl(descriptor, _GET_FSXATTR, bytes(_FSXATTR.size))
        return int(_FSXATTR.unpack(raw)[3])
    finally:
        os.close(descriptor)


def _assign(descriptor: int, number: int) -> None:
    raw = fcntl.ioctl(descriptor, _GET_FSXATTR, bytes(_FSXATTR.size))
    flags, extent, extents, _, cow = _FSXATTR.unpack(raw)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        flags |= _INHERIT
    fcntl.ioctl(descriptor, _SET_FSXATTR, _FSXATTR.pack(flags, extent, extents, number, cow))
