"""Pools on a plain directory: made, found again, refused, removed."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lxpy.errors import BadRequest, Failed
from lxpy.storage import Pool, StoragePools, Volume
from tests.unit.storage.conftest import IMAGE, a_host, an_image

Make = Callable[..., Pool]


async def test_a_pool_is_private(pool: Pool) -> None:
    for area in ("containers", "custom", "images", ".trash"):
        assert stat.S_IMODE((pool.path / area).stat().st_mode) == 0o700


async def test_a_source_that_holds_something_is_refused(
    storage: StoragePools, make_pool: Make, tmp_path: Path
) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    (source / "file").touch()
    with pytest.raises(BadRequest, match="isn't empty"):
        await storage.create(make_pool(source=str(source)))
    assert [each.name for each in source.iterdir()] == ["file"]


async def test_a_source_that_is_a_file_is_refused(
    storage: StoragePools, make_pool: Make, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadRequest, match="is not a directory"):
        await storage.create(make_pool(source=str(tmp_path / "file")))


async def test_what_an_interrupted_attempt_left_is_no_obstacle(
    storage: StoragePools, make_pool: Make
) -> None:
    made = make_pool()
    (made.path / "containers").mkdir(parents=True)
    await storage.create(made)
    await storage.start(made)


@pytest.mark.parametrize(("kind", "kernel"), [("overlay", "6.1.0"), ("tmpfs", "6.1.0")])
async def test_a_file_system_without_idmapped_mounts_is_refused(
    tmp_path: Path, kind: str, kernel: str
) -> None:
    storage = StoragePools(tmp_path / "pools", a_host(tmp_path / "host", kind, kernel))
    made = Pool("p", "dir", storage.fill("p", "dir", {}))
    for attempt in (storage.create, storage.start):
        with pytest.raises(Failed, match=rf"lies on {kind}.*idmapped.*ext4, xfs or btrfs"):
            await attempt(made)


async def test_a_missing_source_is_told_of_everywhere(
    storage: StoragePools, make_pool: Make
) -> None:
    gone = make_pool("gone")
    for attempt in (
        storage.start(gone),
        storage.resources(gone),
        storage.images(gone),
        storage.create_volume(gone, Volume("c1")),
        storage.ensure_image(gone, IMAGE, an_image()),
    ):
        with pytest.raises(Failed, match=r'"gone".*is missing: mount or restore it'):
            await attempt
    await storage.delete(gone)


async def test_resources(storage: StoragePools, pool: Pool) -> None:
    found = await storage.resources(pool)
    assert 0 < found.space_used < found.space_total


async def test_a_pool_with_volumes_stays(storage: StoragePools, pool: Pool) -> None:
    await storage.create_volume(pool, Volume("c1"))
    with pytest.raises(BadRequest, match="currently in use"):
        await storage.delete(pool)
    await storage.delete_volume(pool, Volume("c1"))
    await storage.ensure_image(pool, IMAGE, an_image())
    await storage.delete(pool)
    assert not pool.path.exists()


async def test_the_users_own_directory_stays(
    storage: StoragePools, make_pool: Make, tmp_path: Path
) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    made = make_pool(source=str(source))
    await storage.create(made)
    await storage.delete(made)
    assert list(source.iterdir()) == []


async def test_what_a_crash_left_is_swept(storage: StoragePools, pool: Pool) -> None:
    for area in ("containers", "custom", "images", ".trash"):
        (pool.path / area / ".new-1234-c1" / "upper").mkdir(parents=True)
    await storage.create_volume(pool, Volume("c1"))
    await storage.start(pool)
    assert [each.name for each in (pool.path / "containers").iterdir()] == ["c1"]
    for area in ("custom", "images", ".trash"):
        assert not list((pool.path / area).iterdir())
