"""Copies by content, for where a driver cannot share blocks: between pools, into other sizes."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from lxpy.programs import run
from lxpy.storage import transfer
from lxpy.storage.drivers.base import Driver, Quiet
from lxpy.storage.volume import Pool, Volume


async def copy(
    driver: Driver, pool: Pool, source: Volume, to_pool: Pool, target: Volume, quiet: Quiet
) -> None:
    """Copy what is in a volume or snapshot to a new one; of a volume, as it is within `quiet`."""
    if source.snapshot:
        await _copy_still(driver, pool, source, to_pool, target)
        return
    still = source.at(f".{secrets.token_hex(6)}")
    await driver.snapshot_volume(pool, still, quiet)
    try:
        await _copy_still(driver, pool, still, to_pool, target)
    finally:
        await asyncio.shield(asyncio.ensure_future(driver.delete_volume(pool, still)))


async def copy_disk(source: Path, target: Path) -> None:
    """Copy a disk to a device of zeros, without its zeros. Raises Failed."""
    options = ("bs=4M", "conv=sparse,notrunc,fsync", "status=none")
    await run("dd", f"if={source}", f"of={target}", *options, timeout_s=None)


async def _copy_still(
    driver: Driver, pool: Pool, still: Volume, to_pool: Pool, target: Volume
) -> None:
    await driver.mount(pool, still)
    try:
        async with driver.filling(to_pool, target) as directory:
            await transfer.copy(driver, pool, still, directory)
    finally:
        await asyncio.shield(asyncio.ensure_future(driver.unmount(pool, still)))
