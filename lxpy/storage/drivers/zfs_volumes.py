"""The work on the datasets of a zfs pool."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.errors import Conflict, Failed, LxpyError, NotFound
from lxpy.programs import run
from lxpy.storage import transfer, trees, view
from lxpy.storage.drivers import across, layout, mounting
from lxpy.storage.drivers.base import Driver
from lxpy.storage.drivers.zfs_datasets import (
    CONTENT,
    COPY,
    NEW,
    SNAPSHOT,
    Dataset,
    children_of,
    destroy,
    encode,
    encode_snapshot,
    foreign,
    listing,
    new_name,
    snapshots_of,
    wait_for_device,
    zfs,
)
from lxpy.storage.volume import ContentType, Plain, Pool, Volume, VolumeType
from lxpy.threads import in_thread
from lxpy.units import is_false, is_true, parse_size

BLOCK_SIZE, USE_REFQUOTA, RESERVE = "zfs.blocksize", "zfs.use_refquota", "zfs.reserve_space"
_DEFAULT_BLOCK_BYTES = 10 << 30
# A multiple of every size that the blocks of a zvol have by default.
_STEP_BYTES = 128 << 10
_MODES = {VolumeType.CONTAINER: 0o700, VolumeType.CUSTOM: 0o711, VolumeType.IMAGE: 0o700}


async def existing(pool: Pool, volume: Volume) -> Dataset:
    """Return the dataset of a volume or snapshot. Raises NotFound, Failed."""
    have = await listing(pool)
    if volume.snapshot:
        found = have.get(encode_snapshot(pool, volume)) or have.get(foreign(pool, volume))
    else:
        found = have.get(encode(pool, volume))
    if found is None:
        what = "Snapshot" if volume.snapshot else "Volume"
        raise NotFound(f'{what} "{volume.label}" is not in storage pool "{pool.name}"')
    return found


async def snapshots(pool: Pool, volume: Volume, *, all: bool = False) -> list[str]:
    """Return the names of a volume's snapshots, `all` with those that are hidden."""
    have = await listing(pool)
    taken = [each.short for each in snapshots_of(have, encode(pool, volume))]
    names = [each.removeprefix(SNAPSHOT) for each in taken if each.startswith(SNAPSHOT)]
    names += [each.short for each in children_of(have, foreign(pool, volume.whole))]
    return sorted(each for each in names if all or not each.startswith("."))


async def refuse_taken(pool: Pool, volume: Volume) -> None:
    """Raise Conflict when there is a volume or snapshot of that name."""
    try:
        await existing(pool, volume)
    except NotFound:
        return
    raise Conflict(f'Volume by that name already exists: "{volume.label}"')


async def quietly(step: Coroutine[object, object, object]) -> None:
    """Clean up after an error, which is the one to be told; what stays goes at the next start."""
    try:
        await asyncio.shield(asyncio.ensure_future(step))
    except (LxpyError, OSError):
        pass


# Making


async def place_for(pool: Pool, volume: Volume) -> str:
    """Return the dataset that a volume, or a snapshot from elsewhere, is to be."""
    if not volume.snapshot:
        return encode(pool, volume)
    above = foreign(pool, volume.whole)
    if above not in await listing(pool):
        await zfs("create", above)
    return foreign(pool, volume)


@asynccontextmanager
async def making(pool: Pool, volume: Volume, place: str) -> AsyncIterator[str]:
    """Make a dataset by the name that the block gets; at its end it has its own.

    Raises Conflict.
    """
    await refuse_taken(pool, volume)
    new = new_name(pool)
    doomed = [new]
    try:
        yield new
        doomed.append(place)
        await zfs("rename", new, place)
    except BaseException:
        await quietly(_discard(pool, doomed))
        raise


async def _discard(pool: Pool, doomed: list[str]) -> None:
    for each in doomed:
        await mounting.unmount(_place_of_new(pool, each))
        await destroy(pool, each)


def _place_of_new(pool: Pool, dataset: str) -> Path:
    return pool.path / mounting.NEW / dataset.rpartition("/")[2]


