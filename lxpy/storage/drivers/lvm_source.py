"""Where an lvm pool comes from: an existing volume group, a block device, or a file of its own.

A device, or the file `disks/NAME.img` (sparse, it grows when "size" does), becomes a volume group
of the pool's name. In it is one thin pool, over all of its free space.
Source: LXD docs, "LVM - lvm"; vgcreate(8), lvmthin(7).
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from typing import ParamSpec

from lxpy.errors import BadRequest, Failed, InvalidConfig, LxpyError, NotSupported
from lxpy.programs import run
from lxpy.storage import disks, loops
from lxpy.storage.drivers import layout, lvm_group, mounting
from lxpy.storage.drivers.lvm_group import THIN_POOL_NAME, VG_NAME, Group, lvm
from lxpy.storage.volume import Pool
from lxpy.threads import in_thread, in_thread_or_undo
from lxpy.units import is_true, parse_size

_P = ParamSpec("_P")
# On a volume group that is being made: what a crash leaves of it can be removed.
_UNFINISHED = f"{lvm_group.POOL_TAG}.unfinished"
METADATA_SIZE = "lvm.thinpool_metadata_size"
FORCE_REUSE = "lvm.vg.force_reuse"
USE_THIN_POOL = "lvm.use_thinpool"
FIXED = (VG_NAME, THIN_POOL_NAME, METADATA_SIZE)


class Kind(StrEnum):
    """What a pool lies on."""

    GROUP = "group"
    DEVICE = "device"
    FILE = "file"


def fill(name: str, config: dict[str, str], root: Path) -> dict[str, str]:
    """Return a new pool's config with its source, volume group and thin pool.

    Raises InvalidConfig.
    """
    source = config.get("source", "")
    disks.check_size(config)
    config.setdefault(THIN_POOL_NAME, lvm_group.DEFAULT_THIN_POOL)
    if not source:
        size = config.get("size") or disks.default_size(root)
        config.setdefault(VG_NAME, name)
        return {**config, "source": str(disks.of_pool(name, root)), "size": size}
    if source.startswith("/"):
        config.setdefault(VG_NAME, name)
    elif config.setdefault(VG_NAME, source) != source:
        raise InvalidConfig(
            f'Invalid option "{VG_NAME}": the source is volume group "{source}" already: leave it '
            "out"
        )
    return {**config, "source": config[VG_NAME]}


def kind(pool: Pool) -> Kind:
    """Return what the pool lies on."""
    if pool.config["source"].startswith("/"):
        return Kind.FILE
    device = pool.config.get("volatile.initial_source", "").startswith("/")
    return Kind.DEVICE if device else Kind.GROUP


async def create(pool: Pool) -> None:
    """Make the volume group unless it exists, and its thin pool. Raises BadRequest, Failed."""
    await lvm_group.check_tools()
    group = Group.of(pool)
    async with AsyncExitStack() as undo:
        if kind(pool) is Kind.GROUP:
            await _check_group(pool, group)
        else:
            await _make_group(pool, group, undo)
        if not await _has_thin_pool(group):
            undo.push_async_callback(_quietly, lvm, "lvremove", "--yes", _thin_pool(group))
            await _make_thin_pool(pool, group)
        await in_thread(mounting.make_directories, pool.path)
        if kind(pool) is not Kind.GROUP:
            await lvm("vgchange", "--deltag", _UNFINISHED, group.name)
        undo.pop_all()


async def start(pool: Pool) -> None:
    """Have the volume group's devices, nothing mounted. Raises Failed."""
    if kind(pool) is Kind.FILE:
        await in_thread(disks.attach, pool, Path(pool.config["source"]))
    group = Group.of(pool)
    try:
        await lvm("vgchange", "--yes", "--activate", "y", group.name)
    except Failed as error:
        raise Failed(
            f'Storage pool "{pool.name}" is not usable: volume group "{group.name}" cannot be '
            f"activated: {error}"
        ) from error
    if not await _has_thin_pool(group):
        raise Failed(
            f'Storage pool "{pool.name}" is not usable: there is no thin pool '
            f'"{group.thin_pool}" in volume group "{group.name}": restore it'
        )
    await in_thread(mounting.make_directories, pool.path)
    await mounting.sweep(pool.path)


