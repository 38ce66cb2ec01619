"""How a pool on a plain directory holds its volumes to their sizes.

`dir.quota` of the pool says it: "project" where the file system has project quotas, "loop"
elsewhere: then a volume with a size is a file system of its own in a sparse file. That is a btrfs,
as only btrfs grows and shrinks while it is in use. A nested installation has "none".
Source: btrfs-filesystem(8), losetup(8).
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.errors import BadRequest, Failed, InvalidConfig, NotSupported
from lxpy.kernel import namespaces
from lxpy.programs import run
from lxpy.storage import files, projects
from lxpy.storage.volume import Pool, Usage, Volume
from lxpy.threads import in_thread

#: in a directory that is held to a size by a disk of its own: the disk, and where it is mounted
IMAGE = "disk.img"
MOUNT = "disk"
_SMALLEST_BYTES = 16 << 20
#: the kernel gives no btrfs that is in use less than this
SMALLEST_RESIZED_BYTES = 256 << 20
_RESERVE = "reserve"
_RESERVE_BYTES = 4 << 20
# Below this, btrfs needs data and metadata in the same chunks.
_MIXED_BYTES = 8 << 30


async def kind(pool: Pool) -> str:
    """Return how sizes are held in the pool: "project", "loop" or "none"."""
    chosen = pool.config.get("dir.quota", "")
    if chosen:
        return chosen
    if await in_thread(namespaces.is_nested):
        return "none"  # neither quotas nor disks of the host are to be had there
    return "project" if await in_thread(projects.are_enforced, pool.path) else "loop"


async def kind_for(pool: Pool, size_bytes: int | None) -> str:
    """Return how a size is held in the pool, "" for no size. Raises InvalidConfig if it is not."""
    found = "" if size_bytes is None else await kind(pool)
    if found == "none":
        raise InvalidConfig(
            f'Invalid option "size": storage pool "{pool.name}" has dir.quota=none, the volume '
            "would not be held to it: remove the option"
        )
    return found


async def check(pool: Pool) -> None:
    """Raise BadRequest when the pool's config asks for what its file system does not have."""
    wanted = pool.config.get("dir.quota") == "project"
    if wanted and not await in_thread(projects.are_enforced, pool.path):
        raise BadRequest(
            f'Storage pool "{pool.name}": the file system of {pool.path} has no project quotas: '
            'mount it with "prjquota" (ext4: made with -O project,quota), or use dir.quota=loop'
        )


def only_at_rest(pool: Pool, volume: Volume) -> NotSupported:
    """Return the error of a size that a volume cannot get while it is in use."""
    return NotSupported(
        f'"{volume.name}" cannot get that size while it is in use: storage pool "{pool.name}" '
        "moves its files to another disk to set or lift a size, or for one below 256MiB: stop "
        "who uses it first"
    )


def has_disk(directory: Path) -> bool:
    """Tell whether a directory's files are in a disk of their own."""
    return (directory / IMAGE).exists()


def inside(directory: Path) -> Path:
    """Return where the files of a directory are, in a disk of their own or not."""
    return directory / MOUNT if has_disk(directory) else directory


async def make_disk(directory: Path, size_bytes: int) -> None:
    """Make the disk of a directory, not mounted; it has 16 MiB at least, or btrfs has no room.

    Raises Failed, MissingTool; OSError (ENOSPC) where there is no room for it.
    """
    size_bytes = max(size_bytes, _SMALLEST_BYTES)
    image = directory / IMAGE
    await in_thread(_make_file, image, directory / MOUNT, size_bytes)
    mixed = ("--mixed",) if size_bytes < _MIXED_BYTES else ()
    try:
        await run("mkfs.btrfs", "-q", "-m", "single", "-d", "single", *mixed, str(image))
    except Failed as error:
        free = await in_thread(os.statvfs, directory)
        if free.f_bavail * free.f_frsize < _SMALLEST_BYTES:  # it says "Input/output error"
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(image)) from error
        raise


async def mount(directory: Path) -> None:
    """Mount the disk of a directory; may be repeated. Raises Failed."""
    target = directory / MOUNT
    if await in_thread(os.path.ismount, target):
        return
    options = "loop,discard=async,nosuid,nodev"
    await run("mount", "-t", "btrfs", "-o", options, str(directory / IMAGE), str(target))