async def clone(pool: Pool, origin: str, new: str, volume: Volume) -> None:
    """Make a clone of a snapshot, held to a volume's size. Raises Failed."""
    block = volume.content is not ContentType.FILESYSTEM
    limits = {"snapdev": "visible"} if block else _limits(pool, volume, volume.size_bytes)
    sealed = {"readonly": "on" if volume.snapshot else "off"}
    await zfs("clone", *_options({**_marks(volume), **sealed, **limits}), origin, new)
    found = (await listing(pool))[new]
    size = _stepped(volume.size_bytes or 0)
    if block and size > found.limit_bytes:
        await zfs("set", f"volsize={size}", new)


async def create(pool: Pool, volume: Volume) -> None:
    """Make an empty volume. Raises Conflict."""
    if volume.content is not ContentType.FILESYSTEM:
        async with making(pool, volume, encode(pool, volume)) as new:
            await _create_disk(pool, volume, new, volume.size_bytes or _DEFAULT_BLOCK_BYTES)
        return
    async with filling_files(pool, volume) as directory:
        if volume.type is VolumeType.CONTAINER:
            await in_thread((directory / "rootfs").mkdir, 0o755)


async def _create_disk(pool: Pool, volume: Volume, new: str, size_bytes: int) -> None:
    block = _option(pool, volume, BLOCK_SIZE)
    sized = {"volblocksize": str(parse_size(block))} if block else {}
    sparse = () if is_true(_option(pool, volume, RESERVE)) else ("-s",)
    options = _options({**_marks(volume), "snapdev": "visible", **sized})
    await zfs("create", *sparse, "-V", str(_stepped(size_bytes)), *options, new)


@asynccontextmanager
async def new_files(pool: Pool, volume: Volume, new: str) -> AsyncIterator[Path]:
    """Make a file system, which is mounted for the block."""
    block = _option(pool, volume, BLOCK_SIZE)
    sized = {"recordsize": str(parse_size(block))} if block else {}
    limits = _limits(pool, volume, volume.size_bytes)
    await zfs("create", *_options({**_marks(volume), **sized, **limits}), new)
    async with mounting.mounted("zfs", new, _place_of_new(pool, new)) as top:
        await in_thread(top.chmod, _MODES[volume.type])
        yield top


@asynccontextmanager
async def filling_files(pool: Pool, volume: Volume) -> AsyncIterator[Path]:
    """Make a volume or snapshot of the files that the block writes."""
    async with making(pool, volume, await place_for(pool, volume)) as new:
        async with new_files(pool, volume, new) as top:
            yield top
        if volume.snapshot:
            await zfs("set", "readonly=on", new)


@asynccontextmanager
async def filling_disk(pool: Pool, volume: Volume) -> AsyncIterator[Path]:
    """Make a block volume of the file root.img that the block writes to a file system."""
    staging = new_name(pool)
    async with making(pool, volume, await place_for(pool, volume)) as new:
        try:
            async with new_files(pool, Volume(volume.name), staging) as top:
                yield top
                image = top / transfer.BLOCK_FILE
                await _create_disk(pool, volume, new, (await in_thread(image.stat)).st_size)
                await across.copy_disk(image, await wait_for_device(new))
            if volume.snapshot:
                await zfs("set", "readonly=on", new)
        finally:
            await quietly(_discard(pool, [staging]))


async def snapshot_to_clone(pool: Pool, source: Volume) -> tuple[str, bool]:
    """Return the snapshot that a copy becomes a clone of, and whether it is yet to be taken."""
    found = await existing(pool, source)
    if found.kind == "snapshot":
        return found.name, False
    own = new_name(pool).rpartition("/")[2].removeprefix(NEW)
    return f"{found.name}@{COPY}{own}", True


# Sizes


def _option(pool: Pool, volume: Volume, key: str) -> str:
    return volume.config.get(key) or pool.config.get(f"volume.{key}", "")


def _limits(pool: Pool, volume: Volume, size_bytes: int | None) -> dict[str, str]:
    """Return the properties that hold a volume of files to a size.

    A refquota does not count snapshots: a full volume can be cleared though there are some.
    """
    if volume.snapshot:
        return {}
    whole = is_false(_option(pool, volume, USE_REFQUOTA))
    value = "none" if size_bytes is None else str(size_bytes)
    limits = {"quota" if whole else "refquota": value}
    if is_true(_option(pool, volume, RESERVE)):
        limits["reservation" if whole else "refreservation"] = value
    return limits


