"""The file systems on logical volumes: ext4 grows and shrinks, xfs grows.

Source: mke2fs(8), resize2fs(8), tune2fs(8), mkfs.xfs(8), xfs_growfs(8), ext4(5), xfs(5).
"""

from __future__ import annotations

import os
from pathlib import Path

from lxpy.errors import BadRequest, Failed
from lxpy.programs import run
from lxpy.storage.volume import Pool, Usage, Volume

FILESYSTEM = "block.filesystem"
MOUNT_OPTIONS = "block.mount_options"
EXT4, XFS = "ext4", "xfs"
_SMALLEST_BYTES = {EXT4: 8 << 20, XFS: 300 << 20}
# What a guest frees goes back to the thin pool.
_DEFAULT_OPTIONS = "discard"
# A new thin volume reads as zeros. With the seed, an UUID can be changed without a walk.
_MKFS = {
    EXT4: ("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "metadata_csum_seed",
           "-E", "nodiscard,assume_storage_prezeroed=1,lazy_itable_init=1"),
    XFS: ("mkfs.xfs", "-q", "-f", "-K"),
}  # fmt: skip
# Snapshots are taken of frozen file systems: there is nothing in the journal that is needed.
_SEALED = {EXT4: "ro,noload", XFS: "ro,norecovery,nouuid"}
# Images, volumes and snapshots of xfs have the same UUID.
_OWN = {EXT4: "", XFS: "nouuid"}
_REPAIRED = 1


def wanted(pool: Pool, volume: Volume) -> str:
    """Return the file system that a new volume gets."""
    return volume.config.get(FILESYSTEM) or of_images(pool)


def of_images(pool: Pool) -> str:
    """Return the file system that images are unpacked to, and so that of instances."""
    return pool.config.get(f"volume.{FILESYSTEM}") or EXT4


def options(pool: Pool, volume: Volume) -> str:
    """Return how a volume is to be mounted."""
    default = pool.config.get(f"volume.{MOUNT_OPTIONS}") or _DEFAULT_OPTIONS
    return volume.config.get(MOUNT_OPTIONS) or default


def check_size(kind: str, size_bytes: int) -> None:
    """Raise BadRequest for a size that a file system cannot have."""
    least = _SMALLEST_BYTES[kind]
    if size_bytes < least:
        raise BadRequest(
            f"Invalid size: {size_bytes} bytes are fewer than the {least >> 20}MiB that {kind} "
            "needs"
        )


async def make(kind: str, device: Path) -> None:
    """Make a file system on a device of zeros. Raises Failed, MissingTool."""
    await run(*_MKFS[kind], str(device), timeout_s=None)


def mount_options(kind: str, how: str, *, sealed: bool = False) -> str:
    """Return how a file system is mounted; `sealed` is for snapshots and images."""
    own = _SEALED[kind] if sealed else _OWN[kind]
    return ",".join(each for each in (own, "" if sealed else how) if each)


async def grow(kind: str, device: Path, place: Path) -> None:
    """Let a mounted file system fill its device. Raises Failed."""
    if kind == EXT4:
        await run("resize2fs", str(device), timeout_s=None)
    else:
        await run("xfs_growfs", str(place), timeout_s=None)


async def shrink(device: Path, size_bytes: int) -> None:
    """Make an ext4 smaller that is not mounted. Raises Failed when it holds too much."""
    await _check(device)
    await run("resize2fs", str(device), f"{size_bytes >> 10}K", timeout_s=None)


async def renew_identity(kind: str, device: Path) -> None:
    """Give the file system of a copy an UUID of its own. Raises Failed."""
    if kind == EXT4:
        await run("tune2fs", "-U", "random", str(device))


def usage(place: Path) -> Usage:
    """Return what a mounted file system holds and may hold."""
    found = os.statvfs(place)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    return Usage(used, found.f_blocks * found.f_frsize)


async def _check(device: Path) -> None:
    done = await run("e2fsck", "-f", "-p", str(device), check=False, timeout_s=None)
    if done.returncode & ~_REPAIRED:
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        raise Failed(f"The file system on {device} needs repair by hand, with e2fsck: {said}")