async def keep_reserve(pool: Pool, directory: Path) -> None:
    """Put some of a volume's size aside, or use that where the guest has taken all the rest.

    An overlay on a full disk takes no writes at all, not even those that would make room: mounting
    it makes a directory.
    """
    held = await in_thread(has_disk, directory)
    if not held and await kind(pool) == "project":
        held = (await in_thread(projects.usage, directory)).total > 0
    if held:
        await in_thread(_keep_reserve, await in_thread(inside, directory))


async def give_reserve_back(directory: Path) -> None:
    """Remove what `keep_reserve` has put aside, unless it will be needed: the volume is full."""
    place = await in_thread(inside, directory)
    if await in_thread(_room, place) > _RESERVE_BYTES:
        await in_thread(lambda: (place / _RESERVE).unlink(missing_ok=True))


def _keep_reserve(place: Path) -> None:
    reserve, room = place / _RESERVE, _room(place)
    if room < _RESERVE_BYTES:
        reserve.unlink(missing_ok=True)
        files.syncfs(place)
    elif room > 4 * _RESERVE_BYTES and not reserve.exists():
        with reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)


def _room(place: Path) -> int:
    """Return how many bytes the file system has for a directory, by its quota if it has one."""
    free = os.statvfs(place)
    return free.f_bavail * free.f_frsize


async def unmount(directory: Path) -> None:
    """Unmount the disk of a directory, and with it its loop device; may be repeated."""
    target = directory / MOUNT
    if await in_thread(os.path.ismount, target):
        await run("umount", str(target))


async def unmount_below(directory: Path) -> None:
    """Unmount the disks that a crash has left below a directory."""
    for target in await in_thread(_mounts_below, directory):
        await run("umount", target)


async def resize_disk(directory: Path, size_bytes: int) -> None:
    """Make a mounted disk larger or smaller. Raises Failed; the old size holds then."""
    image, target = directory / IMAGE, str(directory / MOUNT)
    old = (await in_thread(image.stat)).st_size
    if size_bytes >= old:
        await in_thread(os.truncate, image, size_bytes)
        await _tell_loop(image)
        await run("btrfs", "filesystem", "resize", "max", target)
        return
    try:
        await run("btrfs", "filesystem", "resize", str(size_bytes), target, timeout_s=None)
    except Failed as error:
        raise Failed(
            f"The volume cannot shrink to {size_bytes} bytes: it holds too much: {error}"
        ) from error
    await in_thread(os.truncate, image, size_bytes)
    await _tell_loop(image)


def can_resize(directory: Path, size_bytes: int) -> bool:
    """Tell whether a disk can get that size while it is mounted."""
    return size_bytes >= SMALLEST_RESIZED_BYTES or size_bytes == (directory / IMAGE).stat().st_size


@asynccontextmanager
async def mounted(directory: Path, *, already: bool = False) -> AsyncIterator[Path]:
    """Have a directory's files at hand for the length of a block, which gets their place."""
    if already or not await in_thread(has_disk, directory):
        yield await in_thread(inside, directory)
        return
    await mount(directory)
    try:
        yield directory / MOUNT
    finally:
        await unmount(directory)


def usage(directory: Path) -> Usage:
    """Return what a mounted disk holds and may hold."""
    found = os.statvfs(directory / MOUNT)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    return Usage(used, found.f_blocks * found.f_frsize)


def taken(directory: Path) -> Usage:
    """Return what a disk takes of the file system that it lies on, and may take."""
    found = (directory / IMAGE).stat()
    return Usage(found.st_blocks * 512, found.st_size)


async def _tell_loop(image: Path) -> None:
    found = await run("losetup", "--noheadings", "--output=NAME", "--associated", str(image))
    for device in found.stdout.decode().split():
        await run("losetup", "--set-capacity", device)


def _mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    targets = [line.split(" ")[4] for line in lines]
    return [each for each in targets if each.startswith(f"{directory}/")]


def _make_file(image: Path, target: Path, size_bytes: int) -> None:
    os.mkdir(target, 0o700)
    descriptor = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size_bytes)
    finally:
        os.close(descriptor)
