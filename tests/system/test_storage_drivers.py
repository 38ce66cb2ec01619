"""What every storage driver keeps, on every kind of ground: one suite for all of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lxpy.errors import BadRequest, Conflict, Failed, NotFound, NotSupported
from lxpy.storage import ContentType, Pool, StoragePools, Volume, VolumeType
from tests.support import trees
from tests.support.daemon import Daemon
from tests.support.fixtures import change, create
from tests.support.pools import SETUPS, Ground, Setup, ground, sparse
from tests.support.volumes import (
    C1,
    C2,
    DATA,
    DISK,
    IMAGE,
    MIB,
    digest,
    files,
    fill_up,
    made,
    read,
    started,
    unpack,
    write,
)  # fmt: skip


@pytest.fixture(scope="module", params=SETUPS, ids=lambda setup: setup.label)
def prepared(
    request: pytest.FixtureRequest, work_directory: Path, commands: Path
) -> Iterator[Ground]:
    setup: Setup = request.param
    if reason := setup.why_not():
        pytest.skip(reason)
    with ground(setup, work_directory / f"ground-{setup.label}") as made:
        yield made


@pytest.fixture
async def storage(prepared: Ground) -> AsyncIterator[StoragePools]:
    pools = StoragePools(prepared.directory / "pools")
    yield pools
    await pools.close()


@pytest.fixture
async def pool(storage: StoragePools, prepared: Ground) -> AsyncIterator[Pool]:
    """A started pool; a test that passes has to leave it such that its deletion leaves nothing."""
    pool = await started(storage, prepared, "p")
    yield pool
    for volume in await storage.volumes(pool):
        await storage.delete_volume(pool, volume)
    await storage.delete(pool)
    assert prepared.left() == []
    below = prepared.directory
    assert [each for each in below.rglob("*") if each.name.startswith(("p.img", ".new-"))] == []


async def test_images_go_with_their_last_user(storage: StoragePools, pool: Pool) -> None:
    await made(storage, pool)
    await storage.create_volume(pool, C2, IMAGE)
    with pytest.raises(Conflict, match='already exists: "c2"'):
        await storage.create_volume(pool, C2, IMAGE)
    with pytest.raises(NotFound, match="Image 222222222222 is not in storage pool"):
        await storage.create_volume(pool, Volume("c3"), "2" * 64)
    assert await storage.images(pool) == [IMAGE]
    async with storage.held(pool, C1):
        assert (await storage.metadata(pool, C1) / "metadata.yaml").exists()
    await storage.delete_image(pool, IMAGE)
    assert await storage.images(pool) == []
    assert await read(storage, pool, C2, "two") == "image\n"
    await storage.delete_volume(pool, C1)
    await storage.delete_volume(pool, C2)
    assert list((pool.path / "images").iterdir()) == []


async def test_an_empty_instance(storage: StoragePools, pool: Pool) -> None:
    await storage.create_volume(pool, C1)
    await write(storage, pool, C1, "file", "text")
    await storage.copy(pool, C1, pool, C2)
    assert await read(storage, pool, C2, "file") == "text"
    assert await storage.volumes(pool) == [C1, C2]


async def test_no_attribute_is_lost(storage: StoragePools, pool: Pool, prepared: Ground) -> None:
    await made(storage, pool)
    before = await digest(storage, pool, C1)
    await storage.snapshot(pool, C1.at("s0"))
    async with files(storage, pool, C1, writable=True) as root:
        trees.change(root)
    after = await digest(storage, pool, C1)
    assert after["three"][-1] == after["two"][-1] == "one"
    await storage.snapshot(pool, C1.at("s1"))
    await storage.copy(pool, C1, pool, C2)
    await storage.copy(pool, C1.at("s1"), pool, Volume("c3"))
    other = await started(storage, prepared, "q")
    try:
        await storage.ensure_image(other, IMAGE, unpack)
        await storage.copy(pool, C1.at("s1"), other, C1)
        assert trees.differences(await digest(storage, other, C1), after) == []
    finally:
        await storage.delete_volume(other, C1)
        await storage.delete(other)
    await storage.start(pool)  # as after a restart of the daemon
    for each in (C1, C1.at("s1"), C2, Volume("c3")):
        assert trees.differences(await digest(storage, pool, each), after) == []
    assert trees.differences(await digest(storage, pool, C1.at("s0")), before) == []
    await storage.restore(pool, C1, "s0")
    assert trees.differences(await digest(storage, pool, C1), before) == []
    await storage.restore(pool, C1, "s1")
    assert trees.differences(await digest(storage, pool, C1), after) == []


async def test_restoring_keeps_all_snapshots(storage: StoragePools, pool: Pool) -> None:
    await made(storage, pool)
    for number in range(3):
        await write(storage, pool, C1, "one", str(number))
        await storage.snapshot(pool, C1.at(f"s{number}"))
    with pytest.raises(Conflict):
        await storage.snapshot(pool, C1.at("s1"))
    with pytest.raises(NotFound):
        await storage.restore(pool, C1, "s9")
    for _ in range(2):
        await storage.restore(pool, C1, "s0")
        assert await read(storage, pool, C1, "one") == "0"
        await write(storage, pool, C1, "one", "changed")
    await storage.snapshot(pool, C1.at("s3"))
    assert await storage.snapshots(pool, C1) == ["s0", "s1", "s2", "s3"]
    texts = [await read(storage, pool, C1.at(f"s{number}"), "one") for number in range(4)]
    assert texts == ["0", "1", "2", "changed"]
    await storage.delete_volume(pool, C1.at("s0"))
    await storage.restore(pool, C1, "s2")
    assert await read(storage, pool, C1, "one") == "2"
    assert await read(storage, pool, C1.at("s3"), "one") == "changed"


async def test_renamed_with_snapshots(storage: StoragePools, pool: Pool) -> None:
    await made(storage, pool)
    await storage.snapshot(pool, C1.at("s0"))
    await made(storage, pool, C2)
    with pytest.raises(Conflict):
        await storage.rename(pool, C1, "c2")
    with pytest.raises(NotFound):
        await storage.rename(pool, Volume("c9"), "c8")
    await storage.rename(pool, C1, "new")
    new = Volume("new")
    await storage.rename(pool, new.at("s0"), "first")
    assert await storage.snapshots(pool, C1) == []
    assert await storage.snapshots(pool, new) == ["first"]
    await write(storage, pool, new, "one", "changed")
    await storage.restore(pool, new, "first")
    assert await read(storage, pool, new, "one") == "image\n"
    await storage.delete_volume(pool, new)
    await storage.delete_volume(pool, new)
    assert await storage.volumes(pool) == [C2]
    assert await storage.snapshots(pool, new) == []


async def test_a_snapshot_of_a_volume_in_use(storage: StoragePools, pool: Pool) -> None:
    await made(storage, pool)
    quiet_for: list[int] = []

    @asynccontextmanager
    async def quiet() -> AsyncIterator[None]:
        quiet_for.append(len(written))
        yield

    written: list[str] = []
    async with files(storage, pool, C1, writable=True) as root:
        for number in range(3):
            (root / f"new{number}").write_text("text")
            (root / "kept/file").write_text(str(number))
            written.append(f"new{number}")
            await storage.snapshot(pool, C1.at(f"s{number}"), quiet)
        await storage.copy(pool, C1, pool, C2, quiet)
        (root / "kept/file").write_text("later")
    assert quiet_for == [1, 2, 3, 3]
    assert await read(storage, pool, C1.at("s1"), "kept/file") == "1"
    with pytest.raises(FileNotFoundError):
        await read(storage, pool, C1.at("s1"), "new2")
    assert await read(storage, pool, C2, "kept/file") == "2"
    assert await read(storage, pool, C1, "kept/file") == "later"


@pytest.mark.parametrize("volume", [C1, DATA], ids=["instance", "custom"])
async def test_a_size_is_held(storage: StoragePools, pool: Pool, volume: Volume) -> None:
    sized = replace(volume, config={"size": "260MiB"})
    if volume.type is VolumeType.CUSTOM:
        await storage.create_volume(pool, sized)
    else:
        await made(storage, pool, sized)
    larger = replace(volume, config={"size": "320MiB"})
    async with files(storage, pool, sized, writable=True) as root:
        assert 200 * MIB < fill_up(root / "big") <= 260 * MIB
        await storage.resize(pool, sized, 320 * MIB)
        (root / "small").write_bytes(bytes(40 * MIB))
        os.sync()
        usage = await storage.usage(pool, larger)
        assert usage is not None and usage.used > 240 * MIB and usage.total > 280 * MIB
        if pool.driver != "lvm":  # ext4 shrinks only at rest
            with pytest.raises(Failed):
                await storage.resize(pool, larger, 256 * MIB)
            (root / "big").unlink()  # a full volume can be cleared
            os.sync()
            await storage.resize(pool, larger, 260 * MIB)
            assert (root / "small").read_bytes() == bytes(40 * MIB)
            return
        with pytest.raises(NotSupported, match="while it is in use"):
            await storage.resize(pool, larger, 260 * MIB)
    with pytest.raises(Failed, match="cannot shrink"):
        await storage.resize(pool, larger, 128 * MIB)
    async with files(storage, pool, larger, writable=True) as root:
        (root / "big").unlink()
    await storage.resize(pool, larger, 128 * MIB)
    async with files(storage, pool, sized) as root:
        assert (root / "small").read_bytes() == bytes(40 * MIB)
        assert os.statvfs(root).f_blocks * os.statvfs(root).f_frsize <= 128 * MIB


async def test_a_full_volume_can_be_used_again(
    storage: StoragePools, pool: Pool, prepared: Ground
) -> None:
    await made(storage, pool, replace(C1, config={"size": "64MiB"}))
    async with files(storage, pool, C1, writable=True) as root:
        assert 32 * MIB < fill_up(root / "big") <= 64 * MIB
    async with files(storage, pool, C1, writable=True) as root:
        (root / "big").unlink()
        (root / "small").write_bytes(bytes(MIB))


async def test_what_df_shows(storage: StoragePools, pool: Pool) -> None:
    if pool.driver == "btrfs":
        pytest.skip("statfs of btrfs knows nothing of quota groups: df shows the pool")
    await made(storage, pool, replace(C1, config={"size": "64MiB"}))
    async with files(storage, pool, C1) as root:
        found = os.statvfs(root)
    assert 32 * MIB < found.f_blocks * found.f_frsize <= 64 * MIB


async def test_a_custom_volume(storage: StoragePools, pool: Pool) -> None:
    await storage.create_volume(pool, DATA)
    async with files(storage, pool, DATA, writable=True) as root:
        trees.fill_image(root)
        trees.change(root)
    before = await digest(storage, pool, DATA)
    await storage.snapshot(pool, DATA.at("s0"))
    await write(storage, pool, DATA, "one", "changed")
    await storage.snapshot(pool, DATA.at("s1"))
    await storage.copy(pool, DATA, pool, replace(DATA, name="more"))
    await storage.copy(pool, DATA.at("s0"), pool, replace(DATA, name="old"))
    assert trees.differences(await digest(storage, pool, replace(DATA, name="old")), before) == []
    assert await read(storage, pool, replace(DATA, name="more"), "one") == "changed"
    await storage.restore(pool, DATA, "s0")
    assert trees.differences(await digest(storage, pool, DATA), before) == []
    assert await storage.snapshots(pool, DATA) == ["s0", "s1"]


def disk_size(path: Path) -> int:
    with path.open("rb") as disk:
        return disk.seek(0, os.SEEK_END)


async def test_a_block_volume(storage: StoragePools, pool: Pool) -> None:
    await storage.create_volume(pool, DISK)
    await storage.hold(pool, DISK, "test")
    disk = await storage.disk(pool, DISK)
    assert disk_size(disk) == 16 * MIB
    with disk.open("r+b") as file:
        file.write(b"first")
    await storage.let_go(pool, DISK, "test")
    await storage.snapshot(pool, DISK.at("s0"))
    with disk.open("r+b") as file:
        file.write(b"later")
    await storage.copy(pool, DISK.at("s0"), pool, replace(DISK, name="old"))
    with (await storage.disk(pool, replace(DISK, name="old"))).open("rb") as file:
        assert file.read(5) == b"first"
    await storage.restore(pool, DISK, "s0")
    disk = await storage.disk(pool, DISK)
    with disk.open("rb") as file:
        assert file.read(5) == b"first"
    await storage.resize(pool, DISK, 32 * MIB)
    assert disk_size(disk) == 32 * MIB
    with pytest.raises(Failed, match="cannot shrink"):
        await storage.resize(pool, DISK, 8 * MIB)
    (found,) = [each for each in await storage.volumes(pool) if each.name == "disk"]
    assert found.content is ContentType.BLOCK


async def test_filling(storage: StoragePools, pool: Pool) -> None:
    async with storage.filling(pool, C1) as directory:
        await unpack(directory)
        assert await storage.volumes(pool) == []
    assert await read(storage, pool, C1, "two") == "image\n"
    with pytest.raises(RuntimeError):
        async with storage.filling(pool, C2) as directory:
            (directory / "rootfs").mkdir()
            raise RuntimeError
    assert await storage.volumes(pool) == [C1]
    with pytest.raises(Conflict):
        async with storage.filling(pool, C1):
            pass
    async with storage.filling(pool, C1.at("s0")) as directory:
        await unpack(directory)
        (directory / "rootfs/two").write_text("older\n")
    await storage.restore(pool, C1, "s0")
    assert await read(storage, pool, C1, "two") == "older\n"
    async with storage.filling(pool, DISK) as directory:
        sparse(directory / "root.img", MIB)
    # Logical volumes come in extents.
    assert disk_size(await storage.disk(pool, DISK)) == (4 if pool.driver == "lvm" else 1) * MIB


async def test_a_cancelled_copy_leaves_nothing(storage: StoragePools, pool: Pool) -> None:
    await made(storage, pool)
    waiting = asyncio.Event()

    @asynccontextmanager
    async def endless() -> AsyncIterator[None]:
        waiting.set()
        await asyncio.Event().wait()
        yield

    async with storage.held(pool, C1):
        for work in (
            storage.copy(pool, C1, pool, C2, endless),
            storage.snapshot(pool, C1.at("s0"), endless),
        ):
            waiting.clear()
            task = asyncio.create_task(work)
            await waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert await storage.volumes(pool) == [C1]
    assert await storage.snapshots(pool, C1) == []
    left = [each for area in pool.path.glob("containers*") for each in area.rglob(".new-*")]
    assert left == []


async def test_what_a_crash_left_goes_at_the_next_start(storage: StoragePools, pool: Pool) -> None:
    await made(storage, pool)
    await storage.snapshot(pool, C1.at("s0"))
    await storage.snapshot(pool, C1.at(".hidden"))
    # As if killed in between: what is being made is taken away under its maker.
    with pytest.raises(RuntimeError):
        async with storage.filling(pool, C2):
            begun = list((pool.path / "containers").glob(".new-*"))
            await StoragePools(pool.path.parent).start(pool)
            assert not [each for each in begun if each.exists()]
            raise RuntimeError
    assert await storage.snapshots(pool, C1) == ["s0"]
    assert not list(pool.path.glob("containers*/*/.hidden"))
    assert await storage.volumes(pool) == [C1]


async def test_a_pool_in_use_is_not_deleted(storage: StoragePools, pool: Pool) -> None:
    await made(storage, pool)
    with pytest.raises(BadRequest, match='currently in use: "p" has volumes in containers'):
        await storage.delete(pool)
    assert await read(storage, pool, C1, "two") == "image\n"


async def test_a_pool_comes_back(storage: StoragePools, pool: Pool) -> None:
    await made(storage, pool)
    await storage.snapshot(pool, C1.at("s0"))
    await storage.stop(pool)
    again = StoragePools(pool.path.parent)
    await again.start(pool)
    assert await again.volumes(pool) == [C1]
    assert await read(again, pool, C1.at("s0"), "two") == "image\n"
    assert await again.images(pool) == [IMAGE]
    await again.close()


async def test_copies_between_drivers(
    storage: StoragePools, pool: Pool, prepared: Ground, work_directory: Path
) -> None:
    other = "dir" if prepared.setup.driver == "btrfs" else "btrfs"
    (work_directory / "aside").mkdir(exist_ok=True)
    aside = StoragePools(work_directory / "aside/pools")
    config = aside.fill("aside", other, {"size": "1GiB"} if other == "btrfs" else {})
    target = storage.pool("aside", other, config)
    if other == "btrfs":
        target = replace(target, mount_point=work_directory / "aside/pools/aside")
    await storage.create(target)
    try:
        await made(storage, pool)
        async with files(storage, pool, C1, writable=True) as root:
            trees.change(root)
        before = await digest(storage, pool, C1)
        async with storage.held(pool, C1):
            await storage.copy(pool, C1, target, C1)
        assert trees.differences(await digest(storage, target, C1), before) == []
        await storage.snapshot(target, C1.at("s0"))
        await storage.copy(target, C1.at("s0"), pool, C2)
        assert trees.differences(await digest(storage, pool, C2), before) == []
        await storage.create_volume(pool, DISK)
        with (await storage.disk(pool, DISK)).open("r+b") as file:
            file.write(b"disk")
        await storage.copy(pool, DISK, target, DISK)
        copied = await storage.disk(target, DISK)
        assert (disk_size(copied), copied.read_bytes()[:5]) == (16 * MIB, b"disk\0")
    finally:
        for volume in (C1, DISK):
            await storage.delete_volume(target, volume)
        await storage.delete(target)
        subprocess.run(["rm", "-rf", "--one-file-system", work_directory / "aside"], check=True)


def test_an_instance_on_each_ground(daemon: Daemon, tiny: str, prepared: Ground) -> None:
    api, inside = daemon.api, daemon.exec
    setup = prepared.setup
    api.post(
        "/1.0/storage-pools", {"name": "p", "driver": setup.driver, "config": prepared.config()}
    )
    root = {"type": "disk", "path": "/", "pool": "p", "size": "260MiB"}
    name = create(daemon, tiny, devices={"root": root})
    change(daemon, name, "start")
    inside(name, "sh", "-c", "echo first > /root/file; ln /root/file /root/other")
    path = f"/1.0/instances/{name}"
    api.post(f"{path}/snapshots", {"name": "s0"})
    full = inside(name, "dd", "if=/dev/zero", "of=/big", "bs=1M", check=False)
    assert "No space left" in full.stderr or "quota exceeded" in full.stderr
    if setup.driver != "btrfs":  # there it is the pool's
        assert int(daemon.out(name, "df", "-m", "/").split()[-5]) <= 260
    inside(name, "rm", "/big")
    inside(name, "sh", "-c", "echo later > /root/file")
    api.post(f"{path}/snapshots", {"name": "s1"})
    copy = daemon.name()
    api.post("/1.0/instances", {"name": copy, "source": {"type": "copy", "source": name}})
    api.put(path, {"restore": "s0"})
    assert daemon.out(name, "cat", "/root/other") == "first"
    assert len(api.get(f"{path}/snapshots")) == 2
    change(daemon, copy, "start")
    assert daemon.out(copy, "cat", "/root/other") == "later"
    daemon.restart()
    assert daemon.out(name, "cat", "/root/file") == "first"
    change(daemon, copy, "stop")
    api.post(f"/1.0/instances/{copy}", {"name": f"{copy}n"})
    change(daemon, f"{copy}n", "start")
    assert daemon.out(f"{copy}n", "cat", "/root/file") == "later"
    for each in (name, f"{copy}n"):
        daemon.delete(each)
    api.call("DELETE", "/1.0/storage-pools/p")
    assert prepared.left() == []
    assert not (daemon.directory / "disks").exists()  # it goes with its last file
