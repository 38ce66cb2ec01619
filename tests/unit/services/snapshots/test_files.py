"""A snapshot's row and files: both, or neither, whatever fails; and what memory shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from lxpy.db.engine import Database
from lxpy.errors import Conflict, Failed
from lxpy.instances.model import Instance, Snapshot, snapshot_of
from lxpy.runtime.container import Runtime
from lxpy.services.directories import Directories
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Journal
from lxpy.services.memory.checkpoints import Checkpoints
from lxpy.services.memory.criu import Criu
from lxpy.services.projects.scopes import Scopes
from lxpy.services.snapshots.files import SnapshotFiles
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ROOT = {"root": {"type": "disk", "path": "/", "pool": "p"}}


class Disk:
    """What lies on a pool: the part of `Pools` and `StoragePools` that snapshots need."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.used: set[str] = set()
        self.fails = False
        self.storage = self

    async def pool(self, name: str) -> Pool:
        return Pool(name, "dir", {"source": "/nowhere"})

    def _check(self) -> None:
        if self.fails:
            raise Failed("the disk is full")

    async def make(self, volume: Volume) -> None:
        self._check()
        if volume.label in self.names:
            raise Conflict(f"{volume.label} exists")
        self.names.add(volume.label)

    async def rename(self, _: Pool, volume: Volume, name: str) -> None:
        self._check()
        self.names.remove(volume.label)
        self.names.add(volume.at(name).label)

    async def delete_volume(self, _: Pool, volume: Volume) -> None:
        self._check()
        self.names.discard(volume.label)

    async def snapshots(self, _: Pool, volume: Volume) -> list[str]:
        return [name.partition("/")[2] for name in self.names if name.startswith(f"{volume.name}/")]

    async def is_free(self, _: Pool, volume: Volume) -> bool:
        return volume.label not in self.used


class Here:
    """A store, a disk and what works on both."""

    def __init__(self, db: Database, states: Path) -> None:
        self.db = db
        self.states = states
        self.disk = Disk()
        self.store = InstanceStore(db, Scopes(db))
        self.journal = Journal(db)
        checkpoints = Checkpoints(Directories(states), cast(Runtime, None), cast(Criu, None))
        self.files = SnapshotFiles(self.store, self.journal, cast(Pools, self.disk), checkpoints)

    async def instance(self, name: str = "c1") -> Instance:
        return await self.store.add(
            Instance(0, "default", name, "x86_64", {"user.k": "v"}, ROOT, {"user.k": "v"}, ROOT,
                     (), NOW)
        )  # fmt: skip

    async def add(self, instance: Instance, name: str, age: int = 0) -> Snapshot:
        async def make(_: Pool, volume: Volume) -> Snapshot:
            await self.disk.make(volume)
            return snapshot_of(instance, name, NOW - timedelta(days=age))

        return await self.files.add(instance, name, make, paused="")

    def names(self, instance: Instance) -> list[str]:
        return [each.name for each in self.store.snapshots.of(instance.id)]

    async def restarted(self) -> Here:
        """The same database and disk, in the hands of the next daemon."""
        other = Here(self.db, self.states)
        other.disk.names = set(self.disk.names)
        await other.store.load()
        for intent in await other.journal.unfinished():
            await other.files.handlers()[intent.kind](intent)
            await other.journal.end(intent.id)
        return other


@pytest.fixture
def here(db: Database, tmp_path: Path) -> Here:
    return Here(db, tmp_path / "states")


async def test_a_life(here: Here) -> None:
    instance = await here.instance()
    await here.add(instance, "s1", age=1)
    await here.add(instance, "s0", age=2)
    assert here.names(instance) == ["s0", "s1"], "by age"
    with pytest.raises(Conflict):
        await here.add(instance, "s1")
    assert here.disk.names == {"c1/s0", "c1/s1"}
    found = here.store.snapshots.find(instance.id, "s0")
    assert found is not None
    await here.files.rename(instance, found, "s9")
    assert here.disk.names == {"c1/s9", "c1/s1"}
    await here.store.snapshots.set_expiry(
        cast(Snapshot, here.store.snapshots.find(instance.id, "s9")), NOW
    )
    assert [each.name for each in here.store.snapshots.expired(NOW)] == ["s9"]
    again = await here.restarted()
    assert again.names(instance) == ["s9", "s1"]
    assert not await again.journal.unfinished()