async def stop(pool: Pool) -> None:
    """Unmount everything; let go of the pool's own file. Raises Failed."""
    await mounting.unmount_below(pool.path)
    if kind(pool) is Kind.FILE and not await is_lost(pool):
        await lvm("vgchange", "--yes", "--activate", "n", Group.of(pool).name)
        await in_thread(disks.detach, Path(pool.config["source"]))


async def remove(pool: Pool) -> None:
    """Remove the thin pool and the volume group if they are ours, and a file. Raises Failed."""
    group = Group.of(pool)
    if kind(pool) is not Kind.GROUP:
        await _remove_group(group, lvm_group.POOL_TAG)
        if kind(pool) is Kind.FILE:
            await in_thread(disks.remove, Path(pool.config["source"]))
    elif await _tags_and_devices(group):
        lines = await lvm_group.report("lvs", "lv_name,lv_tags,pool_lv", group.name)
        used = [line["lv_name"] for line in lines if line["pool_lv"] == group.thin_pool]
        mine = (line["lv_name"] for line in lines if lvm_group.POOL_TAG in line["lv_tags"])
        if group.thin_pool in mine and not used:
            await lvm("lvremove", "--yes", _thin_pool(group))
    await in_thread(mounting.remove_directories, pool.path)


async def update(pool: Pool, config: Mapping[str, str]) -> None:
    """Grow the pool's file. Raises BadRequest, Failed."""
    for key in FIXED:
        if config.get(key) != pool.config.get(key):
            raise BadRequest(f'"{key}" of storage pool "{pool.name}" cannot be changed')
    old, new = pool.config.get("size", ""), config.get("size", "")
    if old == new:
        return
    if kind(pool) is not Kind.FILE or not new:
        raise BadRequest(
            f'"size" of storage pool "{pool.name}" cannot be changed: it has no file of its own; '
            f'use "vgextend" and "lvextend {_thin_pool(Group.of(pool))}"'
            if not old
            else f'"size" of storage pool "{pool.name}" cannot be removed'
        )
    disks.check_grown(pool, old, new)
    await _grow(pool, parse_size(new))


async def is_lost(pool: Pool) -> bool:
    """Tell whether nothing of the pool is there any more, such as after half a deletion."""
    file = Path(pool.config["source"])
    if kind(pool) is Kind.FILE:
        if not await in_thread(file.exists):
            return True
        await in_thread(disks.attach, pool, file)
    return not await _tags_and_devices(Group.of(pool))


async def _grow(pool: Pool, size_bytes: int) -> None:
    for device in await in_thread(disks.grow, Path(pool.config["source"]), size_bytes):
        await lvm("pvresize", device)
    await lvm("lvextend", "--extents", "+100%FREE", _thin_pool(Group.of(pool)))


async def _check_group(pool: Pool, group: Group) -> None:
    """Raise BadRequest unless the user's volume group is there, and empty or to be shared."""
    try:
        lines = await lvm_group.report("lvs", "lv_name", group.name)
    except Failed as error:
        raise BadRequest(f'Volume group "{group.name}" cannot be used: {error}') from error
    if lines and not is_true(pool.config.get(FORCE_REUSE)):
        raise BadRequest(
            f'Volume group "{group.name}" is not empty ({lines[0]["lv_name"]}, ...): give another '
            f"one, or {FORCE_REUSE}=true to share it"
        )


async def _make_group(pool: Pool, group: Group, undo: AsyncExitStack) -> None:
    """Make a volume group of a device or a new file. Raises BadRequest, Failed."""
    await _clear_leftover(pool, group)
    if await _tags_and_devices(group):
        raise BadRequest(
            f'Volume group "{group.name}" exists already: give it as "source", or another name '
            f'as "{VG_NAME}"'
        )
    if kind(pool) is Kind.FILE:
        device = await _make_file(pool)
        undo.push_async_callback(in_thread, _remove_files, pool)
    else:
        device = pool.config["volatile.initial_source"]
        await _check_device(device)
    # Should another be quicker to make a group of that name, it is not ours to remove.
    ours = f"{lvm_group.POOL_TAG}.{secrets.token_hex(6)}"
    undo.push_async_callback(_quietly, _remove_group, group, ours)
    marks = [word for tag in (lvm_group.POOL_TAG, _UNFINISHED, ours) for word in ("--addtag", tag)]
    await lvm("vgcreate", "--yes", *marks, group.name, device)
    if kind(pool) is Kind.FILE:
        await in_thread(os.rename, _unfinished(pool), pool.config["source"])


