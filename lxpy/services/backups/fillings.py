"""A backup's content on its way into a new volume and its snapshots."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from lxpy.backups.reader import Incoming
from lxpy.errors import NotSupported
from lxpy.images.progress import Meter
from lxpy.operations.registry import Operation
from lxpy.storage import Pool, StoragePools, Volume
from lxpy.threads import in_thread


async def fill(
    storage: StoragePools,
    pool: Pool,
    volume: Volume,
    archive: Incoming,
    *,
    tell: Callable[[int], None],
    check: Callable[[dict[str, Path]], None],
) -> None:
    """Make a volume and its snapshots; they appear when all of the archive has come.

    `tell` hears how many bytes have been unpacked. `check` raises Failed when a directory, given
    by its name in the archive, lacks something. Raises NotSupported for an archive in the own form
    of another storage driver.
    """
    if archive.index.optimized:
        await _receive(storage, pool, volume, archive, tell=tell, check=check)
        return
    appearing = False  # what lies there under this name before that is not ours
    try:
        async with AsyncExitStack() as fillings:
            targets: dict[str, Path] = {}
            for name, snapshot in archive.index.targets().items():
                one = volume.at(snapshot) if snapshot else volume
                targets[name] = await fillings.enter_async_context(storage.filling(pool, one))
            await archive.unpack(targets, tell)
            await in_thread(check, targets)
            appearing = True
    except BaseException:
        if appearing:
            await storage.delete_volume(pool, volume)
        raise


async def _receive(
    storage: StoragePools,
    pool: Pool,
    volume: Volume,
    archive: Incoming,
    *,
    tell: Callable[[int], None],
    check: Callable[[dict[str, Path]], None],
) -> None:
    """Make a volume and its snapshots of the storage driver's own streams."""
    _check_form(storage, pool, archive)
    targets = archive.index.targets()
    begun = False  # what lies there under this name before that is not ours

    async def receive(name: str, descriptor: int) -> None:
        nonlocal begun
        one = volume.at(targets[name]) if targets[name] else volume
        await storage.receive(pool, one, descriptor)
        begun = True

    try:
        await archive.pass_on(receive, tell)
        async with storage.held(pool, volume):
            await in_thread(check, {archive.index.directory: storage.directory(pool, volume)})
    except BaseException:
        if begun:
            await storage.delete_volume(pool, volume)
        raise


def _check_form(storage: StoragePools, pool: Pool, archive: Incoming) -> None:
    index = archive.index
    if pool.driver != index.backend or not storage.info(pool).streams:
        raise NotSupported(
            f'The backup is in the own form of storage driver "{index.backend}", storage pool '
            f'"{pool.name}" is of driver "{pool.driver}": choose another pool, or export it '
            "without --optimized-storage"
        )
    config = (index.config.get("container") or {}).get("config") or {}
    if config.get("volatile.last_state.idmap", "[]") != "[]":
        raise NotSupported(
            "The owners in the backup are those of the host it comes from: export it without "
            "--optimized-storage"
        )


def telling(operation: Operation, stage: str) -> Callable[[int], None]:
    """Return what tells an operation how many bytes have been unpacked."""
    meter = Meter(operation.progress, stage, "Unpack")
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        meter.add(size - done)
        done = size

    return tell
