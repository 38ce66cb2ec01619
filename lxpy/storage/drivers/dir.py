"""Pools on a plain directory: image read-only below, one writable overlay layer per instance.

    SOURCE/images/FINGERPRINT/{rootfs/,metadata.yaml,templates/}
    SOURCE/containers/NAME/{upper/,work/,image}      image: symlink to ../../images/FINGERPRINT
    SOURCE/containers/NAME/rootfs/                   instead, for an instance without an image
    SOURCE/custom/NAME/
    SOURCE/.trash/                                   trees on their way out

Ids on disk are the guest's own, so a directory that holds guests' files is closed to every other
user of the host (0700): setuid programs and file capabilities in there are real.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from lxpy.doctor import Host
from lxpy.errors import Failed, LxpyError, NotFound, NotSupported
from lxpy.programs import run
from lxpy.storage.drivers import layers, layout
from lxpy.storage.drivers.base import Info, Quiet, Unpack
from lxpy.storage.drivers.users import LINK, Users, linked_image
from lxpy.storage.trash import Trash
from lxpy.storage.volume import (
    Layers,
    Plain,
    Pool,
    Resources,
    Rootfs,
    Usage,
    Volume,
    VolumeType,
    check_fingerprint,
)
from lxpy.threads import in_thread

# In images/FINGERPRINT: the image was deleted while instances stood on it; the last one takes it
# along. The tree must not be unpacked anew meanwhile: overlayfs knows its layers by inode.
_DELETED = "deleted"
# xattr named apart from -a: then a lost attribute is an error.
_COPY = ("cp", "-a", "--preserve=mode,ownership,timestamps,links,xattr", "--reflink=auto",
         "--sparse=auto", "--parents", "--")  # fmt: skip


class _Place:
    """What the driver keeps about one pool."""

    def __init__(self, path: Path) -> None:
        self.trash = Trash(path / ".trash")
        self.users = Users(path / "containers")


class _Making:
    """A volume on its way: where it is made, the image it has taken, whether it has its name."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.new = layout.unfinished(place)
        self.image: str | None = None
        self.claimed = False

    def claim(self) -> None:
        """Give the finished volume its name. Raises Conflict."""
        layout.claim(self.new, self.place)
        self.claimed = True


