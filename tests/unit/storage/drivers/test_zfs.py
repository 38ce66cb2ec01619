"""Pools on ZFS: config, names, and what `zfs list` is documented to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxpy.errors import InvalidConfig
from lxpy.storage import ContentType, Pool, Volume, VolumeType
from lxpy.storage.drivers import zfs_datasets, zfs_source
from lxpy.storage.drivers.zfs_datasets import Dataset
from lxpy.storage.keys import validate_pool, validate_volume

ROOT = Path("/nowhere/storage-pools")
POOL = Pool("p", "zfs", {"source": "tank/lxpy", "zfs.pool_name": "tank/lxpy"}, ROOT / "p")
IMAGE = "a" * 64

# name, type, origin, clones, lxpy:content, createtxg, referenced, refquota, quota, volsize
LISTING = "\n".join(
    "\t".join(line)
    for line in (
        ("tank/lxpy", "filesystem", "-", "-", "-", "5", "98304", "0", "0", "-"),
        ("tank/lxpy/containers", "filesystem", "-", "-", "-", "7", "98304", "0", "0", "-"),
        (
            "tank/lxpy/containers/c1", "filesystem", f"tank/lxpy/images/{IMAGE}@readonly", "-",
            "filesystem", "20", "5000000", "268435456", "0", "-",
        ),
        (
            "tank/lxpy/containers/c1@snapshot-s1", "snapshot", "-", "", "filesystem", "31",
            "4000000", "-", "-", "-",
        ),
        (
            "tank/lxpy/containers/c1@snapshot-s0", "snapshot", "-",
            "tank/lxpy/containers/c2,tank/lxpy/containers/c3", "filesystem", "30", "3000000",
            "-", "-", "-",
        ),
        (
            "tank/lxpy/custom/disk", "volume", "-", "-", "block", "40", "12288", "-", "-",
            "16777216",
        ),
        ("tank/lxpy/images", "filesystem", "-", "-", "-", "6", "98304", "none", "none", "-"),
    )
)  # fmt: skip


def test_listings() -> None:
    have = zfs_datasets.parse(LISTING)
    assert have["tank/lxpy/containers/c1"] == Dataset(
        name="tank/lxpy/containers/c1",
        kind="filesystem",
        origin=f"tank/lxpy/images/{IMAGE}@readonly",
        clones=(),
        content=ContentType.FILESYSTEM,
        created=20,
        used_bytes=5000000,
        limit_bytes=268435456,
    )
    snapshots = zfs_datasets.snapshots_of(have, "tank/lxpy/containers/c1")
    assert [each.short for each in snapshots] == ["snapshot-s0", "snapshot-s1"]
    assert snapshots[0].clones == ("tank/lxpy/containers/c2", "tank/lxpy/containers/c3")
    assert snapshots[1].clones == ()
    disk = have["tank/lxpy/custom/disk"]
    assert (disk.content, disk.limit_bytes, disk.short) == (ContentType.BLOCK, 16777216, "disk")
    below = zfs_datasets.children_of(have, "tank/lxpy/containers")
    assert [each.short for each in below] == ["c1"]


def test_names() -> None:
    snapshot = Volume("d", VolumeType.CUSTOM, "web").at("s0")
    assert zfs_datasets.encode(POOL, snapshot) == "tank/lxpy/custom/web_d"
    assert zfs_datasets.encode_snapshot(POOL, snapshot) == "tank/lxpy/custom/web_d@snapshot-s0"
    assert zfs_datasets.foreign(POOL, snapshot) == "tank/lxpy/snapshots/custom/web_d/s0"
    assert zfs_datasets.foreign(POOL, snapshot.whole) == "tank/lxpy/snapshots/custom/web_d"
    assert zfs_datasets.encode(POOL, Volume(IMAGE, VolumeType.IMAGE)).endswith(f"images/{IMAGE}")


@pytest.mark.parametrize(
    ("given", "kind", "filled"),
    [
        (
            {"size": "9GiB"},
            "file",
            {"source": "/nowhere/disks/p.img", "zfs.pool_name": "p", "size": "9GiB"},
        ),
        (
            {"source": "/dev/vdb", "volatile.initial_source": "/dev/vdb"},
            "device",
            {"source": "p", "zfs.pool_name": "p"},
        ),
        (
            {"source": "tank/lxpy", "volatile.initial_source": "tank/lxpy"},
            "dataset",
            {"source": "tank/lxpy", "zfs.pool_name": "tank/lxpy"},
        ),
    ],
)
def test_sources(given: dict[str, str], kind: str, filled: dict[str, str]) -> None:
    config = zfs_source.fill("p", dict(given), ROOT)
    assert filled.items() <= config.items()
    validate_pool("zfs", config)
    assert zfs_source.kind(Pool("p", "zfs", config, ROOT / "p")) == kind


def test_sources_refused() -> None:
    with pytest.raises(InvalidConfig, match="the size of the file"):
        zfs_source.fill("p", {"source": "tank", "size": "1GiB"}, ROOT)
    with pytest.raises(InvalidConfig, match="leave it out"):
        zfs_source.fill("p", {"source": "tank", "zfs.pool_name": "other"}, ROOT)
    with pytest.raises(InvalidConfig, match="such as"):
        validate_pool("zfs", {"source": "tank/../x/"})


def test_volume_options() -> None:
    validate_volume("zfs", {"zfs.blocksize": "16KiB", "zfs.use_refquota": "false"})
    with pytest.raises(InvalidConfig, match="remove_snapshots"):
        validate_volume("zfs", {"zfs.remove_snapshots": "true"})