async def _make_file(pool: Pool) -> str:
    """Make a pool's file, by another name as yet, and return its device. Raises BadRequest."""
    file, new = Path(pool.config["source"]), _unfinished(pool)

    def make() -> str:
        disks.check_new(file)
        disks.remove(new)
        disks.make(new, parse_size(pool.config["size"]))
        try:
            return disks.attach(pool, new)
        except BaseException:
            disks.remove(new)
            raise

    return await in_thread_or_undo(make, lambda _: disks.remove(new))


def _unfinished(pool: Pool) -> Path:
    file = Path(pool.config["source"])
    return file.with_name(f"{layout.NEW}{file.name}")


def _remove_files(pool: Pool) -> None:
    disks.remove(_unfinished(pool))
    disks.remove(Path(pool.config["source"]))


async def _check_device(device: str) -> None:
    if not await in_thread(disks.is_block_device, device):
        raise BadRequest(f'Source "{device}" is no block device')
    found = await run("wipefs", "--no-act", "--noheadings", "--output", "TYPE", device)
    if found.stdout.strip():
        what = ", ".join(found.stdout.decode().split())
        raise BadRequest(
            f'"{device}" has {what} on it already: give another device, or remove that with '
            f'"wipefs -a {device}"'
        )


async def _has_thin_pool(group: Group) -> bool:
    lines = await lvm_group.report("lvs", "lv_name,segtype", group.name)
    return {"lv_name": group.thin_pool, "segtype": "thin-pool"} in lines


async def _make_thin_pool(pool: Pool, group: Group) -> None:
    """Make the thin pool. When it is full, writes fail at once instead of waiting a minute."""
    metadata = pool.config.get(METADATA_SIZE, "")
    sized = ("--poolmetadatasize", f"{parse_size(metadata)}b") if metadata else ()
    what = ("--type", "thin-pool", "--extents", "100%FREE")
    name = ("--addtag", lvm_group.POOL_TAG, "--name", group.thin_pool, group.name)
    try:
        await lvm("lvcreate", "--yes", *what, *sized, *name)
    except Failed as error:
        if "in your kernel" not in str(error):
            raise
        raise NotSupported(
            f'Storage pool "{pool.name}": this kernel has no thin volumes: load its module '
            "dm_thin_pool, or use another driver"
        ) from error
    await lvm("lvchange", "--errorwhenfull", "y", _thin_pool(group))


async def _clear_leftover(pool: Pool, group: Group) -> None:
    """Remove what an interrupted creation of the pool has left."""
    words = await _tags_and_devices(group)
    if not words or _UNFINISHED not in words[0].split(","):
        return
    in_file = await in_thread(_devices_of_file, pool) if kind(pool) is Kind.FILE else []
    await _remove_group(group, _UNFINISHED)
    if set(in_file).intersection(words):
        await in_thread(_remove_files, pool)


def _devices_of_file(pool: Pool) -> list[str]:
    files = (_unfinished(pool), Path(pool.config["source"]))
    return [device for file in files if file.exists() for device in loops.devices(file)]


async def _tags_and_devices(group: Group) -> list[str]:
    """Return a volume group's tags, then its devices; nothing if there is no such group."""
    words = ("vgs", "--noheadings", "-o", "vg_tags,pv_name", group.name)
    found = await lvm(*words, check=False)
    return found.stdout.decode().split() if found.returncode == 0 else []


async def _remove_group(group: Group, mark: str) -> None:
    """Remove a volume group that has a tag of ours, with all that is in it; may be repeated."""
    words = await _tags_and_devices(group)
    if words and mark in words[0].split(","):
        await lvm("vgremove", "--yes", "--force", group.name)
        await lvm("pvremove", "--yes", *(word for word in words if word.startswith("/")))


async def _quietly(
    step: Callable[_P, Coroutine[object, object, object]], *args: _P.args, **kwargs: _P.kwargs
) -> None:
    """Clean up after an error, which is the one to be told."""
    try:
        await asyncio.shield(asyncio.ensure_future(step(*args, **kwargs)))
    except LxpyError:
        pass


def _thin_pool(group: Group) -> str:
    return f"{group.name}/{group.thin_pool}"
