"""The work on the logical volumes of an lvm pool."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

from lxpy.errors import Conflict, Failed, LxpyError, NotFound, NotSupported
from lxpy.storage import transfer
from lxpy.storage.drivers import across, layout, lvm_group, mounting
from lxpy.storage.drivers import lvm_filesystems as filesystems
from lxpy.storage.drivers.lvm_group import Group, LogicalVolume
from lxpy.storage.volume import ContentType, Pool, Volume, VolumeType
from lxpy.threads import in_thread
from lxpy.units import parse_size

DEFAULT_BYTES = 10 << 30
_STAGING_BYTES = 64 << 30
# An ext4 keeps the journal it was made with: below this, much of a shrunk one would be that.
_LEAST_SHRUNK_BYTES = 1 << 30
#: where in a volume's file system its files are
TOPS = {VolumeType.CONTAINER: "rootfs", VolumeType.CUSTOM: "files", VolumeType.IMAGE: "."}


async def existing(pool: Pool, volume: Volume) -> LogicalVolume:
    """Return the logical volume of a volume or snapshot. Raises NotFound, Failed."""
    group = Group.of(pool)
    found = (await lvm_group.volumes(group)).get(lvm_group.encode(group, volume))
    if found is None:
        what = "Snapshot" if volume.snapshot else "Volume"
        raise NotFound(f'{what} "{volume.label}" is not in storage pool "{pool.name}"')
    return found


async def snapshots(pool: Pool, volume: Volume, *, all: bool = False) -> list[str]:
    """Return the names of a volume's snapshots, `all` with those that are hidden."""
    names = await lvm_group.volumes(Group.of(pool))
    found = [each for each in map(lvm_group.decode, names.values()) if each is not None]
    own = [each for each in found if _is_of(each, volume) and each.snapshot]
    return sorted(each.snapshot for each in own if all or not each.snapshot.startswith("."))


def _is_of(found: Volume, volume: Volume) -> bool:
    """Tell whether something on the pool, whose name has the project in it, is of a volume."""
    return (found.type, found.name) == (volume.type, volume.directory_name)


# Making


@asynccontextmanager
async def making(pool: Pool, volume: Volume, name: str = "") -> AsyncIterator[str]:
    """Make a logical volume by the name that the block gets; at its end it has its own.

    Raises Conflict.
    """
    group = Group.of(pool)
    name = name or lvm_group.encode(group, volume)
    if name in await lvm_group.volumes(group):
        raise Conflict(f'Volume by that name already exists: "{volume.label}"')
    new = lvm_group.new_name()
    doomed = [new]
    try:
        yield new
        doomed.append(name)
        await lvm_group.rename(group, new, name)
    except BaseException:
        await asyncio.shield(asyncio.ensure_future(_discard(pool, *doomed)))
        raise


async def _discard(pool: Pool, *names: str) -> None:
    """Remove what was begun. What cannot be, goes at the next start: the first error counts."""
    try:
        for name in names:
            await mounting.unmount(_place_of_new(pool, name))
        await lvm_group.remove(Group.of(pool), *names)
    except (LxpyError, OSError):
        pass


def _place_of_new(pool: Pool, name: str) -> Path:
    return pool.path / mounting.NEW / name


def _mounted_new(
    pool: Pool, volume: Volume, new: str, kind: str
) -> AbstractAsyncContextManager[Path]:
    """Have what is being made mounted for the length of a block."""
    how = filesystems.mount_options(kind, filesystems.options(pool, volume))
    return mounting.mounted(kind, _device(pool, new), _place_of_new(pool, new), how)


def _device(pool: Pool, name: str) -> str:
    return str(Group.of(pool).device(name))


async def create(pool: Pool, volume: Volume) -> None:
    """Make an empty volume. Raises Conflict."""
    if volume.content is ContentType.FILESYSTEM:
        async with filling_files(pool, volume) as directory:
            if volume.type is VolumeType.CONTAINER:
                await in_thread((directory / "rootfs").mkdir, 0o755)
        return
    async with making(pool, volume) as new:
        size = volume.size_bytes or DEFAULT_BYTES
        await lvm_group.create(Group.of(pool), new, size, lvm_group.tags(volume.content))


@asynccontextmanager
async def formatted(pool: Pool, volume: Volume, new: str, kind: str) -> AsyncIterator[Path]:
    """Make a logical volume with a file system, which is mounted for the block."""
    group = Group.of(pool)
    size = volume.size_bytes or _default_bytes(pool, volume)
    filesystems.check_size(kind, size)
    await lvm_group.create(group, new, size, lvm_group.tags(ContentType.FILESYSTEM, kind))
    await filesystems.make(kind, group.device(new))
    async with _mounted_new(pool, volume, new, kind) as top:
        await in_thread(_prepare, top)
        yield top


