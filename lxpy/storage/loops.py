"""Loop devices: a file as a disk. All of this blocks and needs root.

A device that `attached` made goes by itself when nobody has it open or mounted any more, whatever
becomes of the daemon. Source: loop(4), linux/loop.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONTROL = "/dev/loop-control"
_MAJOR = 7
_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_CLEAR = 0x4C01
_SET_CAPACITY = 0x4C07
_READ_ONLY, _AUTOCLEAR, _DIRECT_IO = 1, 4, 16
# struct loop_config: descriptor, block size, loop_info64, reserved
_CONFIG = struct.Struct("=II 5Q4I64s64s32s2Q 64x")
_ATTEMPTS = 32


@contextmanager
def attached(file: Path, *, read_only: bool = False) -> Iterator[str]:
    """Have a file as a block device, for the block and for what it mounts; get the device's path.

    Raises OSError.
    """
    device, descriptor = _attach(file, _AUTOCLEAR, read_only=read_only)
    try:
        yield device
    finally:
        os.close(descriptor)


def attach(file: Path, *, read_only: bool = False) -> str:
    """Make a file a block device until `detach`, and return the device's path. Raises OSError."""
    device, descriptor = _attach(file, 0, read_only=read_only)
    os.close(descriptor)
    return device


def detach(device: str) -> None:
    """Let go of a device's file, at once or when its last user closes it; may be repeated."""
    try:
        with _opened(device) as descriptor:
            fcntl.ioctl(descriptor, _CLEAR)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENOENT):
            raise


def set_capacity(device: str) -> None:
    """Tell a device that its file has another size. Raises OSError."""
    with _opened(device) as descriptor:
        fcntl.ioctl(descriptor, _SET_CAPACITY)


def devices(file: Path) -> list[str]:
    """Return the devices that a file is attached to."""
    wanted = os.stat(file)
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = os.stat(entry.read_text().rstrip("\n"))
        except OSError:
            continue  # detached meanwhile, or its file was deleted
        if os.path.samestat(wanted, backing):
            found.append(f"/dev/{entry.parts[3]}")
    return sorted(found)


def _attach(file: Path, flags: int, *, read_only: bool) -> tuple[str, int]:
    """Return a device's path and a descriptor of it."""
    mode = os.O_RDONLY if read_only else os.O_RDWR
    flags |= _READ_ONLY if read_only else 0
    backing = os.open(file, mode | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            device, descriptor = _free()
            try:
                _configure(descriptor, backing, str(file), flags)
            except BaseException as error:
                os.close(descriptor)
                if isinstance(error, OSError) and error.errno == errno.EBUSY:
                    continue  # somebody else was quicker
                raise
            return device, descriptor
        raise OSError(errno.EBUSY, f"loop({file}): no free device after {_ATTEMPTS} attempts")
    finally:
        os.close(backing)


def _configure(descriptor: int, backing: int, name: str, flags: int) -> None:
    """Attach a file; where its file system can, without a second page cache in between."""
    flags |= _DIRECT_IO
    shown = os.fsencode(name)[:63]
    config = _CONFIG.pack(backing, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags, shown, b"", b"", 0, 0)
    fcntl.ioctl(descriptor, _CONFIGURE, config)


def _free() -> tuple[str, int]:
    """Return the path of a device that nobody uses, and a descriptor of it."""
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, _GET_FREE)
    finally:
        os.close(control)
    device = f"/dev/loop{number}"
    if not os.path.exists(device):  # a /dev that is no devtmpfs
        try:
            os.mknod(device, 0o660 | 0o060000, os.makedev(_MAJOR, number))
        except FileExistsError:
            pass
    return device, os.open(device, os.O_RDWR | os.O_CLOEXEC)


@contextmanager
def _opened(device: str) -> Iterator[int]:
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
