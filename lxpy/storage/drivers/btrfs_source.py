"""Where a btrfs pool comes from: a directory, a block device, or a file of its own.

A device or file is made a btrfs and mounted at `storage-pools/NAME`. A device is known by the UUID
its file system gets, as its name may be another after the next boot. The file is
`disks/NAME.img`, sparse, and grows when "size" does.
Source: LXD docs, "Btrfs - btrfs"; mkfs.btrfs(8), mount(8).
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path

import structlog

from lxpy.errors import BadRequest, Failed, InvalidConfig
from lxpy.kernel import btrfs
from lxpy.programs import run
from lxpy.storage import disks, loops
from lxpy.storage.drivers import layout
from lxpy.storage.drivers.btrfs_subvolumes import opened
from lxpy.storage.drivers.btrfs_volumes import has_areas, is_empty
from lxpy.storage.volume import Pool
from lxpy.threads import in_thread
from lxpy.units import parse_size

MOUNT_OPTIONS = "btrfs.mount_options"
# Guests may remove the subvolumes they have made; the file of a pool gives back what they free.
_DEFAULT_OPTIONS = "user_subvol_rm_allowed,discard=async"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# mkfs.btrfs refuses less than about 110 MiB unless data and metadata are mixed.
_MIXED_BYTES = 1 << 30
_WIPES = 50

_log = structlog.get_logger()


class Kind(StrEnum):
    """What a pool lies on."""

    DIRECTORY = "directory"
    DEVICE = "device"
    FILE = "file"


def fill(name: str, config: dict[str, str], root: Path) -> dict[str, str]:
    """Return a new pool's config with its source, and with the size of its file.

    Raises InvalidConfig.
    """
    source = config.get("source", "")
    if source and config.get("size"):
        raise InvalidConfig(
            'Invalid option "size": it is the size of the file that a pool without "source" gets'
        )
    if source.startswith("/dev/"):
        return {**config, "source": str(uuid.uuid4())}
    if source:
        return config
    size = config.get("size") or disks.default_size(root)
    return {**config, "source": str(disks.of_pool(name, root)), "size": size}


def mount_point(name: str, config: Mapping[str, str], root: Path) -> Path:
    """Return where the pool's files are: at its own place unless its source is a directory."""
    source = config["source"]
    own = source == str(disks.of_pool(name, root)) or _UUID.fullmatch(source)
    return root / name if own else Path(source)


def kind(pool: Pool) -> Kind:
    """Return what the pool lies on."""
    if str(pool.path) == pool.config["source"]:
        return Kind.DIRECTORY
    return Kind.DEVICE if _UUID.fullmatch(pool.config["source"]) else Kind.FILE


async def create(pool: Pool) -> None:
    """Make the pool's file system, mounted. Raises BadRequest, Failed, MissingTool, OSError."""
    match kind(pool):
        case Kind.DIRECTORY:
            await in_thread(_check_directory, pool)
        case Kind.DEVICE:
            await _create_on_device(pool, pool.config.get("volatile.initial_source", ""))
        case Kind.FILE:
            await _create_in_file(pool, Path(pool.config["source"]))


async def mount(pool: Pool) -> None:
    """Have the pool's files at their place; may be repeated. Raises Failed."""
    if kind(pool) is Kind.DIRECTORY or await in_thread(os.path.ismount, pool.path):
        return
    if kind(pool) is Kind.FILE:
        await in_thread(_check_file, pool)
        await _mount(pool, pool.config["source"])
    else:
        await _mount(pool, f"UUID={pool.config['source']}")


async def unmount(pool: Pool) -> None:
    """Take the pool's files away, and with them a loop device; may be repeated. Raises Failed."""
    if kind(pool) is not Kind.DIRECTORY and await in_thread(os.path.ismount, pool.path):
        await run("umount", str(pool.path), timeout_s=None)


async def remove(pool: Pool) -> None:
    """Unmount the pool and remove its file, or free its device for another use. Raises Failed."""
    if kind(pool) is Kind.DIRECTORY:
        return
    await unmount(pool)
    if kind(pool) is Kind.FILE:
        await in_thread(_remove_files, Path(pool.config["source"]))
    else:
        await _wipe(pool)
    await in_thread(_remove_mount_point, pool.path)


async def update(pool: Pool, config: Mapping[str, str]) -> None:
    """Apply another size and other mount options. Raises BadRequest, Failed."""
    size = _grown(pool, config)
    options = _options(config)
    if options != _options(pool.config) and kind(pool) is not Kind.DIRECTORY:
        try:
            await run("mount", "-o", f"remount,{options}", str(pool.path))
        except Failed as error:
            raise BadRequest(f'Invalid option "{MOUNT_OPTIONS}" ({options}): {error}') from error
    if size is not None:
        await _grow(pool, Path(pool.config["source"]), size)


async def is_lost(pool: Pool) -> bool:
    """Tell whether nothing of the pool is there any more, such as after half a deletion."""
    if kind(pool) is Kind.DIRECTORY:
        return not await in_thread(has_areas, pool.path)
    if await in_thread(os.path.ismount, pool.path):
        return False
    if kind(pool) is Kind.FILE:
        return not await in_thread(Path(pool.config["source"]).exists)
    return not await _device(pool)


async def _create_on_device(pool: Pool, device: str) -> None:
    await in_thread(_check_device, device)
    try:
        await _make(pool, device, "--uuid", pool.config["source"])
    except BadRequest:
        if not await _is_leftover(pool, device):
            raise
        await _make(pool, device, "--uuid", pool.config["source"], "--force")
    try:
        await mount(pool)
    except BaseException:
        await _wipe(pool)
        await in_thread(_remove_mount_point, pool.path)
        raise