def _default_bytes(pool: Pool, volume: Volume) -> int:
    """Return the size of a volume without one; images are as large as the instances of them."""
    default = pool.config.get("volume.size", "")
    return (parse_size(default) if default else 0) or DEFAULT_BYTES


def _prepare(top: Path) -> None:
    top.chmod(0o711)
    try:
        (top / "lost+found").rmdir()  # e2fsck makes it when it is needed
    except FileNotFoundError:
        pass


@asynccontextmanager
async def filling_files(pool: Pool, volume: Volume) -> AsyncIterator[Path]:
    """Make a volume or snapshot of the files that the block writes."""
    async with making(pool, volume) as new:
        kind = filesystems.wanted(pool, volume)
        async with formatted(pool, volume, new, kind) as top:
            if volume.type is VolumeType.CUSTOM:
                top = top / TOPS[VolumeType.CUSTOM]
                await in_thread(top.mkdir, 0o711)
            yield top
        if volume.snapshot:
            await lvm_group.seal(Group.of(pool), new)


@asynccontextmanager
async def filling_disk(pool: Pool, volume: Volume) -> AsyncIterator[Path]:
    """Make a block volume of the file root.img that the block writes to a staging volume."""
    group = Group.of(pool)
    staging = lvm_group.new_name()
    room = Volume(volume.name, config={"size": str(_STAGING_BYTES + 2 * (volume.size_bytes or 0))})
    async with making(pool, volume) as new:
        try:
            async with formatted(pool, room, staging, filesystems.EXT4) as top:
                yield top
                image = top / transfer.BLOCK_FILE
                size = (await in_thread(image.stat)).st_size
                await lvm_group.create(group, new, size, lvm_group.tags(volume.content))
                await across.copy_disk(image, group.device(new))
            if volume.snapshot:
                await lvm_group.seal(group, new)
        finally:
            await asyncio.shield(asyncio.ensure_future(_discard(pool, staging)))


@contextmanager
def full_told(pool: Pool, volume: Volume) -> Iterator[None]:
    """Say in a volume's words that it, or its pool, is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Failed(
            f'No space left in volume "{volume.label}" of storage pool "{pool.name}": give it a '
            'larger "size", or the pool more room'
        ) from error


# Sizes


def can_become(origin: LogicalVolume, target: Volume) -> bool:
    """Tell whether a snapshot of `origin` can well be made as large as a volume is to be."""
    if target.snapshot or target.size_bytes is None or _wanted(target) >= origin.size_bytes:
        return True
    shrinks = origin.filesystem != filesystems.XFS
    return shrinks and (not origin.filesystem or _wanted(target) >= _LEAST_SHRUNK_BYTES)


def _wanted(volume: Volume) -> int:
    return lvm_group.rounded(volume.size_bytes or 0)


async def fit(
    pool: Pool, volume: Volume, origin: LogicalVolume, new: str, *, same: bool = False
) -> None:
    """Give a fresh snapshot of `origin` a volume's size, and an identity unless it is the `same`.

    Raises Failed when it holds more than that.
    """
    device = Group.of(pool).device(new)
    size = _wanted(volume)
    if not origin.filesystem:
        if size > origin.size_bytes:
            await lvm_group.extend(Group.of(pool), new, size)
        return
    if size > origin.size_bytes:
        await lvm_group.extend(Group.of(pool), new, size)
        async with _mounted_new(pool, volume, new, origin.filesystem) as top:
            await filesystems.grow(origin.filesystem, device, top)
    elif 0 < size < origin.size_bytes and origin.filesystem == filesystems.EXT4:
        await _shrink(pool, volume, new, size)
    if not same:
        await filesystems.renew_identity(origin.filesystem, device)


async def _shrink(pool: Pool, volume: Volume, new: str, size: int) -> None:
    group = Group.of(pool)
    filesystems.check_size(filesystems.EXT4, size)
    try:
        await filesystems.shrink(group.device(new), size)
    except Failed as error:
        raise Failed(
            f'Volume "{volume.label}" cannot shrink to {size} bytes, it may hold more than that: '
            f"remove files first ({error})"
        ) from error
    await lvm_group.reduce(group, new, size)


async def resize(pool: Pool, volume: Volume, size_bytes: int | None) -> None:
    """Make a volume larger, or a smaller one of it. Raises Failed, NotSupported."""
    found = await existing(pool, volume)
    size = lvm_group.rounded(size_bytes or max(_default_bytes(pool, volume), found.size_bytes))
    if size < found.size_bytes:
        await _replace_by_smaller(pool, volume, found, size)
    elif not found.filesystem:
        if size > found.size_bytes:
            await lvm_group.extend(Group.of(pool), found.name, size)
    else:
        if size > found.size_bytes:
            await lvm_group.extend(Group.of(pool), found.name, size)
        # Also where the size is right: an earlier attempt may have come no further.
        async with at_hand(pool, volume, found) as top:
            await filesystems.grow(found.filesystem, Group.of(pool).device(found.name), top)


async def _replace_by_smaller(pool: Pool, volume: Volume, found: LogicalVolume, size: int) -> None:
    """Shrink a snapshot, and put it in the volume's place: a crash in between harms nothing."""
    if not found.filesystem:
        raise Failed(
            f'Block volume "{volume.label}" cannot shrink: what is at its end would be lost; make '
            "a smaller one and copy to it"
        )
    if found.filesystem != filesystems.EXT4:
        raise NotSupported(
            f'Volume "{volume.label}" cannot shrink, as {found.filesystem} cannot: make a smaller '
            "one and copy to it"
        )
    if await in_thread(os.path.ismount, layout.volume_path(pool, volume)):
        raise NotSupported(
            f'Volume "{volume.label}" cannot shrink while it is in use, as ext4 cannot: stop who '
            "uses it first"
        )
    async with _replacing(pool, found) as new:
        await lvm_group.snapshot(Group.of(pool), found, new)
        await _shrink(pool, volume, new, size)


