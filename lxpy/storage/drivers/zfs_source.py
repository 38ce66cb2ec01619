"""Where a zfs pool comes from: a zpool or dataset of the user's, a block device, or a file.

A device, or the file `disks/NAME.img` (sparse, it grows when "size" does), becomes a zpool of the
storage pool's name.
Source: LXD docs, "ZFS - zfs"; zpool-create(8), zpool-import(8), zpool-online(8).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from lxpy.errors import BadRequest, Failed, InvalidConfig, LxpyError
from lxpy.programs import run_to_end
from lxpy.storage import disks
from lxpy.storage.drivers import mounting
from lxpy.storage.drivers.zfs_datasets import POOL_NAME, STRUCTURE, listing, root, zfs
from lxpy.storage.volume import Pool
from lxpy.threads import in_thread
from lxpy.units import is_false, parse_size

EXPORT = "zfs.export"
#: on a dataset that lxpy has made, and removes with the storage pool
_MADE = "lxpy:made"
_PROPERTIES = {
    "mountpoint": "legacy",
    "setuid": "on",
    "exec": "on",
    "devices": "on",
    "acltype": "posixacl",
    "xattr": "sa",
}


class Kind(StrEnum):
    """What a pool lies on."""

    DATASET = "dataset"
    DEVICE = "device"
    FILE = "file"


def fill(name: str, config: dict[str, str], where: Path) -> dict[str, str]:
    """Return a new pool's config with its source and root dataset. Raises InvalidConfig."""
    source = config.get("source", "")
    disks.check_size(config)
    if not source:
        size = config.get("size") or disks.default_size(where)
        config.setdefault(POOL_NAME, name)
        return {**config, "source": str(disks.of_pool(name, where)), "size": size}
    if source.startswith("/"):
        config.setdefault(POOL_NAME, name)
    elif config.setdefault(POOL_NAME, source) != source:
        raise InvalidConfig(
            f'Invalid option "{POOL_NAME}": the source is dataset "{source}" already: leave it out'
        )
    return {**config, "source": config[POOL_NAME]}


def kind(pool: Pool) -> Kind:
    """Return what the pool lies on."""
    if pool.config["source"].startswith("/"):
        return Kind.FILE
    device = pool.config.get("volatile.initial_source", "").startswith("/")
    return Kind.DEVICE if device else Kind.DATASET


async def create(pool: Pool) -> None:
    """Make the zpool or dataset, with its structure. Raises BadRequest, Failed, MissingTool."""
    if kind(pool) is Kind.DATASET:
        made = await _take_dataset(pool)
    else:
        await _make_zpool(pool)
        made = True
    try:
        await _make_structure(pool)
    except BaseException:
        await asyncio.shield(asyncio.ensure_future(_undo(pool, made=made)))
        raise


async def start(pool: Pool) -> None:
    """Import the zpool unless it is, and have its structure; nothing is mounted. Raises Failed."""
    zpool = root(pool).partition("/")[0]
    if (await run_to_end("zpool", "list", "-H", zpool, check=False)).returncode:
        await _import(pool, zpool)
    await _make_structure(pool)
    await in_thread(mounting.make_directories, pool.path)
    await mounting.sweep(pool.path)


async def stop(pool: Pool) -> None:
    """Unmount everything; export a zpool that lxpy has made. Raises Failed."""
    await mounting.unmount_below(pool.path)
    if kind(pool) is not Kind.DATASET and not is_false(pool.config.get(EXPORT)):
        await run_to_end("zpool", "export", root(pool))


async def remove(pool: Pool) -> None:
    """Remove a zpool or dataset that lxpy has made, else what is in it. Raises Failed."""
    if kind(pool) is Kind.DATASET:
        made = (await zfs("get", "-H", "-o", "value", _MADE, root(pool))).stdout.strip() == b"true"
        await _remove_datasets(pool, made=made)
    else:
        await run_to_end("zpool", "destroy", "-f", root(pool))
        if kind(pool) is Kind.FILE:
            await in_thread(disks.remove, Path(pool.config["source"]))
    await in_thread(mounting.remove_directories, pool.path)