async def _create_in_file(pool: Pool, file: Path) -> None:
    if await in_thread(file.exists) and not await _is_leftover(pool, str(file)):
        raise BadRequest(f"{file} exists already: remove it if no other installation uses it")
    new = file.with_name(f"{layout.NEW}{file.name}")
    try:
        await in_thread(_make_file, new, parse_size(pool.config["size"]))
        await _make(pool, str(new))
        await in_thread(os.replace, new, file)
        await mount(pool)
    except BaseException:
        await in_thread(_remove_files, new, file)
        await in_thread(_remove_mount_point, pool.path)
        raise


async def _is_leftover(pool: Pool, source: str) -> bool:
    """Tell whether a file system is what an interrupted creation of the pool has left.

    It bears the pool's name and has nothing in it; it is not mounted afterwards.
    """
    found = await run("blkid", "-p", "-o", "value", "-s", "LABEL", source, check=False)
    if found.stdout.decode().strip() != pool.name:
        return False
    if not await in_thread(os.path.ismount, pool.path):
        await _mount(pool, source)
    if not await in_thread(is_empty, pool.path):
        return False
    await unmount(pool)
    return True


async def _mount(pool: Pool, source: str) -> None:
    """Mount a device, or a file, which gets one."""
    await in_thread(_make_mount_point, pool.path)
    with ExitStack() as stack:
        device = source
        if kind(pool) is Kind.FILE:
            device = await in_thread(stack.enter_context, loops.attached(Path(source)))
        options = _options(pool.config)
        words = ("mount", "-t", "btrfs", "-o", options, device, str(pool.path))
        await run(*words, timeout_s=None)


async def _make(pool: Pool, device: str, *options: str) -> None:
    """Make a file system. Raises BadRequest when there is one already."""
    size = pool.config.get("size")
    mixed = ("--mixed",) if size and parse_size(size) < _MIXED_BYTES else ()
    words = ("mkfs.btrfs", "-q", "--label", pool.name, *mixed, *options, device)
    try:
        await run(*words, timeout_s=None)
    except Failed as error:
        if "overwrite" not in str(error):
            raise
        raise BadRequest(
            f'"{device}" has a file system or partitions already: give another device, or '
            f'remove them with "wipefs -a {device}"'
        ) from error


async def _wipe(pool: Pool) -> None:
    """Remove what tells a device's file system, which is empty, or say that it stays there.

    An instance that starts meanwhile has the file system mounted, too, for a moment.
    """
    device = await _device(pool)
    for attempt in range(_WIPES if device else 0):
        wiped = await run("wipefs", "-q", "-a", "-t", "btrfs", device, check=False)
        if wiped.returncode == 0:
            return
        await asyncio.sleep(0.1 if attempt < _WIPES - 1 else 0)
    if device:
        _log.warning("device not wiped", device=device, remedy=f"wipefs -a {device}")


async def _device(pool: Pool) -> str:
    """Return the device that has the pool's file system, "" for none."""
    found = await run("blkid", "-U", pool.config["source"], check=False)
    return found.stdout.decode().strip()


def _grown(pool: Pool, config: Mapping[str, str]) -> int | None:
    """Return the larger size of a pool's file, None for the same. Raises BadRequest."""
    old, new = pool.config.get("size", ""), config.get("size", "")
    if kind(pool) is not Kind.FILE:
        if new:
            raise BadRequest(
                f'Invalid option "size": storage pool "{pool.name}" has no file of its own; its '
                "size is that of its source"
            )
        return None
    if not new:
        raise BadRequest(f'"size" of storage pool "{pool.name}" cannot be removed')
    if parse_size(new) < parse_size(old):
        raise BadRequest(
            f'Storage pool "{pool.name}" cannot shrink from {old} to {new}: make a smaller one '
            "and move what is on it"
        )
    return parse_size(new) if parse_size(new) > parse_size(old) else None


async def _grow(pool: Pool, file: Path, size_bytes: int) -> None:
    before = (await in_thread(file.stat)).st_size
    try:
        await in_thread(disks.grow, file, size_bytes)
        await run("btrfs", "filesystem", "resize", "max", str(pool.path), timeout_s=None)
    except BaseException:
        # The file system had its old size all the time.
        await in_thread(disks.grow, file, before)
        raise


def _options(config: Mapping[str, str]) -> str:
    return config.get(MOUNT_OPTIONS) or _DEFAULT_OPTIONS


def _check_directory(pool: Pool) -> None:
    source = pool.path
    try:
        with opened(source) as descriptor:
            btrfs.filesystem_id(descriptor)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadRequest(
            f'Source path "{source}" is no directory: make it, give a block device, or leave '
            '"source" out for a file'
        ) from error
    except OSError as error:
        raise BadRequest(
            f'Source path "{source}" is not on a btrfs file system: leave "source" out, and the '
            "pool gets a file of its own"
        ) from error


def _check_device(device: str) -> None:
    try:
        found = os.stat(device).st_mode
    except OSError:
        found = 0
    if not stat.S_ISBLK(found):
        raise BadRequest(f'Source "{device}" is no block device')


def _make_file(file: Path, size_bytes: int) -> None:
    file.unlink(missing_ok=True)  # of an interrupted attempt
    disks.make(file, size_bytes)


def _check_file(pool: Pool) -> None:
    file = Path(pool.config["source"])
    if not file.is_file():
        raise Failed(
            f'Storage pool "{pool.name}" is not usable: its file {file} is missing: restore it'
        )


def _remove_files(*files: Path) -> None:
    for file in files:
        disks.remove(file)


def _make_mount_point(path: Path) -> None:
    path.mkdir(mode=0o711, parents=True, exist_ok=True)


def _remove_mount_point(path: Path) -> None:
    try:
        path.rmdir()
    except FileNotFoundError:
        pass