def _stepped(size_bytes: int) -> int:
    return -(-size_bytes // _STEP_BYTES) * _STEP_BYTES


def _marks(volume: Volume) -> dict[str, str]:
    return {CONTENT: volume.content}


def _options(properties: dict[str, str]) -> list[str]:
    return [word for key, value in properties.items() for word in ("-o", f"{key}={value}")]


async def resize(pool: Pool, volume: Volume, size_bytes: int | None) -> None:
    """Hold a volume to another size. Raises Failed when it holds more."""
    found = await existing(pool, volume)
    if volume.content is not ContentType.FILESYSTEM:
        size = _stepped(size_bytes or _DEFAULT_BLOCK_BYTES)
        if size < found.limit_bytes:
            raise Failed(
                f'Block volume "{volume.label}" cannot shrink: what is at its end would be lost; '
                "make a smaller one and copy to it"
            )
        await zfs("set", f"volsize={size}", found.name)
        return
    if size_bytes is not None and found.used_bytes > size_bytes:
        raise Failed(
            f'Volume "{volume.label}" cannot shrink to {size_bytes} bytes: it holds '
            f"{found.used_bytes}; remove files first"
        )
    limits = _limits(pool, volume, size_bytes)
    await zfs("set", *(f"{key}={value}" for key, value in limits.items()), found.name)


# Snapshots


async def rename(pool: Pool, volume: Volume, target: Volume) -> None:
    """Rename a volume with its snapshots, or one snapshot. Raises NotFound, Conflict."""
    have = await listing(pool)
    old, new = foreign(pool, volume), foreign(pool, target)
    has_foreign = not volume.snapshot and old in have
    if has_foreign and encode(pool, volume) not in have and encode(pool, target) in have:
        await zfs("rename", old, new)  # the rest of an attempt that was cut off
        return
    found = await existing(pool, volume)
    await refuse_taken(pool, target)
    if found.kind == "snapshot":
        await zfs("rename", found.name, encode_snapshot(pool, target))
        return
    if volume.snapshot:
        await zfs("rename", found.name, new)
        return
    if has_foreign:
        await zfs("rename", old, new)
    try:
        await zfs("rename", found.name, encode(pool, target))
    except BaseException:
        if has_foreign:
            await quietly(zfs("rename", new, old))
        raise


async def restore(driver: Driver, pool: Pool, volume: Volume, snapshot: str) -> None:
    """Make a volume that is not in use what its snapshot is; all snapshots stay.

    ZFS rolls back to the newest snapshot only. To an older one the volume is made file by file:
    what has the same inode and change time is the same.
    """
    found, source = await existing(pool, volume), await existing(pool, volume.at(snapshot))
    taken = snapshots_of(await listing(pool), found.name)
    if taken and taken[-1].name == source.name:
        await mounting.unmount(layout.volume_path(pool, volume))
        await zfs("rollback", source.name)
    elif volume.content is ContentType.FILESYSTEM:
        await _synchronize(driver, pool, volume, volume.at(snapshot))
    else:
        disk, old = await wait_for_device(found.name), await wait_for_device(source.name)
        await run("dd", f"if={old}", f"of={disk}", "bs=4M", "conv=notrunc,fsync", timeout_s=None)
    if volume.size_bytes is not None and volume.content is ContentType.FILESYSTEM:
        await resize(pool, volume, volume.size_bytes)


async def _synchronize(driver: Driver, pool: Pool, volume: Volume, snapshot: Volume) -> None:
    mounted = []
    try:
        for each in (snapshot, volume):
            mounted.append(each)
            await driver.mount(pool, each)
        source = await in_thread(view.open_tree, _top(pool, snapshot))
        try:
            target = await in_thread(view.open_tree, _top(pool, volume), writable=True)
            try:
                await trees.synchronize(source, target, _is_untouched)
            finally:
                os.close(target)
        finally:
            os.close(source)
    finally:
        for each in mounted:
            await quietly(driver.unmount(pool, each))


def _top(pool: Pool, volume: Volume) -> Plain:
    return Plain(str(layout.volume_path(pool, volume)))


def _is_untouched(old: os.stat_result, new: os.stat_result) -> bool:
    """Tell whether a file of a snapshot is the volume's: its guest can set neither of these."""
    return (old.st_ino, old.st_ctime_ns) == (new.st_ino, new.st_ctime_ns)
