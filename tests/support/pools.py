"""Set-ups of storage pools: each driver on what it can lie on, and what it has left there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lxpy.storage import loops
from tests.support.daemon import mounts_below

GIB = 1 << 30


@dataclass(frozen=True)
class Setup:
    """One way to have a pool: its driver, and the file system or device it is made on."""

    driver: str
    below: str  # ext4, xfs, btrfs: a directory there; device; file: the pool's own

    @property
    def label(self) -> str:
        return f"{self.driver}-{self.below}"


SETUPS = (
    Setup("dir", "ext4"),
    Setup("dir", "xfs"),
    Setup("dir", "btrfs"),
    Setup("btrfs", "file"),
    Setup("btrfs", "btrfs"),
    Setup("btrfs", "device"),
)


class Ground:
    """What the pools of one set-up are made on; `config` gives each its own source."""

    def __init__(self, setup: Setup, directory: Path) -> None:
        self.setup = setup
        self.directory = directory
        self._devices = ExitStack()
        self._count = 0

    def config(self) -> dict[str, str]:
        """Return the config of another pool."""
        self._count += 1
        if self.setup.below == "file":
            return {"size": "2GiB"}
        if self.setup.below == "device":
            return {"source": self._device()}
        source = self.directory / f"source{self._count}"
        source.mkdir(mode=0o711)
        return {"source": str(source)}

    def left(self) -> list[str]:
        """Return what pools that were deleted have left on it."""
        inner = [str(path) for path in self.directory.glob("source*/*")]
        return [*inner, *(target for target in mounts_below(self.directory / "pools"))]

    def close(self) -> None:
        self._devices.close()

    def _device(self) -> str:
        file = sparse(self.directory / f"device{self._count}.img")
        return self._devices.enter_context(loops.attached(file))


@contextmanager
def ground(setup: Setup, directory: Path) -> Iterator[Ground]:
    """Prepare what the pools of a set-up are made on, and take it away again."""
    directory.mkdir(mode=0o711)
    image = directory.with_suffix(".img")
    mounted = setup.below in ("xfs", "btrfs")
    if mounted:
        force = "-f"
        subprocess.run([f"mkfs.{setup.below}", "-q", force, sparse(image)], check=True)
        with loops.attached(image) as device:
            subprocess.run(["mount", device, directory], check=True)
    made = Ground(setup, directory)
    try:
        yield made
    finally:
        made.close()
        for target in mounts_below(directory):
            subprocess.run(["umount", "--lazy", target], check=False)
        shutil.rmtree(directory)
        image.unlink(missing_ok=True)


def sparse(path: Path, size_bytes: int = 2 * GIB) -> Path:
    """Make a file of that size that takes no space."""
    path.touch()
    os.truncate(path, size_bytes)
    return path
