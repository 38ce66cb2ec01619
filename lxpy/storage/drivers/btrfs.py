"""Pools on btrfs: every volume, snapshot and image is a subvolume, and shares what is the same.

    PATH/images/FINGERPRINT/{rootfs/,metadata.yaml,templates/}         read-only
    PATH/containers/NAME/{rootfs/,metadata.yaml,templates/}
    PATH/containers-snapshots/NAME/SNAPSHOT/...                         read-only
    PATH/custom/NAME/...                   the files, or root.img of a block volume
    PATH/custom-snapshots/NAME/SNAPSHOT/...                             read-only

Snapshots, copies and restores take the same few milliseconds whatever is in a volume. What is
being made or removed has a name that begins with `.new-`; `start` removes those.
Source: LXD docs, "Btrfs - btrfs"; btrfs(5).
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.doctor import Host
from lxpy.storage import files, trees
from lxpy.storage.drivers import btrfs_source, btrfs_streams, layout
from lxpy.storage.drivers import btrfs_subvolumes as subvolumes
from lxpy.storage.drivers import btrfs_volumes as work
from lxpy.storage.drivers.base import Info, Quiet, Unpack, quiet_already
from lxpy.storage.drivers.btrfs_subvolumes import opened
from lxpy.storage.transfer import BLOCK_FILE
from lxpy.storage.volume import Plain, Pool, Resources, Rootfs, Usage, Volume, VolumeType
from lxpy.threads import in_thread, in_thread_or_undo


class BtrfsDriver:
    """See the module."""

    def __init__(self, host: Host | None = None) -> None:
        self.info = Info("btrfs", os.uname().release, streams=True)

    # Pools

    def fill(self, name: str, config: dict[str, str], root: Path) -> dict[str, str]:
        """Give the pool a file of its own unless it has a source."""
        return btrfs_source.fill(name, config, root)

    def mount_point(self, name: str, config: Mapping[str, str], root: Path) -> Path:
        """Return where its file system is mounted, or the source that is a directory."""
        return btrfs_source.mount_point(name, config, root)

    async def create(self, pool: Pool) -> None:
        """Make a new pool. A directory must be empty, a device have no file system."""
        await btrfs_source.create(pool)
        try:
            await in_thread(work.prepare, pool)
        except BaseException:
            await btrfs_source.remove(pool)
            raise

    async def start(self, pool: Pool) -> None:
        """Mount the pool, and remove what an earlier run has left half-made or half-removed."""
        await btrfs_source.mount(pool)
        await in_thread(work.sweep, pool)

    async def stop(self, pool: Pool) -> None:
        """Unmount the pool unless it is a directory."""
        await btrfs_source.unmount(pool)

    async def update(self, pool: Pool, config: Mapping[str, str]) -> None:
        """Grow the pool's file, mount the pool with other options."""
        await btrfs_source.update(pool, config)

    async def delete(self, pool: Pool) -> None:
        """Remove the pool's subvolumes and its file; a directory of the user's stays."""
        lost = await btrfs_source.is_lost(pool)
        if not lost:
            await btrfs_source.mount(pool)
            await in_thread(work.check_unused, pool)
        if btrfs_source.kind(pool) is not btrfs_source.Kind.DIRECTORY:
            await btrfs_source.remove(pool)
        elif not lost:
            await in_thread(work.clear, pool)

    async def resources(self, pool: Pool) -> Resources:
        """Return the figures of the file system; btrfs makes inodes as they are needed."""

        def look() -> os.statvfs_result:
            with layout.told(pool), opened(pool.path / "containers") as descriptor:
                return os.fstatvfs(descriptor)

        found = await in_thread(look)
        return Resources(
            space_used=(found.f_blocks - found.f_bfree) * found.f_frsize,
            space_total=found.f_blocks * found.f_frsize,
            inodes_used=0,
            inodes_total=0,
        )

    # Images

    async def has_image(self, pool: Pool, fingerprint: str) -> bool:
        """Tell whether the image is here."""

        def check() -> bool:
            with layout.told(pool):
                return (layout.image_path(pool, fingerprint) / "rootfs").is_dir()

        return await in_thread(check)

    async def images(self, pool: Pool) -> list[str]:
        """Return the fingerprints of the images that are unpacked here."""
        return await in_thread(work.names, pool, pool.path / "images")

    async def add_image(self, pool: Pool, fingerprint: str, unpack: Unpack) -> None:
        """Unpack into a subvolume, write it out to the disk, then rename."""
        image = Volume(fingerprint, VolumeType.IMAGE)
        async with self._making(pool, image) as new:
            await in_thread(subvolumes.create, new, 0o700)
            await unpack(new)
            await in_thread(work.check_image, new)

    async def delete_image(self, pool: Pool, fingerprint: str) -> None:
        """Remove the image: volumes keep what they share with it."""
        await in_thread(work.delete, pool, [layout.image_path(pool, fingerprint)])

    # Volumes

    async def create_volume(self, pool: Pool, volume: Volume, image: str | None) -> None:
        """Make a volume: a snapshot of an image, or empty."""
        async with self._making(pool, volume) as new:
            if image is None:
                await in_thread(work.create, volume, new)
                return
            await in_thread(work.clone_image, pool, image, new)

    @asynccontextmanager
    async def filling(self, pool: Pool, volume: Volume) -> AsyncIterator[Path]:
        """Make a volume or a snapshot of the files that the block writes."""
        async with self._making(pool, volume) as new:
            await in_thread(work.create_empty, volume, new)
            yield new
            await in_thread(files.syncfs, new)

    async def copy_volume(
        self, pool: Pool, source: Volume, to_pool: Pool, target: Volume, quiet: Quiet
    ) -> None:
        """Take a snapshot of the source; on another file system, copy one."""
        old = await in_thread(work.existing, pool, source)
        async with self._making(to_pool, target) as new:
            try:
                await _clone(old, new, quiet)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                await self._copy_across(pool, old, target, new, quiet)

    async def _copy_across(
        self, pool: Pool, old: Path, target: Volume, new: Path, quiet: Quiet
    ) -> None:
        still = layout.unfinished(old)
        try:
            await _clone(old, still, quiet)
            await in_thread(work.create_empty, target, new)
            await trees.copy(still, new, (".",), None)
            await in_thread(files.syncfs, new)
        finally:
            await in_thread(work.discard, pool, still)

    async def rename_volume(self, pool: Pool, volume: Volume, target: Volume) -> None:
        """Rename a volume, then the directory of its snapshots; what was begun is ended."""
        await in_thread(work.rename, pool, volume, target)

    async def delete_volume(self, pool: Pool, volume: Volume) -> None:
        """Remove a volume's subvolumes; the kernel frees their space afterwards."""
        await in_thread(work.delete_volume, pool, volume)

    async def resize_volume(self, pool: Pool, volume: Volume, size_bytes: int | None) -> None:
        """Set the limit of the volume's quota group, or the size of its disk."""
        await in_thread(work.resize, pool, volume, size_bytes)

    async def usage(self, pool: Pool, volume: Volume) -> Usage | None:
        """Return what the volume took at the last commit: up to half a minute ago."""
        return await in_thread(work.usage, pool, volume)

    # Snapshots

    async def snapshot_volume(self, pool: Pool, snapshot: Volume, quiet: Quiet) -> None:
        """Take a snapshot: writing stops for as long as the kernel needs for it."""
        old = await in_thread(work.existing, pool, snapshot.whole)
        async with self._making(pool, snapshot) as new:
            await _clone(old, new, quiet)

    async def restore_volume(self, pool: Pool, volume: Volume, snapshot: str) -> None:
        """Put a writable snapshot of the snapshot in the volume's place."""
        place = await in_thread(work.existing, pool, volume)
        source = await in_thread(work.existing, pool, volume.at(snapshot))
        new = layout.unfinished(place)

        def restore() -> None:
            with layout.told(pool):
                subvolumes.clone(source, new)
                work.hold(new, volume)
                files.exchange(new, place)

        try:
            await in_thread(restore)
        finally:
            await in_thread(work.discard, pool, new)  # what was there before, or what was begun

    async def snapshots(self, pool: Pool, volume: Volume) -> list[str]:
        """Return the names of a volume's snapshots."""
        return await in_thread(work.names, pool, layout.snapshots_path(pool, volume))

    async def volumes(self, pool: Pool) -> list[Volume]:
        """Return the volumes by type and name; a project is part of the name here."""

        return await in_thread(work.volumes, pool)

    # Use

    async def mount(self, pool: Pool, volume: Volume) -> None:
        """See that the volume is there: it is mounted with its pool."""
        await in_thread(work.existing, pool, volume)

    async def unmount(self, pool: Pool, volume: Volume) -> None:
        """Leave it as it is."""

    async def rootfs(self, pool: Pool, volume: Volume) -> Rootfs:
        """Return the directory with the files."""
        place = await in_thread(work.existing, pool, volume)
        return Plain(str(place if volume.type is VolumeType.CUSTOM else place / "rootfs"))

    async def disk(self, pool: Pool, volume: Volume) -> Path:
        """Return the file of a block volume."""
        return await in_thread(work.existing, pool, volume) / BLOCK_FILE

    async def image_of(self, pool: Pool, volume: Volume) -> str | None:
        """Return None: a volume needs no image once it is made."""
        return None

    async def metadata(self, pool: Pool, volume: Volume) -> Path:
        """Return the volume's own directory."""
        return self.directory(pool, volume)

    def directory(self, pool: Pool, volume: Volume) -> Path:
        """Return where the volume is, whether it exists or not."""
        return layout.volume_path(pool, volume)

    # Streams

    async def send(self, pool: Pool, volume: Volume, since: str, descriptor: int) -> None:
        """Write what `btrfs send` writes of a volume or snapshot."""
        place = await in_thread(work.existing, pool, volume)
        parent = await in_thread(work.existing, pool, volume.at(since)) if since else None
        if volume.snapshot:
            await btrfs_streams.send(place, parent, descriptor)
            return
        still = layout.unfinished(place)
        try:
            await _clone(place, still, quiet_already)
            await in_thread(subvolumes.seal, still)
            await btrfs_streams.send(still, parent, descriptor)
        finally:
            await in_thread(work.discard, pool, still)

    async def receive(self, pool: Pool, volume: Volume, descriptor: int) -> None:
        """Make a volume or snapshot of what `btrfs receive` reads."""
        async with self._making(pool, volume) as new:
            await btrfs_streams.receive(new, volume, descriptor)

    async def close(self) -> None:
        """Nothing goes on in the background."""

    @asynccontextmanager
    async def _making(self, pool: Pool, volume: Volume) -> AsyncIterator[Path]:
        """Make a volume, snapshot or image at the path that the block gets.

        At its end it is held to its size, or takes no writes any more, and has its name.
        Raises Conflict.
        """
        place = layout.volume_path(pool, volume)
        new = layout.unfinished(place)
        await in_thread(work.make_room, pool, volume, place)
        try:
            with layout.full_told(pool):
                yield new
                await in_thread_or_undo(
                    lambda: work.finish(pool, volume, new, place),
                    lambda _: work.discard(pool, place),
                )
        except BaseException:
            await in_thread(work.discard, pool, new)
            await in_thread(work.leave_room, volume, place)
            raise


async def _clone(source: Path, target: Path, quiet: Quiet) -> None:
    """Take a snapshot within `quiet`; most of what is to be written out first is so before."""
    if quiet is not quiet_already:
        await in_thread(files.syncfs, source)
    async with quiet():
        await in_thread(subvolumes.clone, source, target)
