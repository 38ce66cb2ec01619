"""What only pools on LVM have: xfs, groups that are shared, replacements that a crash cuts off."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lxpy.errors import BadRequest, Failed, NotSupported
from lxpy.storage import Pool, StoragePools, Volume
from tests.support import trees
from tests.support.pools import Ground, Setup, ground
from tests.support.volumes import C1, C2, MIB, digest, files, fill_up, made, read, started, write


@pytest.fixture(scope="module")
def prepared(work_directory: Path, commands: Path) -> Iterator[Ground]:
    setup = Setup("lvm", "device")
    if reason := setup.why_not():
        pytest.skip(reason)
    with ground(setup, work_directory / "ground-only-lvm") as made:
        yield made


@pytest.fixture
async def storage(prepared: Ground) -> AsyncIterator[StoragePools]:
    pools = StoragePools(prepared.directory / "pools")
    yield pools
    await pools.close()


async def removed(storage: StoragePools, pool: Pool) -> None:
    for volume in await storage.volumes(pool):
        await storage.delete_volume(pool, volume)
    await storage.delete(pool)


def lvm(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


async def test_xfs(storage: StoragePools, prepared: Ground) -> None:
    config = {**prepared.config(), "volume.block.filesystem": "xfs", "volume.size": "400MiB"}
    pool = storage.pool("p", "lvm", storage.fill("p", "lvm", config))
    await storage.create(pool)
    await storage.start(pool)
    await made(storage, pool)
    before = await digest(storage, pool, C1)
    await storage.snapshot(pool, C1.at("s0"))
    async with files(storage, pool, C1, writable=True) as root:
        (root / "one").write_text("changed")
        # Three of the same UUID at once.
        assert await read(storage, pool, C1.at("s0"), "one") == "image\n"
        await storage.copy(pool, C1, pool, C2)
        assert await read(storage, pool, C2, "one") == "changed"
        await storage.resize(pool, C1, 480 * MIB)
        assert fill_up(root / "big") > 350 * MIB  # the log takes 64
    with pytest.raises(NotSupported, match="as xfs cannot: make a smaller one"):
        await storage.resize(pool, C1, 400 * MIB)
    # An instance that is smaller than its image gets a copy of the files.
    small = replace(Volume("small"), config={"size": "320MiB"})
    await storage.create_volume(pool, small, "1" * 64)
    assert trees.differences(await digest(storage, pool, small), before) == []
    await storage.restore(pool, C1, "s0")
    assert trees.differences(await digest(storage, pool, C1), before) == []
    await removed(storage, pool)
    assert prepared.left() == []


async def test_a_replacement_that_was_cut_off(storage: StoragePools, prepared: Ground) -> None:
    pool = await started(storage, prepared, "p")
    await made(storage, pool)
    await write(storage, pool, C1, "one", "mine")
    # Killed after the first rename: the old one comes back.
    lvm("lvrename", "p", "containers_c1", "old_containers_c1")
    await storage.start(pool)
    assert await read(storage, pool, C1, "one") == "mine"
    # Killed after the second: what replaces it stays.
    lvm("lvrename", "p", "containers_c1", "old_containers_c1")
    await storage.create_volume(pool, C1, "1" * 64)
    await storage.start(pool)
    assert await read(storage, pool, C1, "one") == "image\n"
    assert "old_" not in lvm("lvs", "p")
    await removed(storage, pool)
    assert prepared.left() == []


async def test_groups_of_others(storage: StoragePools, prepared: Ground) -> None:
    device = prepared.config()["source"]
    lvm("vgcreate", "-y", "mine", device)
    lvm("lvcreate", "-y", "-Wn", "-n", "precious", "-L", "16M", "mine")

    async def refused(words: str, **config: str) -> None:
        given = {key.replace("__", "."): value for key, value in config.items()}
        pool = storage.pool("p", "lvm", storage.fill("p", "lvm", given))
        with pytest.raises(BadRequest, match=words):
            await storage.create(pool)
        assert not pool.path.exists()

    await refused(r"not empty \(precious", source="mine")
    await refused("exists already", source=prepared.config()["source"], lvm__vg_name="mine")
    await refused(f"wipefs -a {device}", source=device)
    await refused("no block device", source="/dev/null")
    await refused("cannot be used", source="none")
    shared = {"source": "mine", "lvm.vg.force_reuse": "true"}
    pool = storage.pool("p", "lvm", storage.fill("p", "lvm", shared))
    await storage.create(pool)
    await storage.start(pool)
    await storage.create_volume(pool, C1)
    lvm("lvcreate", "-y", "-Wn", "-n", "containers_other", "-V", "16M", "mine/LXDThinPool")
    assert await storage.volumes(pool) == [C1]
    lvm("lvremove", "-y", "mine/containers_other")
    await removed(storage, pool)
    assert lvm("lvs", "--noheadings", "-o", "lv_name", "mine").split() == ["precious"]
    lvm("vgremove", "-y", "-f", "mine")


async def test_a_file_that_is_lost(storage: StoragePools, prepared: Ground) -> None:
    pool = storage.pool("p", "lvm", storage.fill("p", "lvm", {"size": "1GiB"}))
    await storage.create(pool)
    await storage.start(pool)
    await storage.stop(pool)
    os.unlink(pool.config["source"])
    with pytest.raises(Failed, match=r"its file .*p\.img is missing: restore it"):
        await storage.start(pool)
    await storage.delete(pool)
    assert not pool.path.exists()
    assert prepared.left() == []


async def test_a_creation_that_was_cut_off(storage: StoragePools, prepared: Ground) -> None:
    unfinished = "lxpy.pool.unfinished"
    pool = storage.pool("p", "lvm", storage.fill("p", "lvm", {"size": "1GiB"}))
    await storage.create(pool)
    lvm("vgchange", "--addtag", unfinished, "p")  # as killed right before the end
    await storage.create(pool)
    await storage.delete(pool)
    pool = await started(storage, prepared, "p")
    lvm("vgchange", "--addtag", unfinished, "p")
    await storage.create(pool)
    await storage.start(pool)
    lvm("vgremove", "-y", "-f", "p")  # a deletion that was
    await storage.delete(pool)
    assert not pool.path.exists()
    assert prepared.left() == []


async def test_a_renaming_that_was_cut_off(storage: StoragePools, prepared: Ground) -> None:
    pool = await started(storage, prepared, "p")
    await made(storage, pool)
    for name in ("s0", "s1"):
        await storage.snapshot(pool, C1.at(name))
    lvm("lvrename", "p", "containers_c1-s0", "containers_c2-s0")
    await storage.rename(pool, C2, "c1")  # undone
    assert await storage.snapshots(pool, C1) == ["s0", "s1"]
    lvm("lvrename", "p", "containers_c1-s0", "containers_c2-s0")
    await storage.rename(pool, C1, "c2")  # or ended
    assert await storage.snapshots(pool, C2) == ["s0", "s1"]
    assert await storage.volumes(pool) == [C2]
    await removed(storage, pool)
    assert prepared.left() == []
