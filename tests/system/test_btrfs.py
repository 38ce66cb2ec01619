"""What only pools on btrfs have: subvolumes of guests, streams, a size, sources of three kinds."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lxpy.errors import BadRequest, Failed
from lxpy.storage import Pool, StoragePools, Volume, loops
from tests.support import trees
from tests.support.daemon import Daemon
from tests.support.fixtures import change, create
from tests.support.pools import Ground, Setup, ground, sparse
from tests.support.volumes import C1, C2, IMAGE, MIB, digest, files, fill_up, made, read, started


@pytest.fixture(scope="module")
def prepared(work_directory: Path, commands: Path) -> Iterator[Ground]:
    with ground(Setup("btrfs", "file"), work_directory / "ground-only-btrfs") as made:
        yield made


@pytest.fixture
async def storage(prepared: Ground) -> AsyncIterator[StoragePools]:
    pools = StoragePools(prepared.directory / "pools")
    yield pools
    await pools.close()


@pytest.fixture
async def pool(storage: StoragePools, prepared: Ground) -> AsyncIterator[Pool]:
    pool = await started(storage, prepared, "p")
    yield pool
    for volume in await storage.volumes(pool):
        await storage.delete_volume(pool, volume)
    await storage.delete(pool)
    assert prepared.left() == []


async def test_subvolumes_of_a_guest(storage: StoragePools, pool: Pool) -> None:
    await made(storage, pool, replace(C1, config={"size": "64MiB"}))
    async with files(storage, pool, C1, writable=True) as root:
        for name in ("sub", "kept/inner", "kept/inner/most"):
            subprocess.run(["btrfs", "-q", "subvolume", "create", root / name], check=True)
        (root / "kept/inner/most/file").write_text("first")
    before = await digest(storage, pool, C1)
    async with files(storage, pool, C1, writable=True) as root:
        assert fill_up(root / "sub/big") <= 64 * MIB  # they count, too
    await storage.snapshot(pool, C1.at("s0"))
    await storage.copy(pool, C1.at("s0"), pool, C2)
    async with files(storage, pool, C2, writable=True) as root:
        (root / "sub/big").unlink()
    assert set(await digest(storage, pool, C2)) == set(before)
    await storage.restore(pool, C1, "s0")
    assert await read(storage, pool, C1, "kept/inner/most/file") == "first"
    for each in (C1, C2):
        await storage.delete_volume(pool, each)
    listed = subprocess.run(
        ["btrfs", "subvolume", "list", "-o", pool.path], capture_output=True, text=True, check=True
    )
    assert [line for line in listed.stdout.splitlines() if "/c" in line] == []


async def test_other_mount_options(storage: StoragePools, pool: Pool) -> None:
    def options() -> str:
        command = ["findmnt", "-n", "-o", "OPTIONS", str(pool.path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "user_subvol_rm_allowed" in options()
    await storage.update(pool, {**pool.config, "btrfs.mount_options": "noatime,compress=zstd"})
    assert "noatime" in options() and "compress=zstd" in options()
    with pytest.raises(BadRequest, match="btrfs.mount_options"):
        await storage.update(pool, {**pool.config, "btrfs.mount_options": "nonsense"})
    assert "noatime" in options()


async def test_a_full_pool(storage: StoragePools) -> None:
    small = storage.pool("small", "btrfs", storage.fill("small", "btrfs", {"size": "256MiB"}))
    await storage.create(small)
    await made(storage, small)
    await storage.snapshot(small, C1.at("s0"))
    async with files(storage, small, C1, writable=True) as root:
        subprocess.run(["btrfs", "-q", "subvolume", "create", root / "sub"], check=True)
        fill_up(root / "sub/big")
        for work in (
            storage.create_volume(small, C2, IMAGE),
            storage.copy(small, C1, small, C2),
            storage.snapshot(small, C1.at("s1")),
            storage.resize(small, C1, 512 * MIB),
        ):
            with pytest.raises(Failed, match='No space left in storage pool "small": free some'):
                await work
    with pytest.raises(Failed, match="No space left"):
        await storage.restore(small, C1, "s0")
    assert [*small.path.glob("*/.new-*"), *small.path.glob("*/*/.new-*")] == []
    assert await storage.volumes(small) == [C1] and await storage.snapshots(small, C1) == ["s0"]
    await storage.delete_volume(small, C1)
    subprocess.run(["btrfs", "subvolume", "sync", small.path], check=True, capture_output=True)
    await storage.create_volume(small, C2, IMAGE)
    await storage.delete_volume(small, C2)
    await storage.delete(small)


async def test_what_is_done_outlives_a_power_cut(
    storage: StoragePools, pool: Pool, prepared: Ground
) -> None:
    """What a call has returned from is on the disk: so a copy of the disk has it."""
    sized = replace(C1, config={"size": "64MiB"})
    await made(storage, pool, sized)
    with copied(pool, prepared) as there:
        assert (there / "containers/c1/rootfs/two").read_text() == "image\n"
        assert f"{64 * MIB} " in limits(there)
    async with files(storage, pool, C1, writable=True) as root:
        (root / "new").write_text("text")
    await storage.snapshot(pool, C1.at("s0"))
    await storage.resize(pool, sized, 128 * MIB)
    with copied(pool, prepared) as there:
        assert (there / "containers-snapshots/c1/s0/rootfs/new").read_text() == "text"
        assert f"{128 * MIB} " in limits(there)
    await storage.rename(pool, C1, "c2")
    await storage.restore(pool, replace(sized, name="c2"), "s0")
    with copied(pool, prepared) as there:
        assert (there / "containers/c2/rootfs/new").read_text() == "text"
        assert (there / "containers-snapshots/c2/s0").is_dir()
        assert not (there / "containers/c1").exists()
    await storage.delete_volume(pool, C2)
    with copied(pool, prepared) as there:
        assert not any((there / "containers").iterdir())


@contextmanager
def copied(pool: Pool, prepared: Ground) -> Iterator[Path]:
    """Mount a copy of a pool's file as it is now."""
    copy, place = prepared.directory / "copy.img", prepared.directory / "copy"
    subprocess.run(["cp", "--sparse=always", pool.config["source"], str(copy)], check=True)
    place.mkdir()
    try:
        with loops.attached(copy) as device:
            subprocess.run(["mount", device, place], check=True)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()
        copy.unlink()


