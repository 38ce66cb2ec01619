"""Copying a volume into an empty directory, whatever driver either belongs to."""

from __future__ import annotations

import os
from pathlib import Path

from lxpy.programs import run
from lxpy.storage import view
from lxpy.storage.drivers.base import Driver
from lxpy.storage.volume import ContentType, Pool, Volume, VolumeType
from lxpy.threads import in_thread

# xattr named apart from -a: then a lost attribute is an error.
_COPY = ("cp", "-a", "--preserve=mode,ownership,timestamps,links,xattr", "--reflink=auto",
         "--sparse=auto", "--")  # fmt: skip
BLOCK_FILE = "root.img"


async def copy(driver: Driver, pool: Pool, source: Volume, directory: Path) -> None:
    """Write the content of a mounted volume in the form that `Driver.filling` asks for."""
    if source.content is not ContentType.FILESYSTEM:
        disk = await driver.disk(pool, source)
        target = str(directory / BLOCK_FILE)
        await run("cp", "--sparse=always", "--", str(disk), target, timeout_s=None)
        return
    target_tree = directory
    if source.type is VolumeType.CONTAINER:
        metadata = await driver.metadata(pool, source)
        for name in ("metadata.yaml", "templates"):
            if await in_thread((metadata / name).exists):
                await run(*_COPY, str(metadata / name), str(directory), timeout_s=None)
        target_tree = directory / "rootfs"
        await in_thread(target_tree.mkdir, 0o755)
    rootfs = await driver.rootfs(pool, source)
    tree = await in_thread(view.open_tree, rootfs)
    try:
        words = (*_COPY, f"/proc/self/fd/{tree}/.", str(target_tree))
        await run(*words, timeout_s=None, pass_fds=(tree,))
    finally:
        os.close(tree)