async def update(pool: Pool, config: Mapping[str, str]) -> None:
    """Grow the pool's file. Raises BadRequest, Failed."""
    if config.get(POOL_NAME) != pool.config.get(POOL_NAME):
        raise BadRequest(f'"{POOL_NAME}" of storage pool "{pool.name}" cannot be changed')
    old, new = pool.config.get("size", ""), config.get("size", "")
    if old == new:
        return
    if kind(pool) is not Kind.FILE or not new:
        raise BadRequest(f'"size" of storage pool "{pool.name}" can be neither set nor removed')
    disks.check_grown(pool, old, new)
    file = pool.config["source"]
    await in_thread(os.truncate, file, parse_size(new))
    await run_to_end("zpool", "online", "-e", root(pool), file)


def is_lost(pool: Pool) -> bool:
    """Tell whether the pool's file is not there any more."""
    return kind(pool) is Kind.FILE and not Path(pool.config["source"]).exists()


async def _make_zpool(pool: Pool) -> None:
    if "/" in root(pool):
        raise BadRequest(f'Invalid option "{POOL_NAME}": a new zpool has no "/" in its name')
    if kind(pool) is Kind.FILE:
        device = pool.config["source"]
        await in_thread(disks.make, Path(device), parse_size(pool.config["size"]))
    else:
        device = pool.config["volatile.initial_source"]
        if not await in_thread(disks.is_block_device, device):
            raise BadRequest(f'Source "{device}" is no block device')
    properties = [word for key, value in _PROPERTIES.items() for word in ("-O", f"{key}={value}")]
    try:
        # Without -f it refuses a device that is in use or has a file system.
        words = ("-O", "compression=on", *properties, root(pool), device)
        await run_to_end("zpool", "create", *words)
    except BaseException:
        if kind(pool) is Kind.FILE:
            await in_thread(disks.remove, Path(device))
        raise


async def _take_dataset(pool: Pool) -> bool:
    """Have the user's dataset, which must be empty, or make it; tell whether it was made."""
    name = root(pool)
    if (await zfs("list", "-H", name, check=False)).returncode == 0:
        if len(await listing(pool)) > 1:
            raise BadRequest(f'Dataset "{name}" is not empty: give another one, or a new name')
        return False
    if "/" not in name:
        raise BadRequest(f'There is no zpool "{name}": make it, or give a block device')
    await zfs("create", "-o", "mountpoint=legacy", "-o", f"{_MADE}=true", name)
    return True


async def _make_structure(pool: Pool) -> None:
    have = await listing(pool)
    options = [word for key, value in _PROPERTIES.items() for word in ("-o", f"{key}={value}")]
    for each in STRUCTURE:
        if f"{root(pool)}/{each}" not in have:
            await zfs("create", *options, f"{root(pool)}/{each}")


async def _undo(pool: Pool, *, made: bool) -> None:
    """Take back a creation: the error before is the one to be told."""
    try:
        if kind(pool) is Kind.DATASET:
            await _remove_datasets(pool, made=made)
        else:
            await remove(pool)
    except (LxpyError, OSError):
        pass


async def _remove_datasets(pool: Pool, *, made: bool) -> None:
    if made:
        await zfs("destroy", "-r", root(pool))
        return
    have = await listing(pool)
    for each in STRUCTURE:
        if f"{root(pool)}/{each}" in have and "/" not in each:
            await zfs("destroy", "-r", f"{root(pool)}/{each}")


async def _import(pool: Pool, zpool: str) -> None:
    found: tuple[str, ...] = ()
    if kind(pool) is Kind.FILE:
        file = Path(pool.config["source"])
        if not await in_thread(file.is_file):
            raise Failed(
                f'Storage pool "{pool.name}" is not usable: its file {file} is missing: restore it'
            )
        found = ("-d", str(file))
    try:
        await run_to_end("zpool", "import", "-N", *found, zpool)
    except Failed as error:
        raise Failed(
            f'Storage pool "{pool.name}" is not usable: zpool "{zpool}" cannot be imported: {error}'
        ) from error
