"""Pools as the API has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxpy.api import storage as api
from lxpy.db.engine import Database
from lxpy.errors import (
    BadRequest,
    Conflict,
    Failed,
    InvalidConfig,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from lxpy.events.bus import Bus
from lxpy.events.lifecycle import Lifecycle
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Journal
from lxpy.services.locks import Locks
from lxpy.services.projects.scopes import Scopes
from lxpy.services.storage.pools import Pools
from lxpy.threads import in_thread


def anything(_: object) -> None:
    """Accept every version."""


def stale(_: object) -> None:
    raise PreconditionFailed("ETag doesn't match")


def of(db: Database, directory: Path) -> Pools:
    return Pools(db, directory / "pools", InstanceStore(db, Scopes(db)), Locks(), Lifecycle(Bus()))


@pytest.fixture
async def pools(db: Database, tmp_path: Path) -> Pools:
    made = of(db, tmp_path)
    await made.ensure_default("default")
    await made.start()
    return made


async def test_the_first_start_makes_a_pool(pools: Pools, tmp_path: Path) -> None:
    (found,) = await pools.list()
    assert (found.name, found.driver, found.status) == ("default", "dir", "Created")
    assert found.config == {"source": str(tmp_path / "pools/default")}
    await pools.ensure_default("other")
    assert [each.name for each in await pools.list()] == ["default"]
    assert pools.drivers_in_use() == {"dir"}


async def test_create_and_delete(db: Database, pools: Pools, tmp_path: Path) -> None:
    await pools.create(api.PoolsPost(name="p", driver="dir", description="x"))
    with pytest.raises(Conflict, match="The storage pool already exists: p"):
        await pools.create(api.PoolsPost(name="p", driver="dir"))
    again = of(db, tmp_path)
    await again.start()
    assert (await again.get("p"))[0].description == "x"
    await pools.delete("p")
    with pytest.raises(NotFound, match="Storage pool not found"):
        await pools.pool("p")
    assert not await in_thread((tmp_path / "pools/p").exists)


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        (api.PoolsPost(name="", driver="dir"), BadRequest, "Invalid storage pool name"),
        (api.PoolsPost(name="a/b", driver="dir"), BadRequest, "Invalid storage pool name"),
        (api.PoolsPost(name="p", driver="bogus"), Failed, 'Unknown driver "bogus"'),
        (
            api.PoolsPost(name="p", driver="dir", config={"k": "v"}),
            InvalidConfig,
            'Invalid option "k"',
        ),
        (
            api.PoolsPost(name="p", driver="dir", config={"source": "/"}),
            BadRequest,
            'in use by storage pool "default"',
        ),
    ],
)
async def test_what_is_refused(
    pools: Pools, wish: api.PoolsPost, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await pools.create(wish)
    assert [each.name for each in await pools.list()] == ["default"]


async def test_change(pools: Pools) -> None:
    await pools.put("default", api.PoolPut(config={"user.a": "1"}, description="x"), anything)
    await pools.patch("default", api.PoolPatch(config={"user.b": "2"}), anything)
    found, _ = await pools.get("default")
    assert found.description == "x"
    assert {key for key in found.config if key != "source"} == {"user.a", "user.b"}
    with pytest.raises(BadRequest, match='"source" of storage pool "default" cannot be changed'):
        await pools.patch("default", api.PoolPatch(config={"source": "/x"}), anything)
    with pytest.raises(PreconditionFailed):
        await pools.put("default", api.PoolPut(), stale)
    assert (await pools.get("default"))[0] == found


async def test_a_root_disk_with_a_bad_size_is_refused(pools: Pools) -> None:
    pool = await pools.pool("default")
    pools.check_root(pool, {"type": "disk", "path": "/", "pool": "default"})
    with pytest.raises(InvalidConfig, match='Invalid value for option "size"'):
        pools.check_root(pool, {"type": "disk", "path": "/", "size": "much"})


async def test_a_pool_that_is_gone_comes_back(db: Database, pools: Pools, tmp_path: Path) -> None:
    await pools.create(api.PoolsPost(name="p", driver="dir"))
    path, away = tmp_path / "pools/p", tmp_path / "away"
    await in_thread(path.rename, away)
    again = of(db, tmp_path)
    await again.start()
    assert (await again.get("p"))[0].status == "Unavailable"
    assert (await again.get("default"))[0].status == "Created"
    with pytest.raises(Unavailable, match="mount or restore it"):
        await again.pool("p")
    await in_thread(away.rename, path)
    assert (await again.pool("p")).path == path
    assert (await again.get("p"))[0].status == "Created"


async def settled(db: Database, directory: Path) -> Pools:
    """Start anew, as a daemon does after a crash."""
    pools = of(db, directory)
    await pools.start()
    journal = Journal(db)
    for intent in await journal.unfinished():
        await pools.handlers()[intent.kind](intent)
        await journal.end(intent.id)
    return pools


async def test_a_creation_that_was_cut_off_is_undone(
    db: Database, pools: Pools, tmp_path: Path
) -> None:
    half, foreign = tmp_path / "pools/p", tmp_path / "foreign"
    await in_thread(lambda: (half / "layers").mkdir(parents=True))
    await in_thread(lambda: (foreign / "images/mine").mkdir(parents=True))
    for name, source in (("p", half), ("q", foreign)):
        config = {"source": str(source), "volatile.initial_source": str(source)}
        if name == "p":
            del config["volatile.initial_source"]
        data = {"driver": "dir", "config": config}
        await Journal(db).begin("pool-create", "default", name, **data)
    assert (await settled(db, tmp_path)).names() == {"default"}
    assert not await in_thread(half.exists)
    assert await in_thread((foreign / "images/mine").exists)  # somebody else's


async def test_a_deletion_that_was_cut_off_is_finished(
    db: Database, pools: Pools, tmp_path: Path
) -> None:
    for name in ("p", "used"):
        await pools.create(api.PoolsPost(name=name, driver="dir"))
        await Journal(db).begin("pool-delete", "default", name)
    await in_thread((tmp_path / "pools/p/custom").rmdir)
    await in_thread(lambda: (tmp_path / "pools/used/custom/v").mkdir())
    assert (await settled(db, tmp_path)).names() == {"default", "used"}
    assert not await in_thread((tmp_path / "pools/p").exists)
    assert await in_thread((tmp_path / "pools/used/custom/v").exists)
    assert not await Journal(db).unfinished()
