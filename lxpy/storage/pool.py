"""All storage pools behind one door: finds the driver, shares the unpacking of images."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from lxpy.doctor import Host
from lxpy.errors import Failed
from lxpy.storage import keys, transfer
from lxpy.storage.drivers import DRIVERS, Driver, Info
from lxpy.storage.drivers.base import Quiet, Unpack, quiet_already
from lxpy.storage.drivers.layout import full_told, read_only
from lxpy.storage.holders import Holders
from lxpy.storage.volume import (
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

_MOMENT_S = 2.0


class StoragePools:
    """Pools below one directory (`LXPY_DIR/storage-pools`), or at a source of their own."""

    def __init__(self, root: Path, host: Host | None = None) -> None:
        self._root = root
        looked_at = host or Host()
        self._drivers: dict[str, Driver] = {name: make(looked_at) for name, make in DRIVERS.items()}
        self._unpacking: dict[tuple[str, str], _Shared] = {}
        self._holders = Holders(self._mount, self._unmount)
        self._tokens = itertools.count()

    def drivers(self) -> list[Info]:
        """Return the drivers this build has."""
        return [driver.info for driver in self._drivers.values()]

    def info(self, pool: Pool) -> Info:
        """Return what the pool's driver is good at."""
        return self._of(pool).info

    # Pools

    def fill(self, name: str, driver: str, config: Mapping[str, str]) -> dict[str, str]:
        """Return the config with what a new pool gets by default.

        Raises Failed for an unknown driver, InvalidConfig for an unknown key or a bad value.
        """
        filled = dict(config)
        if filled.get("source"):
            filled.setdefault("volatile.initial_source", filled["source"])
        filled = self._driver(driver).fill(name, filled, self._root)
        keys.validate_pool(driver, filled)
        return filled

    def pool(self, name: str, driver: str, config: Mapping[str, str]) -> Pool:
        """Return the pool that a row of the database, or `fill`, describes. Raises Failed."""
        place = self._driver(driver).mount_point(name, config, self._root)
        return Pool(name, driver, dict(config), place)

    def validate(self, driver: str, config: Mapping[str, str]) -> None:
        """Check a pool's config. Raises Failed or InvalidConfig."""
        self._driver(driver)
        keys.validate_pool(driver, config)

    def validate_volume(self, pool: Pool, config: Mapping[str, str]) -> None:
        """Check a volume's config. Raises Failed or InvalidConfig."""
        self._of(pool)
        keys.validate_volume(pool.driver, config)

    async def create(self, pool: Pool) -> None:
        """Make a new pool at its source, started."""
        await self._of(pool).create(pool)

    async def start(self, pool: Pool) -> None:
        """Make the pool usable and remove what a crash left (call once at daemon start)."""
        await self._of(pool).start(pool)

    async def stop(self, pool: Pool) -> None:
        """Let go of a pool none of whose volumes is held."""
        await self._of(pool).stop(pool)

    async def update(self, pool: Pool, config: Mapping[str, str]) -> None:
        """Apply another, valid config to a started pool. Raises BadRequest."""
        await self._of(pool).update(pool, config)

    async def delete(self, pool: Pool) -> None:
        """Remove the pool with its images. Raises BadRequest while it has other volumes."""
        await self._of(pool).delete(pool)

    async def resources(self, pool: Pool) -> Resources:
        """Tell how full the pool is."""
        return await self._of(pool).resources(pool)

    # Images

    async def ensure_image(self, pool: Pool, fingerprint: str, unpack: Unpack) -> None:
        """Have the image unpacked on the pool; callers at the same time share one unpacking.

        `unpack` fills the empty directory it is given with rootfs/, metadata.yaml, templates/.
        """
        driver = self._of(pool)
        if await driver.has_image(pool, check_fingerprint(fingerprint)):
            return
        key = (pool.name, fingerprint)
        shared = self._unpacking.get(key)
        if shared is None:
            task = asyncio.create_task(driver.add_image(pool, fingerprint, unpack))
            shared = self._unpacking[key] = _Shared(task)
            task.add_done_callback(lambda done: self._unpacked(key, done))
        await shared.wait()

    async def images(self, pool: Pool) -> list[str]:
        """Return the fingerprints of the images that are unpacked on the pool."""
        return await self._of(pool).images(pool)

    async def delete_image(self, pool: Pool, fingerprint: str) -> None:
        """Remove an unpacked image, at once or as soon as no instance stands on it."""
        await self._of(pool).delete_image(pool, check_fingerprint(fingerprint))

    # Volumes and their snapshots

    async def create_volume(self, pool: Pool, volume: Volume, image: str | None = None) -> None:
        """Make a volume on top of an image that `ensure_image` has unpacked, or an empty one."""
        with full_told(pool):
            await self._of(pool).create_volume(pool, _sized(pool, volume), image)

    @asynccontextmanager
    async def filling(self, pool: Pool, volume: Volume) -> AsyncIterator[Path]:
        """Make a volume or snapshot whose content the block writes (see `Driver.filling`)."""
        with full_told(pool):
            async with self._of(pool).filling(pool, _sized(pool, volume)) as directory:
                yield directory

    async def copy(
        self,
        pool: Pool,
        source: Volume,
        to_pool: Pool,
        target: Volume,
        quiet: Quiet = quiet_already,
    ) -> None:
        """Copy a volume or snapshot to a new volume or snapshot, in a pool of any driver.

        Its image must be on the target pool already where both drivers are the same.
        """
        target = _sized(to_pool, target)
        if pool.driver == to_pool.driver:
            async with self._holders.still(pool, source.whole):
                with full_told(to_pool):
                    await self._of(pool).copy_volume(pool, source, to_pool, target, quiet)
            return
        async with (
            self.at_rest(pool, source, quiet) as still,
            self.held(pool, still),
            self.filling(to_pool, target) as directory,
        ):
            await transfer.copy(self._of(pool), pool, still, directory)

    async def rename(
        self, pool: Pool, volume: Volume, new_name: str, *, project: str | None = None
    ) -> None:
        """Rename a volume that is not in use with its snapshots, or one snapshot.

        `project` is the one that the volume goes to, None when it stays in its own.
        """
        new = volume.at(new_name)
        if not volume.snapshot:
            new = replace(volume, name=new_name, project=project or volume.project)
        async with self._holders.still(pool, volume.whole):
            with full_told(pool):
                await self._of(pool).rename_volume(pool, volume, new)

    async def delete_volume(self, pool: Pool, volume: Volume) -> None:
        """Remove a volume with its snapshots, or one snapshot; what does not exist is none."""
        async with self._holders.still(pool, volume.whole):
            with full_told(pool):
                await self._of(pool).delete_volume(pool, volume)

    async def resize(self, pool: Pool, volume: Volume, size_bytes: int | None) -> None:
        """Give a volume another quota (see `Driver.resize_volume`)."""
        size_bytes = size_bytes or _sized(pool, volume.without_size).size_bytes
        async with self._holders.still(pool, volume):
            with full_told(pool):
                await self._of(pool).resize_volume(pool, volume, size_bytes)

    async def usage(self, pool: Pool, volume: Volume) -> Usage | None:
        """Return what a volume takes, or None where the pool cannot tell quickly."""
        return await self._of(pool).usage(pool, _sized(pool, volume))

    async def snapshot(self, pool: Pool, snapshot: Volume, quiet: Quiet = quiet_already) -> None:
        """Make a snapshot of a volume as it is within `quiet`. Raises NotFound, Conflict."""
        async with self._holders.still(pool, snapshot.whole):
            with full_told(pool):
                await self._of(pool).snapshot_volume(pool, snapshot, quiet)

    async def restore(self, pool: Pool, volume: Volume, snapshot: str) -> None:
        """Make a volume that is not in use what its snapshot is. Raises NotFound."""
        async with self._holders.still(pool, volume):
            with full_told(pool):
                await self._of(pool).restore_volume(pool, _sized(pool, volume), snapshot)

    async def snapshots(self, pool: Pool, volume: Volume) -> list[str]:
        """Return the names of a volume's snapshots as they lie on the pool."""
        return await self._of(pool).snapshots(pool, volume)

    async def volumes(self, pool: Pool) -> list[Volume]:
        """Return the volumes that lie on the pool, images apart (what recovery goes through)."""
        return await self._of(pool).volumes(pool)

    async def image_of(self, pool: Pool, volume: Volume) -> str | None:
        """Return the fingerprint of the image an instance's volume stands on, or None."""
        return await self._of(pool).image_of(pool, volume)

    # Use

    async def hold(self, pool: Pool, volume: Volume, holder: str) -> None:
        """Have a volume or snapshot mounted until the last of its holders lets go.

        Holders are names, such as "instance/c1". Raises NotFound, Failed.
        """
        await self._holders.hold(pool, volume, holder)

    async def let_go(self, pool: Pool, volume: Volume, holder: str) -> None:
        """Let go of one volume."""
        await self._holders.let_go(pool, volume, holder)

    async def release(self, holder: str) -> None:
        """Let go of everything that a holder has."""
        await self._holders.release(holder)

    @asynccontextmanager
    async def held(self, pool: Pool, volume: Volume) -> AsyncIterator[Rootfs]:
        """Hold a volume of files, or a snapshot, for the length of a block, which gets its place.

        Raises NotFound.
        """
        holder = f"block/{next(self._tokens)}"
        await self.hold(pool, volume, holder)
        try:
            yield await self.rootfs(pool, volume)
        finally:
            await self.let_go(pool, volume, holder)

    @asynccontextmanager
    async def at_rest(self, pool: Pool, volume: Volume, quiet: Quiet) -> AsyncIterator[Volume]:
        """Return something that has a volume's content and does not change during the block.

        That is the volume itself, or, while somebody holds it, a snapshot that is not listed.
        """
        if volume.snapshot or not self.holders(pool, volume):
            yield volume
            return
        snapshot = volume.at(f".{secrets.token_hex(6)}")
        await self.snapshot(pool, snapshot, quiet)
        try:
            yield snapshot
        finally:
            await asyncio.shield(self.delete_volume(pool, snapshot))

    def holders(self, pool: Pool, volume: Volume) -> frozenset[str]:
        """Return who holds the volume."""
        return self._holders.of(pool, volume)

    async def is_free(self, pool: Pool, volume: Volume) -> bool:
        """Tell whether nobody holds the volume, or nobody any more in a moment.

        One who reads a file of it has the last byte a little before it is let go.
        """
        end = time.monotonic() + _MOMENT_S
        while self.holders(pool, volume):
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_MOMENT_S / 40)
        return True

    async def rootfs(self, pool: Pool, volume: Volume) -> Rootfs:
        """Say where the files of a held volume or snapshot are. Raises NotFound."""
        return await self._of(pool).rootfs(pool, volume)

    async def check_writable(self, pool: Pool, rootfs: Rootfs) -> None:
        """Raise Unavailable when the files of a held volume can only be read, as a disk is ill."""
        path = rootfs.path if isinstance(rootfs, Plain) else rootfs.root
        if path is not None and (await in_thread(os.statvfs, path)).f_flag & os.ST_RDONLY:
            raise read_only(pool)

    async def disk(self, pool: Pool, volume: Volume) -> Path:
        """Return the file or device of a held block volume. Raises NotFound."""
        return await self._of(pool).disk(pool, volume)

    async def metadata(self, pool: Pool, volume: Volume) -> Path:
        """Return the directory with metadata.yaml and templates/ of a held instance's volume."""
        return await self._of(pool).metadata(pool, volume)

    def directory(self, pool: Pool, volume: Volume) -> Path:
        """Return the held volume's own directory: its metadata.yaml and templates/, if any."""
        return self._of(pool).directory(pool, volume)

    async def send(self, pool: Pool, volume: Volume, since: str, descriptor: int) -> None:
        """Write a volume or snapshot in its driver's own form (see `Driver.send`)."""
        await self._of(pool).send(pool, volume, since, descriptor)

    async def receive(self, pool: Pool, volume: Volume, descriptor: int) -> None:
        """Make a volume or snapshot of a stream in its driver's own form (see `Driver.receive`)."""
        await self._of(pool).receive(pool, volume, descriptor)

    async def close(self) -> None:
        """Give up unfinished unpacking and wait for the drivers."""
        for shared in list(self._unpacking.values()):
            await shared.cancel()
        for driver in self._drivers.values():
            await driver.close()

    async def _mount(self, pool: Pool, volume: Volume) -> None:
        await self._of(pool).mount(pool, volume)

    async def _unmount(self, pool: Pool, volume: Volume) -> None:
        await self._of(pool).unmount(pool, volume)

    def _unpacked(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._unpacking[key]
        if not task.cancelled():
            task.exception()  # seen, should every waiter have given up

    def _driver(self, name: str) -> Driver:
        try:
            return self._drivers[name]
        except KeyError:
            known = ", ".join(self._drivers)
            raise Failed(f'Unknown driver "{name}": this build has {known}') from None

    def _of(self, pool: Pool) -> Driver:
        return self._driver(pool.driver)


def _sized(pool: Pool, volume: Volume) -> Volume:
    """Return an instance's volume with the size that its pool has for those without one.

    Custom volumes took their pool's defaults when they were made.
    """
    size = pool.config.get("volume.size", "")
    if volume.type is not VolumeType.CONTAINER or volume.size_bytes or not size:
        return volume
    return replace(volume, config={**volume.config, "size": size})


class _Shared:
    """A task several callers wait for; it is cancelled when the last of them gives up."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task
        self._waiting = 0

    async def wait(self) -> None:
        self._waiting += 1
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self._waiting == 1 and not self._task.done():
                await self.cancel()
            raise
        finally:
            self._waiting -= 1

    async def cancel(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