class DirDriver:
    """See the module; needs nothing but a file system that overlayfs can use."""

    info = Info("dir", "1")

    def __init__(self, host: Host | None = None) -> None:
        self._host = host or Host()
        self._places: dict[Path, _Place] = {}

    def fill(self, name: str, config: dict[str, str], root: Path) -> dict[str, str]:
        """Put the pool below `root` unless it has a source."""
        return {**config, "source": config.get("source") or str(root / name)}

    def mount_point(self, name: str, config: Mapping[str, str], root: Path) -> Path:
        """Return the source: the pool is that directory."""
        return Path(config["source"])

    async def stop(self, pool: Pool) -> None:
        """Nothing is mounted."""

    async def update(self, pool: Pool, config: Mapping[str, str]) -> None:
        """Nothing follows from its config."""

    async def create(self, pool: Pool) -> None:
        """Make a new pool. A source the user named must be an empty directory."""
        await in_thread(layout.make_pool, pool, self._host)

    async def start(self, pool: Pool) -> None:
        """Remove half-made and half-removed trees of an earlier run."""
        place = self._place(pool)
        await in_thread(layout.sweep_pool, pool, place.trash, self._host)
        place.users.forget()
        await in_thread(self._sweep_images, pool)
        await place.trash.empty()

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

    async def has_image(self, pool: Pool, fingerprint: str) -> bool:
        """Tell whether the image is here; takes back a deletion that has not happened yet."""
        image = layout.image_path(pool, fingerprint)

        def check() -> bool:
            with layout.told(pool), self._place(pool).users.settled():
                if not (image / "rootfs").is_dir():
                    return False
                (image / _DELETED).unlink(missing_ok=True)
            return True

        return await in_thread(check)

    async def images(self, pool: Pool) -> list[str]:
        """Return the fingerprints of the images that are unpacked here and not deleted."""

        def names() -> list[str]:
            with layout.told(pool), os.scandir(pool.path / "images") as entries:
                found = [entry.name for entry in entries if not entry.name.startswith(layout.NEW)]
            images = (pool.path / "images" / name for name in found)
            return sorted(each.name for each in images if not (each / _DELETED).exists())

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
            await self._discard(pool, new)
            raise
        await trash.empty()

    async def delete_image(self, pool: Pool, fingerprint: str) -> None:
        """Remove the image, or mark it for the last instance to take along."""
        if await in_thread(self._delete_image, pool, layout.image_path(pool, fingerprint)):
            await self._place(pool).trash.empty()

    async def create_volume(self, pool: Pool, volume: Volume, image: str | None) -> None:
        """Make the volume's directories: a handful of system calls whatever the image's size."""

        def fill(new: Path) -> None:
            if image is not None:
                layout.fill_from_image(new, pool, image)
            elif volume.type is VolumeType.CONTAINER:
                os.mkdir(new / "rootfs", 0o755)

        making = _Making(layout.volume_path(pool, volume))
        fingerprint = check_fingerprint(image) if image is not None else None
        try:
            await in_thread(self._make, pool, making, fingerprint, fill)
        except asyncio.CancelledError:
            if making.claimed:
                await self.delete_volume(pool, volume)
            raise

    async def copy_volume(
        self, pool: Pool, source: Volume, to_pool: Pool, target: Volume, quiet: Quiet
    ) -> None:
        """Copy the writable layer; blocks are shared where the file system can (reflinks)."""
        old = layout.volume_path(pool, source)
        making = _Making(layout.volume_path(to_pool, target))
        crossed = pool.path != to_pool.path
        try:
            with layout.full_told(to_pool):
                await in_thread(self._begin_copy, old, making, to_pool, crossed)
                if names := await in_thread(_names_to_copy, old, source, crossed):
                    await run(*_COPY, *names, str(making.new), cwd=str(old), timeout_s=None)
                await in_thread(_end_copy, making, crossed)
        except BaseException as error:
            if making.claimed:
                await self.delete_volume(to_pool, target)
            else:
                await in_thread(self._give_up, to_pool, making)
                await self._discard(to_pool, making.new)
            if isinstance(error, Failed):
                raise layout.copy_failed(to_pool, source.name, error) from error
            raise

    async def rename_volume(self, pool: Pool, volume: Volume, target: Volume) -> None:
        """Rename the directory. Raises NotFound or Conflict."""
        old, new = layout.volume_path(pool, volume), layout.volume_path(pool, target)
        await in_thread(layout.rename, old, new)

    async def delete_volume(self, pool: Pool, volume: Volume) -> None:
        """Move the volume to the trash and empty it; an image nobody needs any more goes too."""
        if await in_thread(self._delete_volume, pool, volume):
            await self._place(pool).trash.empty()

    def filling(self, pool: Pool, volume: Volume) -> AbstractAsyncContextManager[Path]:
        raise NotSupported("wip")

    async def resize_volume(self, pool: Pool, volume: Volume, size_bytes: int | None) -> None:
        raise NotSupported("wip")

    async def snapshot_volume(self, pool: Pool, snapshot: Volume, quiet: Quiet) -> None:
        raise NotSupported("wip")

    async def restore_volume(self, pool: Pool, volume: Volume, snapshot: str) -> None:
        raise NotSupported("wip")

    async def snapshots(self, pool: Pool, volume: Volume) -> list[str]:
        return []

    async def volumes(self, pool: Pool) -> list[Volume]:
        return []

    async def mount(self, pool: Pool, volume: Volume) -> None:
        """Nothing to mount."""

    async def unmount(self, pool: Pool, volume: Volume) -> None:
        """Nothing to unmount."""

    async def disk(self, pool: Pool, volume: Volume) -> Path:
        raise NotSupported("wip")

    async def send(self, pool: Pool, volume: Volume, since: str, descriptor: int) -> None:
        raise NotSupported("wip")

    async def receive(self, pool: Pool, volume: Volume, descriptor: int) -> None:
        raise NotSupported("wip")

    async def usage(self, pool: Pool, volume: Volume) -> Usage | None:
        """Return None: a directory has no counter, and walking it is no answer to a GET."""
        return None

    async def rootfs(self, pool: Pool, volume: Volume) -> Rootfs:
        """Return the layers, or the plain directory of an instance that has no image."""
        return await in_thread(_rootfs, pool, volume)

    async def image_of(self, pool: Pool, volume: Volume) -> str | None:
        """Read the symlink that names the image."""
        return await in_thread(linked_image, layout.volume_path(pool, volume))

    async def metadata(self, pool: Pool, volume: Volume) -> Path:
        """Return the instance's directory if it has its own metadata.yaml, else the image's."""
        directory = layout.volume_path(pool, volume)

        def find() -> Path:
            if (directory / "metadata.yaml").exists():
                return directory
            fingerprint = linked_image(directory)
            return directory if fingerprint is None else layout.image_path(pool, fingerprint)

        return await in_thread(find)

    def directory(self, pool: Pool, volume: Volume) -> Path:
        """Return where the volume is, whether it exists or not."""
        return layout.volume_path(pool, volume)

    async def close(self) -> None:
        """Nothing goes on in the background: every deletion is awaited."""

    # Below: blocking halves, run in a thread.

    def _make(
        self, pool: Pool, making: _Making, image: str | None, fill: Callable[[Path], None]
    ) -> None:
        with layout.told(pool):
            try:
                self._begin(pool, making, image)
                fill(making.new)
                making.claim()
            except BaseException:
                self._give_up(pool, making)
                layout.discard_new(making.new)
                raise

    def _begin_copy(self, old: Path, making: _Making, to_pool: Pool, crossed: bool) -> None:
        if not old.is_dir():
            raise NotFound(f'Storage pool volume not found: "{old.name}"')
        if crossed:
            layers.check_movable(old, old.name)
        image = linked_image(old)
        with layout.told(to_pool):
            self._begin(to_pool, making, image)
            if image is not None:
                _link_image(making.new, to_pool, image)

    def _begin(self, pool: Pool, making: _Making, image: str | None) -> None:
        """Make the new directory; its image is taken first: a deletion of it waits from then on."""
        if image is not None:
            self._place(pool).users.take(image)
            making.image = image
        os.mkdir(making.new, 0o700)

    def _give_up(self, pool: Pool, making: _Making) -> None:
        if making.image is not None:
            self._place(pool).users.drop(making.image)
            making.image = None

    def _delete_volume(self, pool: Pool, volume: Volume) -> bool:
        directory = layout.volume_path(pool, volume)
        fingerprint = linked_image(directory)
        place = self._place(pool)
        if not directory.is_dir():
            return False
        # Counted before: a first count must still see it.
        with layout.told(pool), place.users.settled() as counts:
            try:
                place.trash.discard(directory)
            except FileNotFoundError:
                return False
            if fingerprint is not None:
                counts[fingerprint] -= 1
                image = layout.image_path(pool, fingerprint)
                if (image / _DELETED).exists():
                    self._delete_image(pool, image)
        return True

    def _delete_image(self, pool: Pool, image: Path) -> bool:
        place = self._place(pool)
        with layout.told(pool), place.users.settled() as counts:
            if not image.exists():
                return False
            if counts[image.name] > 0:
                (image / _DELETED).touch()
                return False
            place.trash.discard(image)
        return True

    def _sweep_images(self, pool: Pool) -> None:
        """Remove images whose last instance went just before a crash."""
        for mark in list((pool.path / "images").glob(f"*/{_DELETED}")):
            self._delete_image(pool, mark.parent)

    def _place(self, pool: Pool) -> _Place:
        place = self._places.get(pool.path)
        return place if place is not None else self._places.setdefault(pool.path, _Place(pool.path))

    async def _discard(self, pool: Pool, tree: Path) -> None:
        """Clean up after a failure, and never hide it: what stays is swept at the next start."""
        trash = self._place(pool).trash
        try:
            await in_thread(trash.discard, tree)
            await asyncio.shield(asyncio.ensure_future(trash.empty()))
        except (OSError, LxpyError):
            pass