async def restore(pool: Pool, volume: Volume, snapshot: str) -> None:
    """Make a volume that is not in use what its snapshot is. Raises NotFound, Failed."""
    origin = await existing(pool, volume.at(snapshot))
    found = await existing(pool, volume)
    await mounting.unmount(layout.volume_path(pool, volume))
    async with _replacing(pool, found) as new:
        await lvm_group.snapshot(Group.of(pool), origin, new)
        await fit(pool, volume, origin, new, same=True)


@asynccontextmanager
async def _replacing(pool: Pool, found: LogicalVolume) -> AsyncIterator[str]:
    """Make a logical volume by the name the block gets; at its end it replaces `found`."""
    new = lvm_group.new_name()
    try:
        yield new
        await lvm_group.replace(Group.of(pool), found.name, new)
    except BaseException:
        await asyncio.shield(asyncio.ensure_future(_discard(pool, new)))
        raise


async def rename(pool: Pool, volume: Volume, target: Volume) -> None:
    """Rename a volume with its snapshots, or one snapshot; what was begun is ended.

    Raises NotFound, Conflict.
    """
    group = Group.of(pool)
    have = await lvm_group.volumes(group)
    parts = [volume]
    if not volume.snapshot:
        parts = [volume.at(each) for each in await snapshots(pool, volume, all=True)] + parts
    names = [
        (lvm_group.encode(group, part), lvm_group.encode(group, target.at(part.snapshot)))
        for part in parts
    ]
    if volume.snapshot:
        names = [(lvm_group.encode(group, volume), lvm_group.encode(group, target))]
    old, new = names[-1]
    if old in have and new in have:
        raise Conflict(f'Volume by that name already exists: "{target.label}"')
    begun = new in have and len(names) > 1
    if old not in have and not begun:
        what = "Snapshot" if volume.snapshot else "Volume"
        raise NotFound(f'{what} "{volume.label}" is not in storage pool "{pool.name}"')
    await _rename_all(group, [each for each in names if each[0] in have])


async def _rename_all(group: Group, names: list[tuple[str, str]]) -> None:
    try:
        for old, new in names:
            await lvm_group.rename(group, old, new)
    except BaseException:
        await asyncio.shield(asyncio.ensure_future(_take_back(group, names)))
        raise


async def _take_back(group: Group, names: list[tuple[str, str]]) -> None:
    try:
        have = await lvm_group.volumes(group)
        for old, new in names:
            if new in have and old not in have:
                await lvm_group.rename(group, new, old)
    except LxpyError:
        pass  # the first error counts


# Use


async def mount(pool: Pool, volume: Volume, found: LogicalVolume) -> None:
    """Mount a volume or snapshot at its place."""
    place = layout.volume_path(pool, volume)
    how = _how(pool, volume, found.filesystem)
    await mounting.mount(found.filesystem, _device(pool, found.name), place, how)


def at_hand(pool: Pool, volume: Volume, found: LogicalVolume) -> AbstractAsyncContextManager[Path]:
    """Have a volume or image mounted at its place for the length of a block."""
    place = layout.volume_path(pool, volume)
    how = _how(pool, volume, found.filesystem)
    sealed = _is_sealed(volume)
    device = _device(pool, found.name)
    return mounting.mounted(found.filesystem, device, place, how, sealed=sealed)


def _how(pool: Pool, volume: Volume, kind: str) -> str:
    how = filesystems.options(pool, volume)
    return filesystems.mount_options(kind, how, sealed=_is_sealed(volume))


def _is_sealed(volume: Volume) -> bool:
    return bool(volume.snapshot) or volume.type is VolumeType.IMAGE
