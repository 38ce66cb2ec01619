"""Volumes in tests: made of a small image, their files at a path, filled until there is no room."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.storage import ContentType, Pool, StoragePools, Volume, VolumeType, view
from tests.support import trees
from tests.support.pools import Ground

MIB = 1 << 20
IMAGE = "1" * 64
C1, C2 = Volume("c1"), Volume("c2")
DATA = Volume("data", VolumeType.CUSTOM)
DISK = Volume("disk", VolumeType.CUSTOM, config={"size": "16MiB"}, content=ContentType.BLOCK)


async def started(storage: StoragePools, prepared: Ground, name: str) -> Pool:
    config = storage.fill(name, prepared.setup.driver, prepared.config())
    pool = storage.pool(name, prepared.setup.driver, config)
    await storage.create(pool)
    await storage.start(pool)
    return pool


async def unpack(target: Path) -> None:
    """Write an image."""
    (target / "metadata.yaml").write_text("architecture: x86_64\n")
    (target / "templates").mkdir()
    (target / "rootfs").mkdir(mode=0o755)
    trees.fill_image(target / "rootfs")


@asynccontextmanager
async def files(
    storage: StoragePools, pool: Pool, volume: Volume, *, writable: bool = False
) -> AsyncIterator[Path]:
    """Have the files of a volume at a path."""
    async with storage.held(pool, volume) as rootfs:
        with view.opened(rootfs, writable=writable) as tree:
            yield Path(f"/proc/{os.getpid()}/fd/{tree}")


async def write(storage: StoragePools, pool: Pool, volume: Volume, name: str, text: str) -> None:
    async with files(storage, pool, volume, writable=True) as root:
        (root / name).write_text(text)


async def read(storage: StoragePools, pool: Pool, volume: Volume, name: str) -> str:
    async with files(storage, pool, volume) as root:
        return (root / name).read_text()


async def digest(
    storage: StoragePools, pool: Pool, volume: Volume
) -> dict[str, tuple[object, ...]]:
    async with files(storage, pool, volume) as root:
        return trees.digest(root)


async def made(storage: StoragePools, pool: Pool, volume: Volume = C1) -> Volume:
    """Make an instance's volume of the image."""
    await storage.ensure_image(pool, IMAGE, unpack)
    await storage.create_volume(pool, volume, IMAGE)
    return volume


def fill_up(path: Path) -> int:
    """Write until there is no room, as a guest who is no root of the host; return the bytes."""
    command = ("dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=1024", "conv=fsync")
    limited = ("setpriv", "--bounding-set=-sys_resource")  # who has it is held to no quota
    done = subprocess.run([*limited, *command], capture_output=True, text=True)
    if done.returncode:
        assert os.strerror(errno.ENOSPC) in done.stderr or os.strerror(errno.EDQUOT) in done.stderr
    return path.stat().st_size
