"""A pool below a temporary directory, whatever file system that lies on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lxpy.doctor import Host
from lxpy.storage import Pool, StoragePools
from lxpy.storage.drivers.base import Unpack
from lxpy.threads import in_thread

IMAGE = "a" * 64
OTHER = "b" * 64


def a_host(directory: Path, kind: str = "ext4", kernel: str = "6.1.0") -> Host:
    """Return a host whose only file system is of that kind."""
    for name, text in {
        "proc/self/mountinfo": f"1 0 8:1 / / rw - {kind} /dev/x rw\n",
        "proc/sys/kernel/osrelease": f"{kernel}\n",
    }.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(root=directory)


def an_image(files: dict[str, str] | None = None) -> Unpack:
    """Return what unpacks an image with these files in its rootfs."""

    def fill(target: Path) -> None:
        (target / "rootfs").mkdir(mode=0o755)
        (target / "metadata.yaml").write_text("architecture: x86_64\n")
        for name, text in (files or {"etc/hostname": "image\n"}).items():
            path = target / "rootfs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    async def unpack(target: Path) -> None:
        await in_thread(fill, target)

    return unpack


@pytest.fixture
def storage(tmp_path: Path) -> StoragePools:
    return StoragePools(tmp_path / "pools", a_host(tmp_path / "host"))


@pytest.fixture
def make_pool(storage: StoragePools) -> Callable[..., Pool]:
    def make(name: str = "p", **config: str) -> Pool:
        return Pool(name, "dir", storage.fill(name, "dir", config))

    return make


@pytest.fixture
async def pool(storage: StoragePools, make_pool: Callable[..., Pool]) -> Pool:
    made = make_pool()
    await storage.create(made)
    await storage.start(made)
    return made
