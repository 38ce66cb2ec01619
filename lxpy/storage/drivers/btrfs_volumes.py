"""The work on the subvolumes of a pool on btrfs (all of this blocks)."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from lxpy.errors import BadRequest, Failed, NotFound
from lxpy.kernel import btrfs
from lxpy.storage import files
from lxpy.storage.drivers import btrfs_quotas, layout
from lxpy.storage.drivers import btrfs_subvolumes as subvolumes
from lxpy.storage.drivers.btrfs_subvolumes import opened
from lxpy.storage.transfer import BLOCK_FILE
from lxpy.storage.volume import ContentType, Pool, Usage, Volume, VolumeType

_AREAS = (*layout.VOLUMES, *layout.SNAPSHOTS, "images")
_DEFAULT_BLOCK_BYTES = 10 << 30
#: what a custom volume holds, where no guest can set it
_CONTENT = "trusted.lxpy.content"
_INSTANCE_MODE, _CUSTOM_MODE = 0o700, 0o711
_log = structlog.get_logger()


def is_empty(directory: Path) -> bool:
    """Tell whether there is nothing but what an interrupted creation has left."""
    return all(
        each.name in _AREAS and each.is_dir() and not any(each.iterdir())
        for each in directory.iterdir()
    )


def has_areas(directory: Path) -> bool:
    """Tell whether a pool was made in a directory."""
    return any((directory / area).is_dir() for area in _AREAS)


def prepare(pool: Pool) -> None:
    """Make the directories of a new pool. Raises BadRequest when there is something in it."""
    if not is_empty(pool.path):
        raise BadRequest(f'Source path "{pool.path}" isn\'t empty: give an empty directory')
    try:
        with layout.told(pool), opened(pool.path) as descriptor:
            for area in _AREAS:
                layout.mkdir_private(pool.path / area)
            btrfs_quotas.enable(descriptor)
            btrfs.commit(descriptor)
    except BaseException:
        for area in _AREAS:
            layout.remove_if_empty(pool.path / area)
        raise


def sweep(pool: Pool) -> None:
    """Remove what a crash left half-made or half-removed. Raises Failed when the pool is gone."""
    if not (pool.path / "containers").is_dir():
        raise layout.missing(pool)
    with layout.told(pool), opened(pool.path) as descriptor:
        for area in _AREAS:
            layout.mkdir_private(pool.path / area)
            for entry in list((pool.path / area).glob(f"{layout.NEW}*")):
                subvolumes.discard(entry)
        for area in layout.SNAPSHOTS:
            for entry in list((pool.path / area).glob("*/.*")):
                subvolumes.discard(entry)
            for entry in list((pool.path / area).iterdir()):
                layout.remove_if_empty(entry)
        btrfs_quotas.sweep(descriptor)


def check_unused(pool: Pool) -> None:
    """Raise BadRequest while there are volumes other than images."""
    for area in (*layout.VOLUMES, *layout.SNAPSHOTS):
        if names(pool, pool.path / area):
            raise BadRequest(
                f'The storage pool is currently in use: "{pool.name}" has volumes in {area}'
            )


def clear(pool: Pool) -> None:
    """Remove images and directories from the directory of a pool."""
    sweep(pool)
    delete(pool, list((pool.path / "images").iterdir()))
    for area in reversed(_AREAS):  # by the first of them a pool is known
        (pool.path / area).rmdir()


def make_room(pool: Pool, volume: Volume, place: Path) -> None:
    """Have the directory that a volume, snapshot or image goes into. Raises Conflict, Failed."""
    with layout.told(pool):
        if volume.snapshot:
            layout.mkdir_private(place.parent)
        if os.path.lexists(place):
            raise layout.taken(place)
        if not place.parent.is_dir():
            raise layout.missing(pool)


def leave_room(volume: Volume, place: Path) -> None:
    """Remove the directory of snapshots that there are none of."""
    if volume.snapshot:
        layout.remove_if_empty(place.parent)


def finish(pool: Pool, volume: Volume, new: Path, place: Path) -> None:
    """Give something that is made its limit, or let it take no writes; then its name."""
    with layout.told(pool):
        if volume.type is VolumeType.IMAGE or volume.snapshot:
            subvolumes.seal(new)
        else:
            hold(new, volume)
        layout.claim(new, place)
        subvolumes.commit(place.parent)


def hold(new: Path, volume: Volume) -> None:
    """Hold a volume of files to its size."""
    if volume.size_bytes is not None and volume.content is ContentType.FILESYSTEM:
        _limit(new, volume.size_bytes)


def _limit(place: Path, size_bytes: int | None) -> None:
    """Hold a subvolume, with those in it, to a size."""
    # By a descriptor of the directory above: a full subvolume has no room for this either.
    with opened(place) as top, opened(place.parent) as above:
        number = btrfs.subvolume_id(top)
        btrfs_quotas.limit(above, subvolumes.numbers(above, number), number, size_bytes)


def create_empty(volume: Volume, new: Path) -> None:
    """Make the subvolume of a volume; the disk of a block volume will not be copied on write."""
    custom = volume.type is VolumeType.CUSTOM
    subvolumes.create(new, _CUSTOM_MODE if custom else _INSTANCE_MODE)
    if not custom:
        return
    os.setxattr(new, _CONTENT, volume.content.encode())
    if volume.content is not ContentType.FILESYSTEM:
        with opened(new) as descriptor:
            btrfs.set_no_copy_on_write(descriptor)


def create(volume: Volume, new: Path) -> None:
    """Make an empty volume."""
    create_empty(volume, new)
    if volume.type is VolumeType.CONTAINER:
        (new / "rootfs").mkdir(mode=0o755)
    elif volume.content is not ContentType.FILESYSTEM:
        disk = new / BLOCK_FILE
        disk.touch(mode=0o600)
        os.truncate(disk, volume.size_bytes or _DEFAULT_BLOCK_BYTES)


def clone_image(pool: Pool, image: str, new: Path) -> None:
    """Make an instance's volume. Raises NotFound when the image is not there."""
    try:
        subvolumes.clone(layout.image_path(pool, image), new)
    except FileNotFoundError as error:
        raise NotFound(f'Image {image[:12]} is not in storage pool "{pool.name}"') from error