@pytest.mark.parametrize("step", ["add", "rename", "remove"])
async def test_a_disk_that_fails(here: Here, step: str) -> None:
    instance = await here.instance()
    snapshot = await here.add(instance, "s1")
    here.disk.fails = True
    steps: dict[str, Callable[[], Awaitable[Any]]] = {
        "add": lambda: here.add(instance, "s2"),
        "rename": lambda: here.files.rename(instance, snapshot, "s2"),
        "remove": lambda: here.files.remove(instance, snapshot),
    }
    with pytest.raises(Failed, match="the disk is full"):
        await steps[step]()
    assert here.names(instance) == ["s1"] and here.disk.names == {"c1/s1"}
    assert not await here.journal.unfinished()


async def test_one_that_is_in_use_stays(here: Here) -> None:
    instance = await here.instance()
    snapshot = await here.add(instance, "s1")
    here.disk.used.add("c1/s1")
    with pytest.raises(Conflict, match='"c1/s1" is in use'):
        await here.files.remove(instance, snapshot)
    with pytest.raises(Conflict, match='"c1/s1" is in use'):
        await here.files.rename(instance, snapshot, "s2")


@pytest.mark.parametrize(
    ("kind", "on_disk", "rows", "left"),
    [
        ("snapshot", {"c1/s2"}, ["s1"], {"c1/s1"}),
        ("snapshot", set(), ["s1"], {"c1/s1"}),
        ("snapshot-delete", {"c1/s2"}, ["s1", "s2"], {"c1/s1"}),
        ("snapshot-delete", set(), ["s1", "s2"], {"c1/s1"}),
        ("snapshot-rename", {"c1/s3"}, ["s1", "s2"], {"c1/s1", "c1/s2"}),
        ("snapshot-rename", {"c1/s2"}, ["s1", "s2"], {"c1/s1", "c1/s2"}),
        ("snapshot-rename", {"c1/s2"}, ["s1", "s3"], {"c1/s1", "c1/s3"}),
    ],
)
async def test_a_daemon_that_was_killed(
    here: Here, kind: str, on_disk: set[str], rows: list[str], left: set[str]
) -> None:
    instance = await here.instance()
    for name in rows:
        await here.add(instance, name)
    await here.journal.begin(kind, "default", "c1", pool="p", snapshot="s2", to="s3", paused="")
    here.disk.names = {"c1/s1", *on_disk}
    again = await here.restarted()
    assert again.disk.names == left
    assert {f"c1/{name}" for name in again.names(instance)} == left
    assert not await again.journal.unfinished()


async def test_instances_and_their_snapshots(here: Here) -> None:
    first = await here.instance()
    await here.add(first, "s1")
    copied = replace(here.store.snapshots.of(first.id)[0], scheduled=True, frozen_ms=1.5)
    second = await here.store.add(replace(first, id=0, name="c2"), snapshots=[copied])
    assert here.names(second) == ["s1"]
    await here.store.remove(first, intent={})
    assert here.names(first) == []
    again = Here(here.db, here.states)
    await again.store.load()
    assert again.names(second) == ["s1"] and again.names(first) == []
    (found,) = again.store.snapshots.of(second.id)
    assert (found.scheduled, found.frozen_ms, found.created_at) == (True, 1.5, NOW)
    assert found.expanded_devices == ROOT and found.expanded_config == {"user.k": "v"}


async def test_what_is_alike_is_shared(here: Here) -> None:
    instance = await here.instance()
    for number in range(3):
        await here.add(instance, f"s{number}", age=number)
    again = Here(here.db, here.states)
    await again.store.load()
    for store in (here.store, again.store):
        one, two, three = store.snapshots.of(instance.id)
        assert one.config is two.config is three.config
        assert one.inherited_devices is three.inherited_devices
