"""Pools on a plain directory: ext4, xfs or btrfs, nothing to be prepared.

    SOURCE/images/FINGERPRINT/{rootfs/,metadata.yaml,templates/}
    SOURCE/{containers,containers-snapshots,layers}/     instances, see stacked.py and chains.py
    SOURCE/{custom,custom-snapshots}/                    custom volumes, see directories.py
    SOURCE/.trash/                                       trees on their way out

Ids on disk are the guest's own, so a directory that holds guests' files is closed to every other
user of the host (0700): setuid programs and file capabilities in there are real.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.doctor import Host
from lxpy.errors import LxpyError, NotSupported
from lxpy.storage.drivers import layout, quotas
from lxpy.storage.drivers.base import Info, Quiet, Unpack
from lxpy.storage.drivers.chains import DELETED, Chains
from lxpy.storage.drivers.directories import Directories
from lxpy.storage.drivers.flatten import Flattener
from lxpy.storage.drivers.stacked import Stacked
from lxpy.storage.trash import Trash
from lxpy.storage.volume import (
    ContentType,
    Pool,
    Resources,
    Rootfs,
    Usage,
    Volume,
    VolumeType,
)
from lxpy.threads import in_thread


class _Place:
    """What the driver keeps about one pool."""

    def __init__(self, pool: Pool) -> None:
        self.trash = Trash(pool.path / ".trash")
        self.chains = Chains(pool.path, self.trash)
        self.stacked = Stacked(pool, self.chains)
        self.directories = Directories(pool, self.trash)
        self.flattener = Flattener(self.stacked, self.chains)

    def volumes(self, volume: Volume) -> Stacked | Directories:
        """Return what looks after a volume of this type."""
        return self.stacked if volume.type is VolumeType.CONTAINER else self.directories


class DirDriver:
    """See the module; needs nothing but a file system that overlayfs can use."""

    info = Info("dir", "1")

    def __init__(self, host: Host | None = None) -> None:
        self._host = host or Host()
        self._places: dict[Path, _Place] = {}

    # Pools

    def fill(self, name: str, config: dict[str, str], root: Path) -> dict[str, str]:
        """Put the pool below `root` unless it has a source."""
        return {**config, "source": config.get("source") or str(root / name)}

    def mount_point(self, name: str, config: Mapping[str, str], root: Path) -> Path:
        """Return the source: the pool is that directory."""
        return Path(config["source"])

    async def create(self, pool: Pool) -> None:
        """Make a new pool. A source the user named must be an empty directory."""
        await in_thread(layout.make_pool, pool, self._host)
        try:
            await quotas.check(pool)
        except BaseException:
            await in_thread(layout.remove_pool, pool)
            raise

    async def start(self, pool: Pool) -> None:
        """Remove half-made and half-removed trees of an earlier run."""
        place = self._place(pool)
        await in_thread(layout.sweep_pool, pool, place.trash, self._host)
        place.chains.forget()
        await in_thread(place.chains.sweep)
        await quotas.unmount_below(pool.path / ".trash")
        await place.trash.empty()

    async def stop(self, pool: Pool) -> None:
        """Nothing of the pool itself is mounted."""
        await self._place(pool).flattener.close()

    async def update(self, pool: Pool, config: Mapping[str, str]) -> None:
        """Check what volumes are to be held to their sizes by."""
        await quotas.check(Pool(pool.name, pool.driver, config, pool.mount_point))

    async def delete(self, pool: Pool) -> None:
        """Remove the pool's directories; the source itself stays if the user made it."""
        trash = self._place(pool).trash
        await in_thread(layout.clear_pool, pool, trash)
        await trash.empty()
        await in_thread(layout.remove_pool, pool)
        self._places.pop(pool.path, None)

    async def resources(self, pool: Pool) -> Resources:
        """Return the figures of the file system the pool lies on."""
        try:
            found = await in_thread(os.statvfs, pool.path)
        except FileNotFoundError as error:
            raise layout.missing(pool) from error
        return Resources(
            space_used=(found.f_blocks - found.f_bfree) * found.f_frsize,
            space_total=found.f_blocks * found.f_frsize,
            inodes_used=found.f_files - found.f_ffree,
            inodes_total=found.f_files,
        )

    # Images

    async def has_image(self, pool: Pool, fingerprint: str) -> bool:
        """Tell whether the image is here; takes back a deletion that has not happened yet."""
        image = layout.image_path(pool, fingerprint)

        def check() -> bool:
            with layout.told(pool), self._place(pool).chains.settled():
                if not (image / "rootfs").is_dir():
                    return False
                (image / DELETED).unlink(missing_ok=True)
            return True

        return await in_thread(check)

    async def images(self, pool: Pool) -> list[str]:
        """Return the fingerprints of the images that are unpacked here and not deleted."""

        def names() -> list[str]:
            with layout.told(pool), os.scandir(pool.path / "images") as entries:
                found = [entry.name for entry in entries if not entry.name.startswith(layout.NEW)]
            images = (pool.path / "images" / name for name in found)
            return sorted(each.name for each in images if not (each / DELETED).exists())

        return await in_thread(names)

    async def add_image(self, pool: Pool, fingerprint: str, unpack: Unpack) -> None:
        """Unpack beside the place, write it out to the disk, then rename."""
        image = layout.image_path(pool, fingerprint)
        new = layout.unfinished(image)
        trash = self._place(pool).trash
        try:
            with layout.full_told(pool):
                await in_thread(layout.begin, new, pool)
                await unpack(new)
                await in_thread(layout.publish_image, new, image, trash)
        except BaseException:
            await self._discard(trash, new)
            raise
        await trash.empty()

    async def delete_image(self, pool: Pool, fingerprint: str) -> None:
        """Remove the image, or mark it for the last instance to take along."""
        image, place = layout.image_path(pool, fingerprint), self._place(pool)

        def mark() -> None:
            with layout.told(pool), place.chains.settled():
                if image.exists():
                    (image / DELETED).touch()
                    place.chains.discard(image)

        await in_thread(mark)
        await place.trash.empty()

    # Volumes

    async def create_volume(self, pool: Pool, volume: Volume, image: str | None) -> None:
        """Make the volume: a handful of system calls whatever the image's size."""
        place = self._place(pool)
        async with _tidied(place):
            if volume.type is VolumeType.CONTAINER:
                await place.stacked.create(volume, image)
            else:
                await place.directories.create(volume)

    @asynccontextmanager
    async def filling(self, pool: Pool, volume: Volume) -> AsyncIterator[Path]:
        """Make a volume or a snapshot of the files that the block writes."""
        place = self._place(pool)
        async with _tidied(place), place.volumes(volume).filling(volume) as directory:
            with layout.full_told(pool):
                yield directory

    async def copy_volume(
        self, pool: Pool, source: Volume, to_pool: Pool, target: Volume, quiet: Quiet
    ) -> None:
        """Copy a volume: within a pool an instance's files are shared, not copied."""
        here, there = self._place(pool), self._place(to_pool)
        await here.flattener.stop(source)
        async with _tidied(here), _tidied(there):
            if source.type is not VolumeType.CONTAINER:
                await here.directories.copy_to(source, there.directories, target, quiet)
            elif here is there:
                await here.stacked.copy(source, target, quiet)
            else:
                await here.stacked.copy_to(source, there.stacked, target, quiet)

    async def rename_volume(self, pool: Pool, volume: Volume, target: Volume) -> None:
        """Rename the directories of a volume and its snapshots. Raises NotFound or Conflict."""

        def rename() -> None:
            old, new = layout.volume_path(pool, volume), layout.volume_path(pool, target)
            if new.exists() and old.exists():
                raise layout.taken(new)
            if not volume.snapshot:
                before = layout.snapshots_path(pool, volume)
                if before.is_dir() and (old.exists() or new.exists()):
                    layout.rename(before, layout.snapshots_path(pool, target))
                    if new.exists():
                        return  # a crash had come between the two, the other way round
            layout.rename(old, new)

        await in_thread(rename)

    async def delete_volume(self, pool: Pool, volume: Volume) -> None:
        """Move the volume to the trash and empty it; layers nobody needs any more go, too."""
        place = self._place(pool)
        await place.flattener.stop(volume)
        await place.volumes(volume).delete(volume)
        await place.trash.empty()

    async def resize_volume(self, pool: Pool, volume: Volume, size_bytes: int | None) -> None:
        """Hold the volume to another size."""
        await self._place(pool).flattener.stop(volume)
        place = self._place(pool)
        sized = Volume(
            volume.name, volume.type, volume.project,
            {"size": "" if size_bytes is None else str(size_bytes)}, volume.content,
        )  # fmt: skip
        try:
            await place.volumes(volume).resize(sized, size_bytes)
        finally:
            await place.trash.empty()

    async def usage(self, pool: Pool, volume: Volume) -> Usage | None:
        """Return what a volume with a size takes; walking others is no answer to a GET."""
        return await self._place(pool).volumes(volume).usage(volume)

    # Snapshots

    async def snapshot_volume(self, pool: Pool, snapshot: Volume, quiet: Quiet) -> None:
        """Make a snapshot: of an instance at rest by a layer, else by a copy of what it wrote."""
        place = self._place(pool)
        await place.flattener.stop(snapshot.whole)
        async with _tidied(place):
            await place.volumes(snapshot).snapshot(snapshot, quiet)
        await place.flattener.consider(snapshot.whole)

    async def restore_volume(self, pool: Pool, volume: Volume, snapshot: str) -> None:
        """Make a volume at rest what its snapshot is."""
        place = self._place(pool)
        await place.flattener.stop(volume)
        try:
            await place.volumes(volume).restore(volume, snapshot)
        finally:
            await place.trash.empty()
        await place.flattener.consider(volume)

    async def snapshots(self, pool: Pool, volume: Volume) -> list[str]:
        """Return the names of a volume's snapshots."""
        return await in_thread(_names, layout.snapshots_path(pool, volume))

    async def volumes(self, pool: Pool) -> list[Volume]:
        """Return the volumes by type and name; a project is part of the name here."""

        def find() -> list[Volume]:
            with layout.told(pool):
                instances = [Volume(name) for name in _names(pool.path / "containers")]
                custom = _names(pool.path / "custom")
            return [*instances, *(_custom(pool, name) for name in custom)]

        return await in_thread(find)

    # Use

    async def mount(self, pool: Pool, volume: Volume) -> None:
        """Have a volume ready to be used."""
        await self._place(pool).flattener.stop(volume)
        await self._place(pool).volumes(volume).mount(volume)

    async def unmount(self, pool: Pool, volume: Volume) -> None:
        """Let a volume rest."""
        place = self._place(pool)
        await place.volumes(volume).unmount(volume)
        await place.flattener.consider(volume)

    async def rootfs(self, pool: Pool, volume: Volume) -> Rootfs:
        """Return the layers of an instance, or the directory of a custom volume."""
        place = self._place(pool)
        if volume.type is VolumeType.CONTAINER:
            return await place.stacked.rootfs(volume)
        return await in_thread(place.directories.rootfs, volume)

    async def disk(self, pool: Pool, volume: Volume) -> Path:
        """Return the file of a block volume."""
        return await in_thread(self._place(pool).directories.disk, volume)

    async def image_of(self, pool: Pool, volume: Volume) -> str | None:
        """Return the image an instance stands on, None for a custom volume."""
        if volume.type is not VolumeType.CONTAINER:
            return None
        return await self._place(pool).stacked.image_of(volume)

    async def metadata(self, pool: Pool, volume: Volume) -> Path:
        """Return the instance's directory if it has its own metadata.yaml, else the image's."""
        return await in_thread(self._place(pool).stacked.metadata, volume)

    def directory(self, pool: Pool, volume: Volume) -> Path:
        """Return where the volume is, whether it exists or not."""
        return layout.volume_path(pool, volume)

    async def send(self, pool: Pool, volume: Volume, since: str, descriptor: int) -> None:
        """Raise NotSupported: a directory has no stream of its own."""
        raise _no_streams(pool)

    async def receive(self, pool: Pool, volume: Volume, descriptor: int) -> None:
        """Raise NotSupported: a directory has no stream of its own."""
        raise _no_streams(pool)

    async def close(self) -> None:
        """Give up flattening: it begins anew another time."""
        for place in self._places.values():
            await place.flattener.close()

    def _place(self, pool: Pool) -> _Place:
        place = self._places.get(pool.path)
        if place is None:
            place = self._places.setdefault(pool.path, _Place(pool))
        place.stacked.pool = place.directories.pool = pool
        return place

    async def _discard(self, trash: Trash, tree: Path) -> None:
        """Clean up after a failure, and never hide it: what stays is swept at the next start."""
        try:
            await in_thread(trash.discard, tree)
            await asyncio.shield(asyncio.ensure_future(trash.empty()))
        except (OSError, LxpyError):
            pass


@asynccontextmanager
async def _tidied(place: _Place) -> AsyncIterator[None]:
    """Remove at once what a block that fails has made; say when it was for want of room."""
    try:
        with layout.full_told(place.stacked.pool):
            yield
    except BaseException:
        await asyncio.shield(asyncio.ensure_future(place.trash.empty()))
        raise


def _no_streams(pool: Pool) -> NotSupported:
    return NotSupported(f'Storage pool "{pool.name}" of driver "dir" has no streams of its own')


def _names(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(each.name for each in entries if not each.name.startswith("."))
    except FileNotFoundError:
        return []


def _custom(pool: Pool, name: str) -> Volume:
    block = (pool.path / "custom" / name / "root.img").exists()
    content = ContentType.BLOCK if block else ContentType.FILESYSTEM
    return Volume(name, VolumeType.CUSTOM, content=content)
