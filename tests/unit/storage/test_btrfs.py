"""Pools on btrfs: what follows from their config, without a file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxpy.errors import BadRequest, Failed, InvalidConfig
from lxpy.storage import Pool, StoragePools
from lxpy.storage.drivers import btrfs_source
from lxpy.storage.drivers.btrfs_source import Kind
from lxpy.units import parse_size

DEVICE_ID = "0b5a8c1e-31b4-4d0c-9d5d-2f6f1c1f9b55"


@pytest.fixture
def storage(tmp_path: Path) -> StoragePools:
    return StoragePools(tmp_path / "storage-pools")


def pool_of(storage: StoragePools, **config: str) -> Pool:
    return storage.pool("p", "btrfs", config)


def test_a_pool_gets_a_file_of_its_own(storage: StoragePools, tmp_path: Path) -> None:
    config = storage.fill("p", "btrfs", {})
    assert config["source"] == str(tmp_path / "disks/p.img")
    assert 5 << 30 <= parse_size(config["size"]) <= 30 << 30
    pool = pool_of(storage, **config)
    assert pool.path == tmp_path / "storage-pools/p"
    assert btrfs_source.kind(pool) is Kind.FILE


def test_a_pool_in_a_directory(storage: StoragePools) -> None:
    config = storage.fill("p", "btrfs", {"source": "/srv/pool.img"})
    assert config == {"source": "/srv/pool.img", "volatile.initial_source": "/srv/pool.img"}
    pool = pool_of(storage, **config)
    assert pool.path == Path("/srv/pool.img")
    assert btrfs_source.kind(pool) is Kind.DIRECTORY


def test_a_device_is_known_by_its_file_system(storage: StoragePools, tmp_path: Path) -> None:
    config = storage.fill("p", "btrfs", {"source": "/dev/sdz"})
    assert config["volatile.initial_source"] == "/dev/sdz"
    assert config["source"] != storage.fill("q", "btrfs", {"source": "/dev/sdz"})["source"]
    pool = pool_of(storage, **config)
    assert pool.path == tmp_path / "storage-pools/p"
    assert btrfs_source.kind(pool) is Kind.DEVICE


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"source": "/srv", "size": "1GiB"}, "the size of the file that a pool without"),
        ({"size": "large"}, "size"),
        ({"source": "srv"}, "no absolute path"),
        ({"btrfs.mount_options": "noatime;reboot"}, "btrfs.mount_options"),
        ({"dir.quota": "loop"}, "dir.quota"),
    ],
)
def test_what_is_refused(storage: StoragePools, config: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidConfig, match=text):
        storage.fill("p", "btrfs", config)


async def test_sizes_only_grow(storage: StoragePools, tmp_path: Path) -> None:
    file = str(tmp_path / "disks/p.img")
    pool = pool_of(storage, source=file, size="10GiB")
    with pytest.raises(BadRequest, match="cannot shrink from 10GiB to 9GiB"):
        await storage.update(pool, {"source": file, "size": "9GiB"})
    with pytest.raises(BadRequest, match="cannot be removed"):
        await storage.update(pool, {"source": file})
    await storage.update(pool, {"source": file, "size": "10240MiB", "user.note": "x"})
    directory = pool_of(storage, source="/srv")
    with pytest.raises(BadRequest, match="has no file of its own"):
        await storage.update(directory, {"source": "/srv", "size": "9GiB"})


async def test_no_device(storage: StoragePools, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for source, initial in ((DEVICE_ID, DEVICE_ID), (DEVICE_ID, "/dev/null")):
        pool = pool_of(storage, source=source, **{"volatile.initial_source": initial})
        with pytest.raises(BadRequest, match="is no block device"):
            await storage.create(pool)


async def test_a_pool_whose_file_is_gone(storage: StoragePools, tmp_path: Path) -> None:
    pool = pool_of(storage, source=str(tmp_path / "disks/p.img"), size="5GiB")
    for attempt in (storage.images(pool), storage.resources(pool), storage.volumes(pool)):
        with pytest.raises(Failed, match=r'"p" is not usable: .* is missing'):
            await attempt
    with pytest.raises(Failed, match=r"its file .*p\.img is missing: restore it"):
        await storage.start(pool)
    await storage.delete(pool)
    assert not (tmp_path / "storage-pools/p").exists()
