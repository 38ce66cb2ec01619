"""Pools on LVM: every volume, snapshot and image is a thin logical volume with its file system.

    PATH/images/FINGERPRINT/{rootfs/,metadata.yaml,templates/}
    PATH/containers/NAME/{rootfs/,metadata.yaml,templates/}
    PATH/containers-snapshots/NAME/SNAPSHOT/...
    PATH/custom/NAME/files/            a volume of files; a block volume is the device itself
    PATH/custom-snapshots/NAME/SNAPSHOT/files/
    PATH/.new/LV/                      what is being made

Volumes are mounted there while they are in use. Every volume has a size, 10GiB unless said
otherwise; blocks are taken from the pool as they are written. Snapshots and copies take the same
tenths of a second whatever is in a volume.
Source: LXD docs, "LVM - lvm"; lvmthin(7).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.doctor import Host
from lxpy.errors import BadRequest, LxpyError, NotFound, NotSupported
from lxpy.storage import trees
from lxpy.storage.drivers import across, layout, lvm_group, lvm_source, lvm_volumes, mounting
from lxpy.storage.drivers import lvm_filesystems as filesystems
from lxpy.storage.drivers.base import Info, Quiet, Unpack
from lxpy.storage.drivers.lvm_group import Group
from lxpy.storage.drivers.lvm_volumes import existing
from lxpy.storage.volume import (
    ContentType,
    Plain,
    Pool,
    Resources,
    Rootfs,
    Usage,
    Volume,
    VolumeType,
)
from lxpy.threads import in_thread


class LvmDriver:
    """See the module."""

    def __init__(self, host: Host | None = None) -> None:
        self.info = Info("lvm", os.uname().release)

    # Pools

    def fill(self, name: str, config: dict[str, str], root: Path) -> dict[str, str]:
        """Give the pool a file of its own unless it has a source."""
        return lvm_source.fill(name, config, root)

    def mount_point(self, name: str, config: Mapping[str, str], root: Path) -> Path:
        """Return where its volumes are mounted."""
        return root / name

    async def create(self, pool: Pool) -> None:
        """Make a new pool. A device must have nothing on it, a volume group be empty."""
        await lvm_source.create(pool)

    async def start(self, pool: Pool) -> None:
        """Have the devices; end or take back what an earlier run has left halfway."""
        await lvm_source.start(pool)
        group = Group.of(pool)
        await lvm_group.settle(group)
        doomed = [name for name, found in (await lvm_group.volumes(group)).items() if _left(found)]
        try:
            await lvm_group.remove(group, *doomed)
        except LxpyError:
            pass  # somebody looks into one yet: it goes another time

    async def stop(self, pool: Pool) -> None:
        """Unmount everything; let go of the pool's own file."""
        await lvm_source.stop(pool)

    async def update(self, pool: Pool, config: Mapping[str, str]) -> None:
        """Grow the pool's file."""
        await lvm_source.update(pool, config)

    async def delete(self, pool: Pool) -> None:
        """Remove the images, the thin pool, and the volume group if lxpy has made it."""
        if not await lvm_source.is_lost(pool):
            await mounting.unmount_below(pool.path)
            group = Group.of(pool)
            have = await lvm_group.volumes(group)
            for found in filter(None, map(lvm_group.decode, have.values())):
                area = "containers" if found.type is VolumeType.CONTAINER else "custom"
                raise BadRequest(
                    f'The storage pool is currently in use: "{pool.name}" has volumes in {area}'
                )
            await lvm_group.remove(group, *have)
        await lvm_source.remove(pool)

    async def resources(self, pool: Pool) -> Resources:
        """Tell how full the thin pool is; file systems have their own numbers of inodes."""
        used, total = await lvm_group.thin_pool_usage(Group.of(pool))
        return Resources(space_used=used, space_total=total, inodes_used=0, inodes_total=0)

    # Images

    async def has_image(self, pool: Pool, fingerprint: str) -> bool:
        """Tell whether the image is here, with the file system that new instances get."""
        name = lvm_group.encode_image(fingerprint, filesystems.of_images(pool))
        return name in await lvm_group.volumes(Group.of(pool))

    async def images(self, pool: Pool) -> list[str]:
        """Return the fingerprints of the images that are unpacked here."""
        names = await lvm_group.volumes(Group.of(pool))
        found = (lvm_group.decode_image(name) for name in names)
        return sorted({each for each in found if each is not None})

    async def add_image(self, pool: Pool, fingerprint: str, unpack: Unpack) -> None:
        """Unpack into a volume of the default size."""
        kind = filesystems.of_images(pool)
        image = Volume(fingerprint, VolumeType.IMAGE)
        name = lvm_group.encode_image(fingerprint, kind)
        async with lvm_volumes.making(pool, image, name) as new:
            async with lvm_volumes.formatted(pool, image, new, kind) as top:
                with lvm_volumes.full_told(pool, image):
                    await unpack(top)
                await in_thread(mounting.check_image, top)
            await lvm_group.seal(Group.of(pool), new)

    async def delete_image(self, pool: Pool, fingerprint: str) -> None:
        """Remove the image: instances keep the blocks they share with it."""
        group = Group.of(pool)
        names = await lvm_group.volumes(group)
        doomed = [name for name in names if lvm_group.decode_image(name) == fingerprint]
        await lvm_group.remove(group, *doomed)

    # Volumes

    async def create_volume(self, pool: Pool, volume: Volume, image: str | None) -> None:
        """Make a volume: a snapshot of an image, or empty."""
        if image is None:
            await lvm_volumes.create(pool, volume)
            return
        group = Group.of(pool)
        name = lvm_group.encode_image(image, filesystems.of_images(pool))
        origin = (await lvm_group.volumes(group)).get(name)
        if origin is None:
            raise NotFound(f'Image {image[:12]} is not in storage pool "{pool.name}"')
        kind = filesystems.wanted(pool, volume)
        if origin.filesystem == kind and lvm_volumes.can_become(origin, volume):
            async with lvm_volumes.making(pool, volume) as new:
                await lvm_group.snapshot(group, origin, new)
                await lvm_volumes.fit(pool, volume, origin, new)
            return
        source = Volume(image, VolumeType.IMAGE)
        async with lvm_volumes.at_hand(pool, source, origin), self.filling(pool, volume) as target:
            await trees.copy(layout.volume_path(pool, source), target, (".",), None)

    @asynccontextmanager
    async def filling(self, pool: Pool, volume: Volume) -> AsyncIterator[Path]:
        """Make a volume or a snapshot of the files that the block writes."""
        if volume.content is ContentType.FILESYSTEM:
            make = lvm_volumes.filling_files(pool, volume)
        else:
            make = lvm_volumes.filling_disk(pool, volume)
        async with make as directory:
            with lvm_volumes.full_told(pool, volume):
                yield directory

    async def copy_volume(
        self, pool: Pool, source: Volume, to_pool: Pool, target: Volume, quiet: Quiet
    ) -> None:
        """Take a snapshot of the source; to another pool, copy what is in one."""
        origin = await existing(pool, source)
        here = Group.of(pool) == Group.of(to_pool)
        if not here or not lvm_volumes.can_become(origin, target):
            await across.copy(self, pool, source, to_pool, target, quiet)
            return
        group = Group.of(pool)
        async with lvm_volumes.making(to_pool, target) as new:
            sealed = bool(target.snapshot)
            async with mounting.written_out(pool, source, quiet):
                await lvm_group.snapshot(group, origin, new, read_only=sealed)
            if not sealed:
                await lvm_volumes.fit(pool, target, origin, new)

    async def rename_volume(self, pool: Pool, volume: Volume, target: Volume) -> None:
        """Rename the snapshots, then the volume; what was begun is ended."""
        await lvm_volumes.rename(pool, volume, target)

    async def delete_volume(self, pool: Pool, volume: Volume) -> None:
        """Remove a volume with its snapshots, or one snapshot."""
        group = Group.of(pool)
        doomed = [volume]
        if not volume.snapshot:
            own = await lvm_volumes.snapshots(pool, volume, all=True)
            doomed += [volume.at(each) for each in own]
        for each in doomed:
            await self.unmount(pool, each)
        await lvm_group.remove(group, *(lvm_group.encode(group, each) for each in doomed))

    async def resize_volume(self, pool: Pool, volume: Volume, size_bytes: int | None) -> None:
        """Grow a volume, in use or not; shrink an ext4 that is not in use."""
        await lvm_volumes.resize(pool, volume, size_bytes)

    async def usage(self, pool: Pool, volume: Volume) -> Usage | None:
        """Return what the files of a mounted volume take; of others, the blocks they have."""
        place = layout.volume_path(pool, volume)
        if await in_thread(os.path.ismount, place):
            return await in_thread(filesystems.usage, place)
        found = await existing(pool, volume)
        return Usage(found.used_bytes, found.size_bytes)

    # Snapshots

    async def snapshot_volume(self, pool: Pool, snapshot: Volume, quiet: Quiet) -> None:
        """Take a thin snapshot, which freezes a mounted file system for the moment."""
        origin = await existing(pool, snapshot.whole)
        async with lvm_volumes.making(pool, snapshot) as new:
            async with mounting.written_out(pool, snapshot.whole, quiet):
                await lvm_group.snapshot(Group.of(pool), origin, new, read_only=True)

    async def restore_volume(self, pool: Pool, volume: Volume, snapshot: str) -> None:
        """Put a writable snapshot of the snapshot in the volume's place."""
        await lvm_volumes.restore(pool, volume, snapshot)

    async def snapshots(self, pool: Pool, volume: Volume) -> list[str]:
        """Return the names of a volume's snapshots."""
        return await lvm_volumes.snapshots(pool, volume)

    async def volumes(self, pool: Pool) -> list[Volume]:
        """Return the volumes by type and name; a project is part of the name here."""
        names = await lvm_group.volumes(Group.of(pool))
        found = (lvm_group.decode(each) for each in names.values())
        volumes = [each for each in found if each is not None and not each.snapshot]
        return sorted(volumes, key=lambda each: (each.type, each.name))

    # Use

    async def mount(self, pool: Pool, volume: Volume) -> None:
        """Mount a volume; a block volume is there anyway."""
        found = await existing(pool, volume)
        if found.filesystem:
            await lvm_volumes.mount(pool, volume, found)

    async def unmount(self, pool: Pool, volume: Volume) -> None:
        """Unmount a volume. Guests that run keep what they have of it."""
        await mounting.unmount(layout.volume_path(pool, volume))

    async def rootfs(self, pool: Pool, volume: Volume) -> Rootfs:
        """Return the directory with the files; of a block volume it has none."""
        place = layout.volume_path(pool, volume)
        files = volume.content is ContentType.FILESYSTEM
        if files and not await in_thread(os.path.ismount, place):
            raise NotFound(f'Volume "{volume.label}" of storage pool "{pool.name}" is not mounted')
        return Plain(str(place / lvm_volumes.TOPS[volume.type]))

    async def disk(self, pool: Pool, volume: Volume) -> Path:
        """Return the device of a block volume."""
        found = await existing(pool, volume)
        return Group.of(pool).device(found.name)

    async def image_of(self, pool: Pool, volume: Volume) -> str | None:
        """Return None: a volume needs no image once it is made."""
        return None

    async def metadata(self, pool: Pool, volume: Volume) -> Path:
        """Return the volume's own directory."""
        return self.directory(pool, volume)

    def directory(self, pool: Pool, volume: Volume) -> Path:
        """Return where the volume is mounted, whether it exists or not."""
        return layout.volume_path(pool, volume)

    async def send(self, pool: Pool, volume: Volume, since: str, descriptor: int) -> None:
        """Raise NotSupported: LVM has no streams."""
        raise _no_streams(pool)

    async def receive(self, pool: Pool, volume: Volume, descriptor: int) -> None:
        """Raise NotSupported: LVM has no streams."""
        raise _no_streams(pool)

    async def close(self) -> None:
        """Nothing goes on in the background."""


def _left(found: lvm_group.LogicalVolume) -> bool:
    """Tell whether a crash has left a logical volume that nobody knows of."""
    volume = lvm_group.decode(found)
    hidden = volume is not None and volume.snapshot.startswith(".")
    return hidden or found.name.startswith(lvm_group.NEW)


def _no_streams(pool: Pool) -> NotSupported:
    return NotSupported(f'Storage pool "{pool.name}" of driver "lvm" has no streams of its own')
