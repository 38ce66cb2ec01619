"""Custom volumes and their snapshots as the API has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lxpy.api import storage as api
from lxpy.api.snapshots import NEVER
from lxpy.db.engine import Database
from lxpy.errors import (
    BadRequest,
    Conflict,
    LxpyError,
    NotFound,
    PreconditionFailed,
)
from lxpy.events.bus import Bus
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.model import Instance
from lxpy.operations.registry import Operation, Registry
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Intent, Journal
from lxpy.services.locks import Locks
from lxpy.services.projects.allowances import Allowances
from lxpy.services.projects.scopes import Scopes
from lxpy.services.snapshots.quiet import Pause
from lxpy.services.storage.copies import VolumeCopies
from lxpy.services.storage.disks import Disks
from lxpy.services.storage.files import VolumeFiles
from lxpy.services.storage.imports import VolumeImports
from lxpy.services.storage.places import Place, custom
from lxpy.services.storage.pools import Pools
from lxpy.services.storage.roots import RootVolumes
from lxpy.services.storage.schedule import VolumeSchedule
from lxpy.services.storage.snapshots import VolumeSnapshots
from lxpy.services.storage.users import VolumeUsers
from lxpy.services.storage.volumes import Volumes
from lxpy.threads import in_thread

V = custom("default", "v")


def anything(_: object) -> None:
    """Accept every version."""


def stale(_: object) -> None:
    raise PreconditionFailed("ETag doesn't match")


def nobody(instance: Instance) -> Pause:
    raise AssertionError(f"{instance.name} does not run")


@dataclass
class Parts:
    """What works on volumes, beside one database."""

    pools: Pools
    journal: Journal
    files: VolumeFiles
    volumes: Volumes
    snapshots: VolumeSnapshots
    copies: VolumeCopies
    imports: VolumeImports
    schedule: VolumeSchedule

    async def make(self, name: str, **config: str) -> None:
        await self.volumes.create("default", "default", api.VolumesPost(name=name, config=config))

    def tree(self, name: str) -> Path:
        """Where the files of a volume without a size are."""
        return self.pools._pools["default"].path / "custom" / name / "files"

    async def names(self) -> list[str]:
        return [each.name for each in await self.volumes.list("default", None, None)]

    async def snap(self, place: Place, name: str = "") -> None:
        wish = api.VolumeSnapshotsPost(name=name)
        await done(await self.snapshots.create(place, wish))

    async def copy(self, name: str, source: str, pool: str = "default", **wish: bool) -> None:
        from_pool = api.VolumeSource(type="copy", name=source, pool="default", **wish)
        body = api.VolumesPost(name=name, source=from_pool)
        await done(await self.copies.copy(pool, "default", body))


async def done(operation: Operation) -> None:
    """Wait for an operation to succeed."""
    await operation.wait()
    if operation.err:
        raise AssertionError(operation.err)


@pytest.fixture
async def parts(db: Database, tmp_path: Path) -> AsyncIterator[Parts]:
    bus = Bus()
    registry, lifecycle, locks, scopes = Registry(bus), Lifecycle(bus), Locks(), Scopes(db)
    store = InstanceStore(db, scopes)
    pools = Pools(db, tmp_path / "pools", store, locks, lifecycle)
    await pools.ensure_default("default")
    await pools.start()
    journal = Journal(db)
    files = VolumeFiles(db, pools, journal)
    disks = Disks(db, scopes, pools, locks, tmp_path / "mounts")
    users = VolumeUsers(scopes, pools, store, locks, nobody)
    allowances = Allowances(db, scopes, store)
    roots = RootVolumes(store, locks)
    volumes = Volumes(
        db=db, allowances=allowances, pools=pools, store=store, roots=roots, locks=locks,
        files=files, users=users, disks=disks, lifecycle=lifecycle,
    )  # fmt: skip
    snapshots = VolumeSnapshots(
        db=db, pools=pools, roots=roots, locks=locks, journal=journal, files=files, users=users,
        disks=disks, registry=registry, lifecycle=lifecycle,
    )  # fmt: skip
    copies = VolumeCopies(
        db=db, scopes=scopes, pools=pools, journal=journal, files=files,
        users=users, disks=disks, volumes=volumes, registry=registry, lifecycle=lifecycle,
    )  # fmt: skip
    imports = VolumeImports(
        pools=pools, locks=locks, files=files, volumes=volumes, registry=registry,
        lifecycle=lifecycle,
    )  # fmt: skip
    schedule = VolumeSchedule(db, locks, snapshots, registry)
    yield Parts(pools, journal, files, volumes, snapshots, copies, imports, schedule)
    await registry.close()
    assert await journal.unfinished() == []


async def test_made_changed_deleted(parts: Parts) -> None:
    await parts.pools.patch("default", api.PoolPatch(config={"volume.user.x": "1"}), anything)
    await parts.make("v", **{"user.y": "2"})
    with pytest.raises(Conflict, match='Volume by that name already exists: "v"'):
        await parts.make("v")
    found, _ = await parts.volumes.get(V)
    assert found.config == {"user.x": "1", "user.y": "2"} and found.content_type == "filesystem"
    with pytest.raises(PreconditionFailed):
        await parts.volumes.put(V, api.VolumePut(), stale)
    patch = api.VolumePatch(description="d", config={"user.x": ""})
    await parts.volumes.patch(V, patch, anything)
    await parts.volumes.rename(V, api.VolumePost(name="w"))
    assert [
        (each.name, each.config) for each in await parts.volumes.list("default", None, None)
    ] == [("w", {"user.y": "2"})]
    with pytest.raises(BadRequest, match=r"The storage pool is currently in use.*custom/w"):
        await parts.pools.delete("default")
    await parts.volumes.delete(custom("default", "w"))
    with pytest.raises(NotFound, match="Storage pool volume not found"):
        await parts.volumes.delete(custom("default", "w"))


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        (api.VolumesPost(name="../x"), BadRequest, "Invalid storage volume name"),
        (api.VolumesPost(name="v", content_type="tape"), BadRequest, 'type "tape": use one of'),
        (api.VolumesPost(name="v", content_type="iso"), BadRequest, "import a file"),
        (api.VolumesPost(name="v", type="container"), BadRequest, "change the instance"),
        (api.VolumesPost(name="v", type="bogus"), BadRequest, "Invalid storage volume type"),
        (api.VolumesPost(name="v", config={"size": "much"}), BadRequest, 'option "size"'),
        (
            api.VolumesPost(name="v", content_type="block", config={"security.shifted": "1"}),
            BadRequest,
            'a volume of content type "block" does not have it',
        ),
        (api.VolumesPost(name="v", config={"security.shared": "1"}), BadRequest, "not have it"),
    ],
)
async def test_what_is_refused(
    parts: Parts, wish: api.VolumesPost, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await parts.volumes.create("default", "default", wish)
    assert await parts.names() == []


async def test_a_block_volume_has_a_size_and_keeps_it(parts: Parts) -> None:
    await parts.volumes.create(
        "default", "default", api.VolumesPost(name="v", content_type="block")
    )
    assert (await parts.volumes.get(V))[0].config == {"size": "10GiB"}
    await parts.volumes.put(V, api.VolumePut(config={"size": "11GiB"}), anything)
    await parts.volumes.put(V, api.VolumePut(description="d"), anything)
    assert (await parts.volumes.get(V))[0].config == {"size": "11GiB"}
    assert (await parts.volumes.usage(V)).total == 11 << 30
    with pytest.raises(LxpyError, match="cannot shrink"):
        await parts.volumes.put(V, api.VolumePut(config={"size": "1GiB"}), anything)
    assert (await parts.volumes.get(V))[0].config == {"size": "11GiB"}


async def test_snapshots(parts: Parts) -> None:
    await parts.make("v", **{"snapshots.expiry": "1d"})
    file = parts.tree("v") / "file"
    await in_thread(file.write_text, "one")
    await parts.snap(V)
    await in_thread(file.write_text, "two")
    await parts.snap(V)
    assert await parts.names() == ["v", "v/snap0", "v/snap1"]
    first, second = await parts.snapshots.list(V)
    assert first.expires_at - first.created_at == timedelta(days=1)
    with pytest.raises(Conflict, match='Snapshot "snap0" already in use'):
        await parts.snap(V, "snap0")
    with pytest.raises(NotFound, match="Storage pool volume not found"):
        await parts.volumes.put(V, api.VolumePut(restore="no"), anything)
    await parts.volumes.put(V, api.VolumePut(restore="snap0"), anything)
    assert await in_thread(file.read_text) == "one"
    put = api.VolumeSnapshotPut(description="d", expires_at=NEVER)
    await parts.snapshots.put(V, "snap1", put, anything)
    await parts.snapshots.patch(V, "snap1", api.VolumeSnapshotPatch(description="e"), anything)
    await done(await parts.snapshots.rename(V, "snap1", api.VolumeSnapshotPost(name="kept")))
    shown, _ = await parts.snapshots.get(V, "kept")
    assert (shown.description, shown.expires_at) == ("e", NEVER)
    assert shown.created_at == second.created_at
    await done(await parts.snapshots.delete(V, "snap0"))
    await parts.volumes.put(V, api.VolumePut(restore="kept"), anything)
    assert await in_thread(file.read_text) == "two"
    await parts.volumes.rename(V, api.VolumePost(name="w"))
    assert await parts.names() == ["w", "w/kept"]
    await parts.volumes.delete(custom("default", "w"))
    assert await parts.names() == []


async def test_copies_take_snapshots_along(parts: Parts) -> None:
    await parts.pools.create(api.PoolsPost(name="other", driver="dir"))
    await parts.make("v", **{"user.x": "1"})
    file = parts.tree("v") / "file"
    await in_thread(file.write_text, "one")
    await parts.snap(V, "s")
    await in_thread(file.write_text, "two")
    await parts.copy("w", "v")
    await parts.copy("x", "v/s")
    await parts.copy("y", "v", volume_only=True)
    await parts.copy("z", "v", pool="other")
    assert await parts.names() == ["v", "v/s", "w", "w/s", "x", "y"]
    assert [each.name for each in await parts.volumes.list("other", None, None)] == ["z", "z/s"]
    assert await in_thread((parts.tree("x") / "file").read_text) == "one"
    assert await in_thread((parts.tree("w") / "file").read_text) == "two"
    await parts.volumes.put(custom("default", "w"), api.VolumePut(restore="s"), anything)
    assert await in_thread((parts.tree("w") / "file").read_text) == "one"
    with pytest.raises(Conflict):
        await parts.copy("w", "v")
    with pytest.raises(NotFound):
        await parts.copy("a", "v/none")


async def test_a_copy_is_refreshed(parts: Parts) -> None:
    await parts.make("v")
    file = parts.tree("v") / "file"
    for name in ("s", "t"):
        await in_thread(file.write_text, name)
        await parts.snap(V, name)
    await parts.copy("w", "v", refresh=True)
    await done(await parts.snapshots.delete(V, "s"))
    await in_thread(file.write_text, "u")
    await parts.snap(V, "u")
    await in_thread(file.write_text, "now")
    await parts.copy("w", "v", refresh=True)
    copied = custom("default", "w")
    assert [each.name for each in await parts.snapshots.list(copied)] == ["t", "u"]
    assert await in_thread((parts.tree("w") / "file").read_text) == "now"
    await parts.volumes.put(copied, api.VolumePut(restore="u"), anything)
    assert await in_thread((parts.tree("w") / "file").read_text) == "u"
    with pytest.raises(BadRequest, match="from another whole volume"):
        await parts.copy("w", "v/t", refresh=True)


async def test_a_volume_moves(parts: Parts) -> None:
    await parts.pools.create(api.PoolsPost(name="other", driver="dir"))
    await parts.make("v")
    await parts.snap(V, "s")
    await done(await parts.copies.move(V, api.VolumePost(name="w", pool="other")))
    assert await parts.names() == []
    assert [each.name for each in await parts.volumes.list("other", None, None)] == ["w", "w/s"]
    assert not await in_thread(parts.tree("v").parent.exists)
    with pytest.raises(NotFound, match="Project not found"):
        place = custom("other", "w")
        await parts.copies.move(place, api.VolumePost(name="w", pool="default", project="p"))


async def test_what_a_daemon_has_left(parts: Parts) -> None:
    """Intents of a daemon that was killed: the database tells what counts."""
    await parts.make("v")
    await in_thread((parts.tree("v") / "file").write_text, "text")
    await parts.snap(V, "s")
    pool = await parts.pools.pool("default")
    storage, handlers = parts.pools.storage, parts.files.handlers()
    known = (await parts.volumes.get(V))[0]
    record = await storage.volumes(pool)
    stray = record[0]

    async def settle(kind: str, name: str = "v", **data: object) -> None:
        await handlers[kind](Intent("", kind, "default", name, {"pool": "default", **data}))

    await storage.snapshot(pool, stray.at("left"))
    await settle("volume-snapshot", snapshots=["left", "s"])
    assert await storage.snapshots(pool, stray) == ["s"]
    await storage.rename(pool, stray.at("s"), "t")
    await settle("volume-snapshot-rename", snapshot="s", to="t")
    assert await storage.snapshots(pool, stray) == ["s"]
    await storage.rename(pool, stray, "w")
    await settle("volume-rename", to="w")
    assert await in_thread((parts.tree("v") / "file").read_text) == "text"
    await settle("volume-rename", to="w")
    await settle("volume-orphan", content="filesystem")
    assert (await parts.volumes.get(V))[0] == known
    await in_thread((parts.tree("v") / "file").write_text, "other")
    await settle("volume-restore", snapshot="s")
    assert await in_thread((parts.tree("v") / "file").read_text) == "text"
    await parts.journal.begin("volume-resize", "default", "v", pool="default")
    await parts.files.settle_sizes()
    await settle("volume-snapshot-delete", snapshot="s")
    assert await parts.names() == ["v"]
    await settle("volume-delete")
    assert await parts.names() == [] and await storage.volumes(pool) == []
    await settle("volume-delete")


async def test_an_iso_image(parts: Parts) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a" * 3000
        yield b"b" * 1096

    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await parts.imports.iso("default", "default", "v", broken(), None)
    assert await parts.names() == []
    await done(await parts.imports.iso("default", "default", "v", chunks(), 4096))
    found, _ = await parts.volumes.get(V)
    assert (found.content_type, found.config) == ("iso", {"size": "4096"})
    with pytest.raises(BadRequest, match="that of its file"):
        await parts.volumes.put(V, api.VolumePut(config={"size": "8192"}), anything)
    await parts.copy("w", "v")
    assert (await parts.volumes.get(custom("default", "w")))[0].config == {"size": "4096"}


async def test_a_schedule(parts: Parts) -> None:
    await parts.make("v", **{"snapshots.schedule": "* * * * *", "snapshots.keep": "2"})
    await parts.snap(V, "mine")
    begin = datetime.now().astimezone()
    for minute in range(1, 6):
        await parts.schedule.minutely(begin + timedelta(minutes=minute))
    names = [each.name for each in await parts.snapshots.list(V)]
    assert len(names) == 3 and names[0] == "mine"
    put = api.VolumeSnapshotPut(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await parts.snapshots.put(V, "mine", put, anything)
    await parts.volumes.put(V, api.VolumePut(), anything)
    await parts.schedule.minutely(begin + timedelta(minutes=7))
    assert [each.name for each in await parts.snapshots.list(V)] == names[1:]
