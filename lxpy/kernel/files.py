"""Opening files below a directory that somebody else controls. Source: openat2(2), statfs(2)."""

from __future__ import annotations

import ctypes
import os
import struct

from lxpy.kernel.libc import function, syscall

NO_XDEV = 0x01
NO_MAGICLINKS = 0x02
NO_SYMLINKS = 0x04
BENEATH = 0x08
IN_ROOT = 0x10
#: Links lead nowhere outside, absolute ones start at the directory, /proc's magic links fail.
CONFINED = IN_ROOT | NO_MAGICLINKS


def open_within(root: int, path: str, flags: int, mode: int = 0, *, resolve: int = CONFINED) -> int:
    """Open `path` as if the directory `root` were "/".

    Raises OSError. EAGAIN, which the kernel answers to a rename race with "..", is tried again.
    """
    how = struct.pack("3Q", flags | os.O_CLOEXEC, mode, resolve)
    raw = os.fsencode(path)
    for attempt in range(8):
        try:
            return syscall("openat2", path, root, raw, how, len(how))
        except BlockingIOError:
            if attempt == 7:
                raise
    raise AssertionError("unreachable")


def open_by_handle(mount: int, handle: bytes, flags: int) -> int:
    """Open what a handle (struct file_handle) names on a mounted file system.

    Raises OSError, ESTALE when it is not there. Source: open_by_handle_at(2).
    """
    buffer = ctypes.create_string_buffer(handle, len(handle))
    return function("open_by_handle_at", "handle", mount, buffer, flags | os.O_CLOEXEC)


def space(path: str) -> tuple[int, int, int, int]:
    """Return the magic number of the file system at a path, and in bytes: size, free, available.

    Available is what those may take who are not root. Raises OSError.
    """
    buffer = ctypes.create_string_buffer(256)
    function("statfs", path, os.fsencode(path), buffer)
    magic, block, size, free, available = struct.unpack_from("=qqQQQ", buffer)
    return magic & 0xFFFFFFFF, size * block, free * block, available * block


def file_system(fd: int) -> int:
    """Return the magic number of the file system that `fd` lies on. Raises OSError."""
    buffer = ctypes.create_string_buffer(256)
    function("fstatfs", f"descriptor {fd}", fd, buffer)
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF
