"""All storage pools behind one door: finds the driver, shares the unpacking of images."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from lxpy.doctor import Host
from lxpy.errors import Failed
from lxpy.storage import keys
from lxpy.storage.drivers import DRIVERS, Driver, Info
from lxpy.storage.drivers.base import Unpack
from lxpy.storage.volume import (
    Pool,
    Resources,
    Rootfs,
    Volume,
    check_fingerprint,
)
from lxpy.threads import in_thread


class StoragePools:
    """Pools below one directory (`LXPY_DIR/storage-pools`), or at a source of their own."""

    def __init__(self, root: Path, host: Host | None = None) -> None:
        self._root = root
        looked_at = host or Host()
        self._drivers: dict[str, Driver] = {name: make(looked_at) for name, make in DRIVERS.items()}
        self._unpacking: dict[tuple[str, str], _Shared] = {}

    def drivers(self) -> list[Info]:
        """Return the drivers this build has."""
        return [driver.info for driver in self._drivers.values()]

    def fill(self, name: str, driver: str, config: Mapping[str, str]) -> dict[str, str]:
        """Return the config with what a new pool gets by default.

        Raises Failed for an unknown driver, InvalidConfig for an unknown key or a bad value.
        """
        self._driver(driver)
        filled = dict(config)
        if filled.get("source"):
            filled.setdefault("volatile.initial_source", filled["source"])
        else:
            filled["source"] = str(self._root / name)
        keys.validate_pool(driver, filled)
        return filled

    def validate(self, driver: str, config: Mapping[str, str]) -> None:
        """Check a pool's config. Raises Failed or InvalidConfig."""
        self._driver(driver)
        keys.validate_pool(driver, config)

    def validate_volume(self, driver: str, config: Mapping[str, str]) -> None:
        """Check a volume's config. Raises Failed or InvalidConfig."""
        self._driver(driver)
        keys.validate_volume(driver, config)

    async def create(self, pool: Pool) -> None:
        """Make a new pool at its source."""
        await self._of(pool).create(pool)

    async def start(self, pool: Pool) -> None:
        """Make the pool usable and remove what a crash left (call once at daemon start)."""
        await self._of(pool).start(pool)

    async def delete(self, pool: Pool) -> None:
        """Remove the pool with its images. Raises BadRequest while it has other volumes."""
        await self._of(pool).delete(pool)

    async def resources(self, pool: Pool) -> Resources:
        """Tell how full the pool is."""
        return await self._of(pool).resources(pool)

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

    async def create_volume(self, pool: Pool, volume: Volume, image: str | None = None) -> None:
        """Make a volume on top of an image that `ensure_image` has unpacked, or an empty one."""
        await self._of(pool).create_volume(pool, volume, image)

    async def copy(self, pool: Pool, source: Volume, to_pool: Pool, target: Volume) -> None:
        """Copy a volume nobody writes to; its image must be on the target pool already."""
        if pool.driver != to_pool.driver:
            raise Failed(f"Copying from a {pool.driver} to a {to_pool.driver} pool is not known")
        await self._of(pool).copy_volume(pool, source, to_pool, target)

    async def rename(self, pool: Pool, volume: Volume, new_name: str) -> None:
        """Rename a volume that is not mounted."""
        target = Volume(new_name, volume.type, volume.project, volume.config)
        await self._of(pool).rename_volume(pool, volume, target)

    async def delete_volume(self, pool: Pool, volume: Volume) -> None:
        """Remove a volume; one that does not exist is none."""
        await self._of(pool).delete_volume(pool, volume)

    async def usage(self, pool: Pool, volume: Volume) -> int | None:
        """Return the bytes a volume takes, or None where the pool cannot tell quickly."""
        return await self._of(pool).usage(pool, volume)

    async def rootfs(self, pool: Pool, volume: Volume) -> Rootfs:
        """Say how an instance's volume is mounted. Raises NotFound."""
        return await self._of(pool).rootfs(pool, volume)

    async def image_of(self, pool: Pool, volume: Volume) -> str | None:
        """Return the fingerprint of the image an instance's volume stands on, or None."""
        return await self._of(pool).image_of(pool, volume)

    async def metadata(self, pool: Pool, volume: Volume) -> Path:
        """Return the directory with metadata.yaml and templates/ of an instance."""
        return await self._of(pool).metadata(pool, volume)

    async def volumes(self, pool: Pool) -> list[Path]:
        """Return the directories of the instances' volumes (what recovery goes through)."""

        def names() -> list[Path]:
            area = pool.path / "containers"
            return sorted(each for each in area.iterdir() if not each.name.startswith("."))

        return await in_thread(names)

    def directory(self, pool: Pool, volume: Volume) -> Path:
        """Return the volume's own directory, where backup.yaml is kept."""
        return self._of(pool).directory(pool, volume)

    async def close(self) -> None:
        """Give up unfinished unpacking and wait for the drivers."""
        for shared in list(self._unpacking.values()):
            await shared.cancel()
        for driver in self._drivers.values():
            await driver.close()

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
