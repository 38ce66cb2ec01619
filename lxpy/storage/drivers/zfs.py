"""Pools on ZFS: every volume, snapshot and image is a dataset, and shares what is the same.

    PATH/images/FINGERPRINT/{rootfs/,metadata.yaml,templates/}
    PATH/containers/NAME/{rootfs/,metadata.yaml,templates/}
    PATH/containers-snapshots/NAME/SNAPSHOT/...
    PATH/custom/NAME/...               the files; a block volume is the device of a zvol
    PATH/custom-snapshots/NAME/SNAPSHOT/...
    PATH/.new/DATASET/                 what is being made

Volumes are mounted there while they are in use. Instances need OpenZFS 2.2, the first with
idmapped mounts. Source: LXD docs, "ZFS - zfs"; zfsconcepts(7).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.doctor import Host
from lxpy.errors import BadRequest, NotFound, NotSupported
from lxpy.storage.drivers import across, layout, mounting, zfs_datasets, zfs_source, zfs_volumes
from lxpy.storage.drivers.base import Info, Quiet, Unpack
from lxpy.storage.drivers.zfs_datasets import destroy, destroy_snapshot, encode, listing, root, zfs
from lxpy.storage.drivers.zfs_volumes import existing
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


class ZfsDriver:
    """See the module."""

    def __init__(self, host: Host | None = None) -> None:
        self.info = Info("zfs", os.uname().release)

    # Pools

    def fill(self, name: str, config: dict[str, str], root: Path) -> dict[str, str]:
        """Give the pool a file of its own unless it has a source."""
        return zfs_source.fill(name, config, root)

    def mount_point(self, name: str, config: Mapping[str, str], root: Path) -> Path:
        """Return where its volumes are mounted."""
        return root / name

    async def create(self, pool: Pool) -> None:
        """Make a new pool. A device must have nothing on it, a dataset be empty."""
        await zfs_source.create(pool)

    async def start(self, pool: Pool) -> None:
        """Have the datasets, nothing mounted; remove what an earlier run has left halfway."""
        await zfs_source.start(pool)
        await zfs_datasets.sweep(pool)

    async def stop(self, pool: Pool) -> None:
        """Unmount everything; export a zpool of lxpy's own."""
        await zfs_source.stop(pool)

    async def update(self, pool: Pool, config: Mapping[str, str]) -> None:
        """Grow the pool's file."""
        await zfs_source.update(pool, config)

    async def delete(self, pool: Pool) -> None:
        """Remove the images, and the zpool or dataset if lxpy has made it."""
        if not await in_thread(zfs_source.is_lost, pool):
            for volume in await self.volumes(pool):
                area = "containers" if volume.type is VolumeType.CONTAINER else "custom"
                raise BadRequest(
                    f'The storage pool is currently in use: "{pool.name}" has volumes in {area}'
                )
            await mounting.unmount_below(pool.path)
        await zfs_source.remove(pool)

    async def resources(self, pool: Pool) -> Resources:
        """Return the figures of the root dataset; zfs makes inodes as they are needed."""
        words = ("get", "-H", "-p", "-o", "value", "used,available", root(pool))
        used, available = map(int, (await zfs(*words)).stdout.split())
        return Resources(used, used + available, inodes_used=0, inodes_total=0)

    # Images

    async def has_image(self, pool: Pool, fingerprint: str) -> bool:
        """Tell whether the image is here; takes back a deletion that has not happened yet."""
        image = encode(pool, Volume(fingerprint, VolumeType.IMAGE))
        have = await listing(pool)
        kept = _kept_image(pool, fingerprint)
        if image not in have and kept in have:
            await zfs("rename", kept, image)
            return True
        return image in have

    async def images(self, pool: Pool) -> list[str]:
        """Return the fingerprints of the images that are unpacked here and not deleted."""
        found = zfs_datasets.children_of(await listing(pool), f"{root(pool)}/images")
        return sorted(each.short for each in found)

    async def add_image(self, pool: Pool, fingerprint: str, unpack: Unpack) -> None:
        """Unpack into a dataset and take the snapshot that instances are clones of."""
        image = Volume(fingerprint, VolumeType.IMAGE)
        async with zfs_volumes.making(pool, image, encode(pool, image)) as new:
            async with zfs_volumes.new_files(pool, image, new) as top:
                with layout.full_told(pool):
                    await unpack(top)
                await in_thread(mounting.check_image, top)
            await zfs("snapshot", f"{new}@{zfs_datasets.IMAGE}")

    async def delete_image(self, pool: Pool, fingerprint: str) -> None:
        """Remove the image, at once or with the last instance that is a clone of it."""
        image = encode(pool, Volume(fingerprint, VolumeType.IMAGE))
        await destroy(pool, image, Path(_kept_image(pool, fingerprint)).name)

    # Volumes

    async def create_volume(self, pool: Pool, volume: Volume, image: str | None) -> None:
        """Make a volume: a clone of an image, or empty."""
        if image is None:
            await zfs_volumes.create(pool, volume)
            return
        origin = f"{encode(pool, Volume(image, VolumeType.IMAGE))}@{zfs_datasets.IMAGE}"
        if origin not in await listing(pool):
            raise NotFound(f'Image {image[:12]} is not in storage pool "{pool.name}"')
        async with zfs_volumes.making(pool, volume, encode(pool, volume)) as new:
            await zfs_volumes.clone(pool, origin, new, volume)

    @asynccontextmanager
    async def filling(self, pool: Pool, volume: Volume) -> AsyncIterator[Path]:
        """Make a volume of the files that the block writes, or a snapshot from elsewhere."""
        if volume.content is ContentType.FILESYSTEM:
            make = zfs_volumes.filling_files(pool, volume)
        else:
            make = zfs_volumes.filling_disk(pool, volume)
        async with make as directory:
            with layout.full_told(pool):
                yield directory

    async def copy_volume(
        self, pool: Pool, source: Volume, to_pool: Pool, target: Volume, quiet: Quiet
    ) -> None:
        """Clone a snapshot of the source; to another pool, copy what is in one."""
        await existing(pool, source)
        if root(pool) != root(to_pool):
            await across.copy(self, pool, source, to_pool, target, quiet)
            return
        origin, own = await zfs_volumes.snapshot_to_clone(pool, source)
        try:
            if own:
                async with mounting.written_out(pool, source, quiet):
                    await zfs("snapshot", origin)
            place = await zfs_volumes.place_for(pool, target)
            async with zfs_volumes.making(pool, target, place) as new:
                await zfs_volumes.clone(pool, origin, new, target)
        except BaseException:
            if own:
                await zfs_volumes.quietly(destroy_snapshot(pool, origin))
            raise

    async def rename_volume(self, pool: Pool, volume: Volume, target: Volume) -> None:
        """Rename a dataset with its snapshots, or one snapshot."""
        await zfs_volumes.rename(pool, volume, target)

    async def delete_volume(self, pool: Pool, volume: Volume) -> None:
        """Remove a volume with its snapshots, or one snapshot."""
        names = [] if volume.snapshot else await zfs_volumes.snapshots(pool, volume, all=True)
        for each in (*(volume.at(name) for name in names), volume):
            await self.unmount(pool, each)
        if volume.snapshot:
            await destroy_snapshot(pool, zfs_datasets.encode_snapshot(pool, volume))
            await destroy(pool, zfs_datasets.foreign(pool, volume))
            return
        for name in names:
            await destroy(pool, zfs_datasets.foreign(pool, volume.at(name)))
        await destroy(pool, zfs_datasets.foreign(pool, volume))
        await destroy(pool, encode(pool, volume))

    async def resize_volume(self, pool: Pool, volume: Volume, size_bytes: int | None) -> None:
        """Set the quota of a volume, in use or not; or grow its disk."""
        await zfs_volumes.resize(pool, volume, size_bytes)

    async def usage(self, pool: Pool, volume: Volume) -> Usage | None:
        """Return what a volume takes, what it shares included."""
        found = await existing(pool, volume)
        return Usage(found.used_bytes, found.limit_bytes)

    # Snapshots

    async def snapshot_volume(self, pool: Pool, snapshot: Volume, quiet: Quiet) -> None:
        """Take a snapshot: writing stops for as long as the kernel needs for it."""
        await existing(pool, snapshot.whole)
        await zfs_volumes.refuse_taken(pool, snapshot)
        name = zfs_datasets.encode_snapshot(pool, snapshot)
        try:
            async with mounting.written_out(pool, snapshot.whole, quiet):
                await zfs("snapshot", name)
        except BaseException:
            await zfs_volumes.quietly(destroy_snapshot(pool, name))
            raise

    async def restore_volume(self, pool: Pool, volume: Volume, snapshot: str) -> None:
        """Roll back to the newest snapshot; to an older one, copy what is different."""
        await zfs_volumes.restore(self, pool, volume, snapshot)

    async def snapshots(self, pool: Pool, volume: Volume) -> list[str]:
        """Return the names of a volume's snapshots."""
        return await zfs_volumes.snapshots(pool, volume)

    async def volumes(self, pool: Pool) -> list[Volume]:
        """Return the volumes by type and name; a project is part of the name here."""
        have = await listing(pool)
        return [
            Volume(each.short, kind, content=each.content)
            for kind, area in ((VolumeType.CONTAINER, "containers"), (VolumeType.CUSTOM, "custom"))
            for each in zfs_datasets.children_of(have, f"{root(pool)}/{area}")
        ]

    # Use

    async def mount(self, pool: Pool, volume: Volume) -> None:
        """Mount a volume or snapshot; wait for the device of a block volume."""
        found = await existing(pool, volume)
        if volume.content is ContentType.FILESYSTEM:
            options = "ro" if volume.snapshot else ""
            await mounting.mount("zfs", found.name, layout.volume_path(pool, volume), options)
        else:
            await zfs_datasets.wait_for_device(found.name)

    async def unmount(self, pool: Pool, volume: Volume) -> None:
        """Unmount a volume. Guests that run keep what they have of it."""
        await mounting.unmount(layout.volume_path(pool, volume))

    async def rootfs(self, pool: Pool, volume: Volume) -> Rootfs:
        """Return the directory with the files; of a block volume it has none."""
        place = layout.volume_path(pool, volume)
        files = volume.content is ContentType.FILESYSTEM
        if files and not await in_thread(os.path.ismount, place):
            raise NotFound(f'Volume "{volume.label}" of storage pool "{pool.name}" is not mounted')
        return Plain(str(place if volume.type is VolumeType.CUSTOM else place / "rootfs"))

    async def disk(self, pool: Pool, volume: Volume) -> Path:
        """Return the device of a block volume."""
        return await zfs_datasets.wait_for_device((await existing(pool, volume)).name)

    async def image_of(self, pool: Pool, volume: Volume) -> str | None:
        """Return None: an image stays for as long as a clone of it needs it."""
        return None

    async def metadata(self, pool: Pool, volume: Volume) -> Path:
        """Return the volume's own directory."""
        return self.directory(pool, volume)

    def directory(self, pool: Pool, volume: Volume) -> Path:
        """Return where the volume is mounted, whether it exists or not."""
        return layout.volume_path(pool, volume)

    async def send(self, pool: Pool, volume: Volume, since: str, descriptor: int) -> None:
        """Raise NotSupported: streams of zfs have not been tried."""
        raise _no_streams(pool)

    async def receive(self, pool: Pool, volume: Volume, descriptor: int) -> None:
        """Raise NotSupported: streams of zfs have not been tried."""
        raise _no_streams(pool)

    async def close(self) -> None:
        """Nothing goes on in the background."""


def _kept_image(pool: Pool, fingerprint: str) -> str:
    return f"{root(pool)}/deleted/image-{fingerprint}"


def _no_streams(pool: Pool) -> NotSupported:
    return NotSupported(f'Storage pool "{pool.name}" of driver "zfs" gives no streams of its own')
