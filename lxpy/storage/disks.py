"""The files that pools without a source lie in: `LXPY_DIR/disks/NAME.img`, sparse. This blocks."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lxpy.errors import BadRequest, Failed, InvalidConfig
from lxpy.kernel import btrfs
from lxpy.storage import loops
from lxpy.storage.volume import Pool
from lxpy.units import parse_size

_GIB = 1 << 30
_SHARE, _LEAST_GIB, _MOST_GIB = 5, 5, 30


def of_pool(name: str, root: Path) -> Path:
    """Return the file of a pool of that name; `root` is where such pools are mounted."""
    return root.parent / "disks" / f"{name}.img"


def default_size(root: Path) -> str:
    """Return a fifth of what is free, between 5 and 30 GiB."""
    existing = next(each for each in (root, *root.parents) if each.exists())
    found = os.statvfs(existing)
    free = found.f_bavail * found.f_frsize // _GIB
    return f"{min(max(free // _SHARE, _LEAST_GIB), _MOST_GIB)}GiB"


def check_size(config: Mapping[str, str]) -> None:
    """Raise InvalidConfig for the size of a file that a new pool does not get."""
    if config.get("source") and config.get("size"):
        raise InvalidConfig(
            'Invalid option "size": it is the size of the file that a pool without "source" gets'
        )


def check_grown(pool: Pool, old: str, new: str) -> None:
    """Raise BadRequest for a size below the old one."""
    if parse_size(new) < parse_size(old):
        raise BadRequest(
            f'Storage pool "{pool.name}" cannot shrink from {old} to {new}: make a smaller one '
            "and move what is on it"
        )


def is_block_device(path: str) -> bool:
    """Tell whether there is a block device."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def check_new(file: Path) -> None:
    """Raise BadRequest when a file exists that is to be made."""
    if os.path.lexists(file):
        raise BadRequest(f"{file} exists already: remove it if no other installation uses it")


def make(file: Path, size_bytes: int) -> None:
    """Make a file of holes. Raises BadRequest when it exists."""
    check_new(file)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            btrfs.set_no_copy_on_write(descriptor)
        except OSError:
            pass  # on other file systems: nothing is copied anyway
        os.ftruncate(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def attach(pool: Pool, file: Path) -> str:
    """Have a pool's file as a device, whose path is returned; may be repeated. Raises Failed."""
    if not file.is_file():
        raise Failed(
            f'Storage pool "{pool.name}" is not usable: its file {file} is missing: restore it'
        )
    found = loops.devices(file)
    return found[0] if found else loops.attach(file)


def detach(file: Path) -> None:
    """Let go of a file's devices; may be repeated."""
    if file.exists():
        for device in loops.devices(file):
            loops.detach(device)


def remove(file: Path) -> None:
    """Let go of a file and remove it, and the directory of the last one; may be repeated."""
    detach(file)
    file.unlink(missing_ok=True)
    with suppress(OSError):
        file.parent.rmdir()


def grow(file: Path, size_bytes: int) -> list[str]:
    """Make a file larger, and return its devices, which have been told. Raises OSError."""
    os.truncate(file, size_bytes)
    found = loops.devices(file)
    for device in found:
        loops.set_capacity(device)
    return found