def check_image(new: Path) -> None:
    """Write an unpacked image out to the disk: a power cut must not leave empty files."""
    rootfs = new / "rootfs"
    if rootfs.is_symlink() or not rootfs.is_dir():
        raise Failed("Invalid image: its rootfs is not a directory")
    files.syncfs(new)


def existing(pool: Pool, volume: Volume) -> Path:
    """Return where a volume or snapshot is. Raises NotFound, Failed when the pool is gone."""
    place = layout.volume_path(pool, volume)
    with layout.told(pool):
        if place.is_dir():
            return place
        if not (pool.path / "containers").is_dir():
            raise layout.missing(pool)
    what = "Snapshot" if volume.snapshot else "Volume"
    raise NotFound(f'{what} "{volume.label}" is not in storage pool "{pool.name}"')


def rename(pool: Pool, volume: Volume, target: Volume) -> None:
    """Rename a volume with its snapshots, or one snapshot. Raises NotFound, Conflict."""
    old, new = layout.volume_path(pool, volume), layout.volume_path(pool, target)
    with layout.told(pool):
        if volume.snapshot:
            layout.rename(old, new)
            subvolumes.commit(new.parent)
            return
        old_snapshots = layout.snapshots_path(pool, volume)
        new_snapshots = layout.snapshots_path(pool, target)
        if old_snapshots.exists() and new_snapshots.exists():
            raise layout.taken(new)
        half_done = new.exists() and not old.exists() and old_snapshots.exists()
        if not half_done:
            layout.rename(old, new)
        if old_snapshots.exists():
            os.rename(old_snapshots, new_snapshots)
        subvolumes.commit(new.parent)


def delete_volume(pool: Pool, volume: Volume) -> None:
    """Remove a volume with its snapshots, or one snapshot."""
    doomed = [layout.volume_path(pool, volume)]
    snapshots = layout.snapshots_path(pool, volume)
    if not volume.snapshot and snapshots.is_dir():
        doomed += list(snapshots.iterdir())
    delete(pool, doomed)
    layout.remove_if_empty(snapshots)


def delete(pool: Pool, doomed: list[Path]) -> None:
    """Remove subvolumes; those that are gone already are none."""
    with layout.told(pool):
        found = [each for each in doomed if each.exists()]
        for each in found:
            subvolumes.discard(each)
        if found:
            subvolumes.commit(pool.path)
        elif not (pool.path / "containers").is_dir():
            raise layout.missing(pool)


def discard(pool: Pool, new: Path) -> None:
    """Remove what was begun. What cannot be, goes at the next start: the first error counts."""
    try:
        subvolumes.discard(new)
        subvolumes.commit(pool.path)
    except (OSError, Failed) as error:
        _log.warning("subvolume not removed", path=str(new), error=str(error))


def resize(pool: Pool, volume: Volume, size_bytes: int | None) -> None:
    """Hold a volume to another size. Raises Failed when it holds more."""
    place = existing(pool, volume)
    with layout.told(pool):
        if volume.content is not ContentType.FILESYSTEM:
            _resize_disk(volume, place / BLOCK_FILE, size_bytes or _DEFAULT_BLOCK_BYTES)
            return
        if size_bytes is not None:
            files.syncfs(place)  # what waits to be written counts, too
            used = usage(pool, volume)
            if used is not None and used.used > size_bytes:
                raise Failed(
                    f'Volume "{volume.label}" cannot shrink to {size_bytes} bytes: it holds '
                    f"{used.used}; remove files first"
                )
        _limit(place, size_bytes)
        subvolumes.commit(place)


def _resize_disk(volume: Volume, disk: Path, size_bytes: int) -> None:
    if size_bytes < disk.stat().st_size:
        raise Failed(
            f'Block volume "{volume.label}" cannot shrink: what is at its end would be lost; make '
            "a smaller one and copy to it"
        )
    os.truncate(disk, size_bytes)


def usage(pool: Pool, volume: Volume) -> Usage | None:
    """Return what a volume takes, None where nobody counts."""
    place = existing(pool, volume)
    if volume.content is not ContentType.FILESYSTEM:
        found = (place / BLOCK_FILE).stat()
        return Usage(found.st_blocks * 512, found.st_size)
    with opened(place) as top:
        return btrfs_quotas.usage(top, btrfs.subvolume_id(top))


def names(pool: Pool, directory: Path) -> list[str]:
    """Return the names in a directory of a pool, without those that are hidden."""
    try:
        with os.scandir(directory) as entries:
            return sorted(each.name for each in entries if not each.name.startswith("."))
    except FileNotFoundError:
        if not (pool.path / "containers").is_dir():
            raise layout.missing(pool) from None
        return []


def volumes(pool: Pool) -> list[Volume]:
    """Return the volumes of instances and the custom ones."""
    instances = [Volume(name) for name in names(pool, pool.path / "containers")]
    return [*instances, *(_custom(pool, name) for name in names(pool, pool.path / "custom"))]


def _custom(pool: Pool, name: str) -> Volume:
    try:
        content = ContentType(os.getxattr(pool.path / "custom" / name, _CONTENT).decode())
    except (OSError, ValueError):
        content = ContentType.FILESYSTEM
    return Volume(name, VolumeType.CUSTOM, content=content)