def _rootfs(pool: Pool, volume: Volume) -> Rootfs:
    directory = layout.volume_path(pool, volume)
    fingerprint = linked_image(directory)
    if fingerprint is None:
        if not (directory / "rootfs").is_dir():
            raise NotFound(f'Volume "{volume.name}" is not in storage pool "{pool.name}"')
        return Plain(str(directory / "rootfs"))
    lower = layout.image_path(pool, fingerprint) / "rootfs"
    if not lower.is_dir():
        raise Failed(f'Image {fingerprint[:12]} of "{volume.name}" is missing: {lower}')
    return Layers((str(lower),), str(directory))


def _link_image(new: Path, pool: Pool, fingerprint: str) -> None:
    if not (layout.image_path(pool, fingerprint) / "rootfs").is_dir():
        raise NotFound(f'Image {fingerprint[:12]} is not in storage pool "{pool.name}"')
    os.symlink(f"../../images/{fingerprint}", new / LINK)
    os.mkdir(new / "work", 0o700)


def _names_to_copy(old: Path, source: Volume, crossed: bool) -> list[str]:
    """Return what of a volume is copied, relative to its directory."""
    if source.type is VolumeType.CUSTOM:
        return ["."]
    names = ("upper", *(() if crossed else ("work/index",)), "rootfs", "metadata.yaml", "templates")
    return [name for name in names if os.path.lexists(old / name)]


def _end_copy(making: _Making, crossed: bool) -> None:
    if (making.new / "upper").is_dir():
        (layers.settle_elsewhere if crossed else layers.settle_copy)(making.new)
    making.claim()
