"""Set-ups of storage pools: each driver on what it can lie on, and what it has left there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
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
    quota: bool = False  # the file system below has project quotas

    @property
    def label(self) -> str:
        return f"{self.driver}-{self.below}{'-prjquota' if self.quota else ''}"

    def why_not(self) -> str:
        """Say why this host cannot have it; empty if it can."""
        if self.quota and not have_project_quotas():
            return "this kernel has no project quotas"
        if self.driver == "lvm":
            return "" if have_thin_volumes() else "needs lvm2 and a kernel with thin volumes"
        return ""


SETUPS = (
    Setup("dir", "ext4"),
    Setup("dir", "xfs"),
    Setup("dir", "btrfs"),
    Setup("btrfs", "file"),
    Setup("btrfs", "btrfs"),
    Setup("btrfs", "device"),
    Setup("dir", "ext4", quota=True),
    Setup("dir", "xfs", quota=True),
    Setup("lvm", "file"),
    Setup("lvm", "device"),
)
_MKFS = {"ext4": ("-F", "-O", "project,quota"), "xfs": ("-f",), "btrfs": ("-f",)}


def have_thin_volumes() -> bool:
    """Tell whether pools on LVM can be tried."""
    if not shutil.which("lvs") or not shutil.which("thin_check"):
        return False
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", "dm_thin_pool"], check=False)
    found = subprocess.run(["dmsetup", "targets"], capture_output=True, text=True)
    return "thin-pool" in found.stdout


def have_project_quotas() -> bool:
    """Tell whether the kernel mounts a file system with project quotas."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        image, place = sparse(Path(work) / "image", 64 << 20), Path(work) / "place"
        place.mkdir()
        subprocess.run(["mkfs.ext4", "-q", *_MKFS["ext4"], image], check=True)
        with loops.attached(image) as device:
            command = ["mount", "-o", "prjquota", device, place]
            if subprocess.run(command, capture_output=True).returncode:
                return False
            subprocess.run(["umount", place], check=True)
    return True


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
        mounts = mounts_below(self.directory / "pools")
        return [*inner, *mounts, *(_volume_groups() if self.setup.driver == "lvm" else [])]

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
    mounted = setup.below in ("xfs", "btrfs") or setup.quota
    if mounted:
        words = _MKFS[setup.below]
        subprocess.run([f"mkfs.{setup.below}", "-q", *words, sparse(image)], check=True)
        with loops.attached(image) as device:
            options = ["-o", "prjquota"] if setup.quota else []
            subprocess.run(["mount", *options, device, directory], check=True)
    made = Ground(setup, directory)
    try:
        yield made
    finally:
        made.close()
        for target in mounts_below(directory):
            subprocess.run(["umount", "--lazy", target], check=False)
        shutil.rmtree(directory)
        image.unlink(missing_ok=True)


def _volume_groups() -> list[str]:
    command = ["vgs", "--noheadings", "-o", "vg_name"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def sparse(path: Path, size_bytes: int = 2 * GIB) -> Path:
    """Make a file of that size that takes no space."""
    path.touch()
    os.truncate(path, size_bytes)
    return path
