"""Volumes on a plain directory: whole or not there, whatever goes wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lxpy.doctor import Host
from lxpy.errors import BadRequest, Conflict, Failed, NotFound
from lxpy.storage import Layers, Pool, StoragePools, Volume, VolumeType
from lxpy.threads import in_thread
from tests.unit.storage.conftest import IMAGE, OTHER, an_image


def entries(pool: Pool, area: str = "containers") -> list[str]:
    return sorted(each.name for each in (pool.path / area).iterdir())


async def upper(storage: StoragePools, pool: Pool, name: str) -> Path:
    found = await storage.rootfs(pool, Volume(name))
    assert isinstance(found, Layers) and found.root
    return Path(found.root) / "upper"


async def test_a_volume_on_an_image(storage: StoragePools, pool: Pool) -> None:
    await storage.ensure_image(pool, IMAGE, an_image())
    await storage.create_volume(pool, Volume("c1"), IMAGE)
    lower = pool.path / "images" / IMAGE / "rootfs"
    found = await storage.rootfs(pool, Volume("c1"))
    assert isinstance(found, Layers) and found.lower == (str(lower),) and found.root
    root = Path(found.root)
    assert await storage.image_of(pool, Volume("c1")) == IMAGE
    assert await storage.metadata(pool, Volume("c1")) == lower.parent
    assert (root / "upper").stat().st_mode == lower.stat().st_mode


async def test_a_volume_without_an_image(storage: StoragePools, pool: Pool) -> None:
    await storage.create_volume(pool, Volume("c1", project="other"))
    assert entries(pool) == ["other_c1"]
    found = await storage.rootfs(pool, Volume("c1", project="other"))
    assert isinstance(found, Layers) and list(Path(found.lower[0]).iterdir()) == []


async def test_an_image_that_is_not_there(storage: StoragePools, pool: Pool) -> None:
    with pytest.raises(NotFound, match="aaaaaaaaaaaa is not in storage pool"):
        await storage.create_volume(pool, Volume("c1"), IMAGE)
    assert entries(pool) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", ".new-1", "a\0b"])
async def test_names_that_could_leave_the_pool(
    storage: StoragePools, pool: Pool, name: str
) -> None:
    with pytest.raises(BadRequest, match="Invalid volume name"):
        await storage.create_volume(pool, Volume(name))


async def test_nothing_is_made_over_another(storage: StoragePools, pool: Pool) -> None:
    for kind in (VolumeType.CONTAINER, VolumeType.CUSTOM):
        one, two = Volume("one", kind), Volume("two", kind)
        await storage.create_volume(pool, one)
        await storage.create_volume(pool, two)
        for attempt in (
            storage.create_volume(pool, one),
            storage.copy(pool, two, pool, one),
            storage.rename(pool, two, "one"),
        ):
            with pytest.raises(Conflict, match=r'already exists: "one"'):
                await attempt
    assert entries(pool) == entries(pool, "custom") == ["one", "two"]


async def test_a_cancelled_creation_spares_the_volume_it_found(
    storage: StoragePools, pool: Pool
) -> None:
    await storage.create_volume(pool, Volume("c1"))
    (await upper(storage, pool, "c1") / "precious").touch()
    task = asyncio.create_task(storage.create_volume(pool, Volume("c1")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await upper(storage, pool, "c1") / "precious").exists()


async def test_a_cancelled_creation_leaves_nothing(storage: StoragePools, pool: Pool) -> None:
    await storage.ensure_image(pool, IMAGE, an_image())
    for _ in range(10):
        task = asyncio.create_task(storage.create_volume(pool, Volume("c1"), IMAGE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert entries(pool) == entries(pool, ".trash") == []
    await storage.delete_image(pool, IMAGE)
    assert entries(pool, "images") == []  # nobody is thought to use it


async def test_rename(storage: StoragePools, pool: Pool) -> None:
    await storage.create_volume(pool, Volume("c1"))
    await storage.rename(pool, Volume("c1"), "c2")
    assert entries(pool) == ["c2"]
    with pytest.raises(NotFound, match="c1"):
        await storage.rename(pool, Volume("c1"), "c3")


@pytest.mark.parametrize("done", ["volume", "snapshots"])
async def test_a_rename_cut_in_two_is_taken_back(
    storage: StoragePools, pool: Pool, done: str
) -> None:
    """A crash comes between the two directories that have to be renamed."""
    await storage.create_volume(pool, Volume("old"))
    (pool.path / "containers-snapshots/old/s0").mkdir(parents=True)
    area = "containers" if done == "volume" else "containers-snapshots"
    (pool.path / area / "old").rename(pool.path / area / "new")
    await storage.rename(pool, Volume("new"), "old")
    assert entries(pool) == ["old"]
    assert await storage.snapshots(pool, Volume("old")) == ["s0"]
    assert await storage.snapshots(pool, Volume("new")) == []


async def test_deletion_is_repeatable(storage: StoragePools, pool: Pool) -> None:
    await storage.create_volume(pool, Volume("c1"))
    for _ in range(2):
        await storage.delete_volume(pool, Volume("c1"))
    assert entries(pool) == entries(pool, ".trash") == []


async def test_a_link_in_a_volume_is_not_followed(
    storage: StoragePools, pool: Pool, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    await storage.create_volume(pool, Volume("c1"))
    (await upper(storage, pool, "c1") / "link").symlink_to(tmp_path / "outside")
    await storage.delete_volume(pool, Volume("c1"))
    assert (tmp_path / "outside/file").exists()


async def test_a_copy_shares_what_both_began_with(storage: StoragePools, pool: Pool) -> None:
    await storage.create_volume(pool, Volume("c1"))
    (await upper(storage, pool, "c1") / "file").write_text("text")
    await storage.copy(pool, Volume("c1"), pool, Volume("c2"))
    one, two = [await storage.rootfs(pool, Volume(name)) for name in ("c1", "c2")]
    assert isinstance(one, Layers) and isinstance(two, Layers)
    assert one.lower == two.lower and one.root != two.root
    assert (Path(one.lower[0]) / "file").read_text() == "text"
    await storage.delete_volume(pool, Volume("c1"))
    assert len(entries(pool, "layers")) == 3  # the copy's own, the shared one, the empty base
    await storage.delete_volume(pool, Volume("c2"))
    assert entries(pool, "layers") == []
    with pytest.raises(NotFound, match="nope"):
        await storage.copy(pool, Volume("nope"), pool, Volume("c3"))
    assert entries(pool) == []


async def test_copy_of_a_custom_volume(storage: StoragePools, pool: Pool) -> None:
    one, two = (Volume(each, VolumeType.CUSTOM) for each in ("one", "two"))
    await storage.create_volume(pool, one)
    (pool.path / "custom/one/files/.hidden").write_text("text")
    (pool.path / "custom/one/files/directory").mkdir()
    await storage.copy(pool, one, pool, two)
    assert entries(pool, "custom") == ["one", "two"]
    assert entries(pool, "custom/two/files") == [".hidden", "directory"]


async def test_an_image_is_unpacked_once(storage: StoragePools, pool: Pool) -> None:
    calls = 0
    inner = an_image()

    async def unpack(target: Path) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        await inner(target)

    await asyncio.gather(*(storage.ensure_image(pool, IMAGE, unpack) for _ in range(5)))
    await storage.ensure_image(pool, IMAGE, unpack)
    assert calls == 1 and await storage.images(pool) == [IMAGE]


async def test_unpacking_goes_on_until_the_last_gives_up(storage: StoragePools, pool: Pool) -> None:
    begun = asyncio.Event()

    async def unpack(target: Path) -> None:
        begun.set()
        await asyncio.sleep(60)

    waiting = [asyncio.create_task(storage.ensure_image(pool, IMAGE, unpack)) for _ in range(2)]
    await begun.wait()
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert len(entries(pool, "images")) == 1
    waiting[1].cancel()
    await asyncio.wait(waiting)
    assert entries(pool, "images") == entries(pool, ".trash") == []


async def test_an_image_that_cannot_be_unpacked_leaves_nothing(
    storage: StoragePools, pool: Pool
) -> None:
    async def unpack(target: Path) -> None:
        await in_thread((target / "half").mkdir)
        raise Failed("it is damaged")

    with pytest.raises(Failed, match="it is damaged"):
        await storage.ensure_image(pool, IMAGE, unpack)
    assert entries(pool, "images") == entries(pool, ".trash") == []


async def test_a_used_image_goes_with_its_last_user(storage: StoragePools, pool: Pool) -> None:
    await storage.ensure_image(pool, IMAGE, an_image())
    await storage.create_volume(pool, Volume("c1"), IMAGE)
    await storage.copy(pool, Volume("c1"), pool, Volume("c2"))
    await storage.delete_image(pool, IMAGE)
    assert await storage.images(pool) == [] and entries(pool, "images") == [IMAGE]
    await storage.delete_volume(pool, Volume("c1"))
    await storage.rootfs(pool, Volume("c2"))
    await storage.delete_volume(pool, Volume("c2"))
    assert entries(pool, "images") == entries(pool, ".trash") == []


async def test_a_deleted_image_that_comes_back_stays(storage: StoragePools, pool: Pool) -> None:
    await storage.ensure_image(pool, IMAGE, an_image())
    await storage.create_volume(pool, Volume("c1"), IMAGE)
    await storage.delete_image(pool, IMAGE)
    await storage.ensure_image(pool, IMAGE, an_image())
    await storage.delete_volume(pool, Volume("c1"))
    assert await storage.images(pool) == [IMAGE]


async def test_users_are_counted_anew_after_a_restart(
    storage: StoragePools, pool: Pool, tmp_path: Path
) -> None:
    host = Host(root=tmp_path / "host")
    for image, name in ((IMAGE, "c1"), (OTHER, "c2")):
        await storage.ensure_image(pool, image, an_image())
        await storage.create_volume(pool, Volume(name), image)
        await storage.delete_image(pool, image)
    # As after a crash between the removal of a volume and that of its image.
    (pool.path / "containers/c2").rename(pool.path / ".trash/c2")
    again = StoragePools(tmp_path / "pools", host)
    await again.start(pool)
    assert entries(pool, "images") == [IMAGE]
    await again.delete_volume(pool, Volume("c1"))
    assert entries(pool, "images") == []
