"""A backup's content on its way into a new volume and its snapshots."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from lxpy.backups.reader import Incoming
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
    by its name in the archive, lacks something.
    """
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


def telling(operation: Operation, stage: str) -> Callable[[int], None]:
    """Return what tells an operation how many bytes have been unpacked."""
    meter = Meter(operation.progress, stage, "Unpack")
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        meter.add(size - done)
        done = size

    return tell