def limits(place: Path) -> str:
    command = ["btrfs", "qgroup", "show", "-r", "--raw", str(place)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_a_file_system_that_counts_references(work_directory: Path, commands: Path) -> None:
    """Quotas that somebody has enabled already are used as they are."""
    with ground(Setup("btrfs", "btrfs"), work_directory / "ground-counting") as prepared:
        subprocess.run(["btrfs", "quota", "enable", prepared.directory], check=True)
        storage = StoragePools(prepared.directory / "pools")
        pool = await started(storage, prepared, "p")
        sized = replace(C1, config={"size": "32MiB"})
        await made(storage, pool, sized)
        async with files(storage, pool, C1, writable=True) as root:
            assert 16 * MIB < fill_up(root / "big") <= 32 * MIB
            await storage.resize(pool, sized, 64 * MIB)
            (root / "more").write_bytes(bytes(8 * MIB))
            os.sync()
        usage = await storage.usage(pool, sized)
        assert usage is not None and usage.used > 24 * MIB and usage.total == 64 * MIB
        with pytest.raises(Failed, match="cannot shrink"):
            await storage.resize(pool, sized, 16 * MIB)
        await storage.resize(pool, sized, None)
        usage = await storage.usage(pool, sized)
        assert usage is not None and usage.total == 0
        await storage.delete_volume(pool, C1)
        await storage.delete(pool)
        assert prepared.left() == []


async def test_streams(storage: StoragePools, pool: Pool) -> None:
    assert storage.info(pool).streams
    driver = storage._of(pool)

    async def send(volume: Volume, since: str, target: Volume) -> None:
        reading, writing = os.pipe()

        async def source() -> None:
            try:
                await driver.send(pool, volume, since, writing)
            finally:
                os.close(writing)

        try:
            await asyncio.gather(source(), driver.receive(pool, target, reading))
        finally:
            os.close(reading)

    await made(storage, pool)
    await storage.snapshot(pool, C1.at("s0"))
    async with files(storage, pool, C1, writable=True) as root:
        trees.change(root)
    await storage.snapshot(pool, C1.at("s1"))
    await send(C1.at("s0"), "", C2.at("s0"))
    await send(C1.at("s1"), "s0", C2.at("s1"))
    await send(C1, "s1", C2)
    for each in (C1, C1.at("s0"), C1.at("s1")):
        copy = replace(each, name="c2")
        same = trees.differences(
            await digest(storage, pool, copy), await digest(storage, pool, each)
        )
        assert same == []


async def test_a_pool_grows(storage: StoragePools, pool: Pool) -> None:
    before = await storage.resources(pool)
    with pytest.raises(BadRequest, match="cannot shrink from 2GiB to 1GiB"):
        await storage.update(pool, {**pool.config, "size": "1GiB"})
    await storage.update(pool, {**pool.config, "size": "3GiB"})
    grown = (await storage.resources(pool)).space_total - before.space_total
    assert grown == 1 << 30


def test_a_pool_that_is_unmounted_comes_back(daemon: Daemon, tiny: str) -> None:
    api, path = daemon.api, "/1.0/storage-pools"
    api.post(path, {"name": "p", "driver": "btrfs", "config": {"size": "256MiB"}})
    root = {"type": "disk", "path": "/", "pool": "p"}
    name = create(daemon, tiny, devices={"root": root})
    place, file = daemon.directory / "storage-pools/p", daemon.directory / "disks/p.img"
    subprocess.run(["umount", place], check=True)
    file.rename(file.with_name("away"))
    assert {each["name"]: each["status"] for each in api.get(f"{path}?recursion=1")} == {
        "default": "Created",
        "p": "Unavailable",
    }
    status, _, reply = api.raw("GET", f"{path}/p/resources")
    assert status == 503 and b"is missing: restore it" in reply
    file.with_name("away").rename(file)
    assert api.get(f"{path}/p/resources")["space"]["total"] == 256 * MIB
    assert api.get(f"{path}/p")["status"] == "Created"
    change(daemon, name, "start")
    daemon.delete(name)
    api.call("DELETE", f"{path}/p")
    assert not file.exists()


class TestSources:
    """What a pool on btrfs is not made on."""

    @pytest.fixture
    def place(self, work_directory: Path, commands: Path) -> Iterator[Path]:
        path = work_directory / "sources"
        path.mkdir()
        yield path
        subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)

    async def refused(self, place: Path, text: str, **config: str) -> None:
        storage = StoragePools(place / "pools")
        pool = storage.pool("p", "btrfs", storage.fill("p", "btrfs", config))
        with pytest.raises(BadRequest, match=text):
            await storage.create(pool)
        assert not (place / "pools/p").exists()

    async def test_directories(self, place: Path) -> None:
        await self.refused(place, "is no directory: make it", source=str(place / "none"))
        await self.refused(place, "is not on a btrfs file system", source=str(place))
        await self.refused(place, "is no block device", source="/dev/null")

    async def test_a_device_with_files(self, place: Path) -> None:
        disk = sparse(place / "disk.img")
        subprocess.run(["mkfs.ext4", "-q", disk], check=True)
        with loops.attached(disk) as device:
            await self.refused(place, f"wipefs -a {device}", source=device)

    async def test_a_file_that_is_there(self, place: Path) -> None:
        (place / "disks").mkdir()
        (place / "disks/p.img").write_text("precious")
        await self.refused(place, "exists already", size="1GiB")
        assert (place / "disks/p.img").read_text() == "precious"

    @pytest.mark.parametrize("below", ["file", "device"])
    async def test_a_creation_that_was_interrupted(self, place: Path, below: str) -> None:
        with ground(Setup("btrfs", below), place / "ground") as prepared:
            storage = StoragePools(prepared.directory / "pools")
            given = prepared.config()

            async def attempt() -> Pool:
                pool = storage.pool("p", "btrfs", storage.fill("p", "btrfs", given))
                await storage.create(pool)
                return pool

            await attempt()
            pool = await attempt()  # the daemon died before it could note the pool
            await storage.stop(pool)
            pool = await attempt()
            await storage.create_volume(pool, C1)
            with pytest.raises(BadRequest, match=r"exists already|has a file system"):
                await attempt()
            assert await storage.volumes(pool) == [C1]
            await storage.delete_volume(pool, C1)
            await storage.delete(pool)
            await storage.delete(pool)  # as after a crash in between
            assert prepared.left() == []

    async def test_a_file_that_is_lost(self, place: Path) -> None:
        storage = StoragePools(place / "pools")
        pool = storage.pool("p", "btrfs", storage.fill("p", "btrfs", {"size": "1GiB"}))
        await storage.create(pool)
        await storage.stop(pool)
        (place / "disks/p.img").unlink()
        with pytest.raises(Failed, match=r"its file .*p\.img is missing: restore it"):
            await storage.start(pool)
        with pytest.raises(Failed, match="mount or restore it"):
            await storage.create_volume(pool, C1)
        await storage.delete(pool)
        assert not (place / "pools/p").exists()
