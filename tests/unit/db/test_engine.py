"""Transactions: whole or not at all; what goes wrong is said in words that help."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.exc import IntegrityError

from lxpy.db import instances, intents, settings
from lxpy.db.base import now
from lxpy.db.engine import Database, DatabaseUnavailable
from lxpy.db.rows import (
    ImageAliasRow,
    ImageRow,
    InstanceProfileRow,
    InstanceRow,
    PoolRow,
    ProfileRow,
    SettingRow,
    VolumeRow,
)
from lxpy.errors import BadRequest


def an_instance(name: str = "c1") -> InstanceRow:
    return InstanceRow(
        project="default", name=name, architecture="x86_64", created_at=now(), config={}, devices={}
    )


def an_image() -> ImageRow:
    return ImageRow(
        project="default", fingerprint="f" * 64, filename="f", size_bytes=1 << 40,
        architecture="x86_64", uploaded_at=now(),
    )  # fmt: skip


async def test_pragmas(database: Database) -> None:
    async with database.read() as session:
        for pragma, value in {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2}.items():
            assert (await session.execute(text(f"PRAGMA {pragma}"))).scalar_one() == value


async def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(BadRequest):
        async with database.write() as session:
            session.add(SettingRow(key="user.a", value="1"))
            await session.flush()
            raise BadRequest("no")
    async with database.read() as session:
        assert await settings.load(session) == {}


async def test_a_cancelled_block_leaves_nothing(database: Database) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with database.write() as session:
            session.add(SettingRow(key="user.a", value="1"))
            await session.flush()
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with database.write() as session:
        assert await settings.load(session) == {}
        await settings.replace(session, {"user.b": "2"})
    async with database.read() as session:
        assert await settings.load(session) == {"user.b": "2"}


async def test_a_full_disk_changes_nothing_and_is_told(database: Database) -> None:
    async with database.write() as session:
        await settings.replace(session, {"user.a": "old"})
    async with database.engine.connect() as connection:
        pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
    with pytest.raises(DatabaseUnavailable, match=r"lxpy\.db failed: .*full.*free some space"):
        async with database.write() as session:
            await session.execute(text(f"PRAGMA max_page_count = {pages}"))
            big = {f"user.{number}": "x" * 4000 for number in range(50)}
            await settings.replace(session, {"user.a": "new", **big})
    async with database.write() as session:
        await session.execute(text("PRAGMA max_page_count = 100000"))
        assert await settings.load(session) == {"user.a": "old"}
        await settings.replace(session, {"user.a": "new"})
    async with database.read() as session:
        assert await settings.load(session) == {"user.a": "new"}


async def test_a_damaged_database_is_told(database: Database, path: Path) -> None:
    async with database.write() as session:
        await settings.replace(session, {f"user.{n}": "x" * 500 for n in range(200)})
    async with database.engine.connect() as connection:
        await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    await database.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(DatabaseUnavailable, match="malformed"):
        async with database.read() as session:
            await settings.load(session)


async def test_writers_take_turns(database: Database) -> None:
    async def add(number: int) -> None:
        async with database.write() as session:
            session.add(SettingRow(key=f"user.{number}", value="x"))

    await asyncio.gather(*(add(number) for number in range(40)))
    async with database.read() as session:
        assert len(await settings.load(session)) == 40


async def test_a_broken_rule_is_no_outage(database: Database) -> None:
    async with database.write() as session:
        session.add(an_instance())
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            session.add(an_instance())


async def test_times_come_back_aware(database: Database) -> None:
    there = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    async with database.write() as session:
        row = an_instance()
        row.created_at = there
        session.add(row)
    async with database.read() as session:
        found = await instances.find(session, "default", "c1")
    assert found is not None and found.created_at == there
    assert found.created_at.tzinfo is UTC and found.last_used_at is None


async def test_profiles_of_an_instance(database: Database) -> None:
    async with database.write() as session:
        session.add_all(ProfileRow(project="default", name=each) for each in ("a", "b", "c"))
        session.add(row := an_instance())
        await session.flush()
        await instances.assign(session, row, "default", ["b", "a"])
    async with database.write() as session:
        row = await instances.find(session, "default", "c1")
        assert row is not None
        assert [each.profile.name for each in row.profiles] == ["b", "a"]
        await instances.assign(session, row, "default", ["a", "c", "b"])
    async with database.write() as session:
        row = await instances.find(session, "default", "c1")
        assert row is not None
        assert [each.profile.name for each in row.profiles] == ["a", "c", "b"]
        with pytest.raises(LookupError, match="nope"):
            await instances.assign(session, row, "default", ["a", "nope"])
    async with database.read() as session:
        row = await instances.find(session, "default", "c1")
    assert row is not None and len(row.profiles) == 3


async def test_a_profile_in_use_cannot_go_but_its_user_can(database: Database) -> None:
    async with database.write() as session:
        session.add(ProfileRow(project="default", name="a"))
        session.add(row := an_instance())
        await session.flush()
        await instances.assign(session, row, "default", ["a"])
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            await session.execute(delete(ProfileRow))
    async with database.write() as session:
        await session.execute(delete(InstanceRow))
    async with database.read() as session:
        assert (await session.execute(select(InstanceProfileRow))).first() is None


async def test_aliases_go_with_their_image(database: Database) -> None:
    async with database.write() as session:
        image = an_image()
        image.aliases = [ImageAliasRow(project="default", name="some/alias")]
        session.add(image)
    async with database.write() as session:
        found = (await session.execute(select(ImageRow))).scalar_one()
        assert found.aliases[0].name == "some/alias" and found.size_bytes == 1 << 40
        await session.delete(found)
    async with database.read() as session:
        assert (await session.execute(select(ImageAliasRow))).first() is None


async def test_a_pool_with_volumes_cannot_go(database: Database) -> None:
    async with database.write() as session:
        session.add(pool := PoolRow(name="p", driver="dir", config={}))
        await session.flush()
        session.add(VolumeRow(pool_id=pool.id, project="default", name="v", created_at=now()))
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            await session.execute(delete(PoolRow))


async def test_intents(database: Database) -> None:
    async with database.write() as session:
        first = intents.add(session, "create", "default", "c1", step=1)
        intents.add(session, "delete", "default", "c2")
    async with database.write() as session:
        found = await intents.unfinished(session)
        assert [(each.kind, each.name) for each in found] == [("create", "c1"), ("delete", "c2")]
        assert found[0].data == {"step": 1}
        await intents.end(session, first)
    async with database.read() as session:
        assert [each.name for each in await intents.unfinished(session)] == ["c2"]
