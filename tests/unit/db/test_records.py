"""What records are made of: all that belongs to an object, and a digest that tells each change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster
from sqlalchemy import text

from lxpy.db import instances, records
from lxpy.db.base import now
from lxpy.db.engine import Database
from lxpy.db.records import INSTANCES, VOLUMES, Key
from lxpy.db.rows import (
    InstanceRow,
    InstanceSnapshotRow,
    PoolRow,
    ProfileRow,
    VolumeRow,
    VolumeSnapshotRow,
)

C1 = Key(INSTANCES, project="default", name="c1")
V1 = Key(VOLUMES, "p", "default", "v1")


@pytest.fixture(autouse=True)
def blocking(blockbuster: BlockBuster) -> Iterator[None]:
    """Records are read in a thread; here they are not."""
    blockbuster.deactivate()
    yield
    blockbuster.activate()


async def fill(database: Database) -> None:
    async with database.write() as session:
        pool = PoolRow(name="p", driver="dir", config={"source": "/p"})
        profile = ProfileRow(project="default", name="default", devices={"root": {"pool": "p"}})
        instance = InstanceRow(
            project="default", name="c1", architecture="x86_64", created_at=now(),
            config={"user.a": "é"}, devices={}, profiles=[],
        )  # fmt: skip
        session.add_all((pool, profile, instance))
        await session.flush()
        await instances.assign(session, instance, "default", ["default"])
        volume = VolumeRow(
            pool_id=pool.id, project="default", name="v1", created_at=now(), config={}
        )
        session.add(volume)
        await session.flush()
        session.add(VolumeSnapshotRow(volume_id=volume.id, name="s", created_at=now(), config={}))
        session.add(
            InstanceSnapshotRow(
                instance_id=instance.id,
                name="s0",
                created_at=now(),
                config={},
                devices={},
                profiles=["default"],
                data={"frozen_ms": 1.5},
            )  # fmt: skip
        )


def digests(path: Path) -> dict[Key, str]:
    with records.opened(path) as connection:
        return records.digests(connection)


async def test_what_belongs_to_it(database: Database, path: Path) -> None:
    await fill(database)
    with records.opened(path) as connection:
        instance = records.instance(connection, C1)
        volume = records.volume(connection, V1)
        assert records.instance(connection, Key(INSTANCES, project="default", name="x")) is None
    assert instance is not None and volume is not None
    assert instance["container"]["config"] == {"user.a": "é"}
    assert instance["container"]["profiles"] == ["default"]
    assert instance["container"]["created_at"].endswith("Z")
    assert instance["profiles"][0]["devices"] == {"root": {"pool": "p"}}
    assert instance["snapshots"][0]["data"] == {"frozen_ms": 1.5}
    assert instance["snapshots"][0]["stateful"] is False
    assert volume["volume"]["pool"] == "p" and volume["volume_snapshots"][0]["name"] == "s"


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ("UPDATE instances SET config = '{}'", {C1}),
        ("UPDATE instance_snapshots SET expires_at = '2030-01-01 00:00:00'", {C1}),
        ("UPDATE instance_snapshots SET name = 'other'", {C1}),
        ("DELETE FROM instance_snapshots", {C1}),
        ("UPDATE profiles SET devices = '{}'", {C1, Key("profiles")}),
        ("UPDATE storage_volumes SET description = 'x'", {V1}),
        ("UPDATE volume_snapshots SET description = 'x'", {V1}),
        ("UPDATE storage_pools SET description = 'x'", {Key("storage_pools")}),
        ("INSERT INTO settings VALUES ('user.a', 'x')", {Key("settings")}),
        ("DELETE FROM instances", {C1}),
        ("SELECT 1", set()),
    ],
)
async def test_each_change_is_told(
    database: Database, path: Path, statement: str, changed: set[Key]
) -> None:
    await fill(database)
    before = digests(path)
    async with database.write() as session:
        await session.execute(text(statement))
    after = digests(path)
    keys = before.keys() | after.keys()
    assert {key for key in keys if before.get(key) != after.get(key)} == changed
