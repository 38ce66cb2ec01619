"""A damaged database is found, read as far as it goes, and replaced without losing anything."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from lxpy.db import integrity, safety, settings
from lxpy.db.dumps import Dumps
from lxpy.db.engine import Database, DatabaseReadOnly
from lxpy.db.safety import Condition, Safety, State
from lxpy.db.upgrade import upgrade
from lxpy.errors import Failed


@pytest.fixture(autouse=True)
def blocking(blockbuster: BlockBuster) -> Iterator[None]:
    """These functions block on purpose; the daemon has them in threads."""
    blockbuster.deactivate()
    yield
    blockbuster.activate()


class Clock:
    """A time that passes when told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def made(path: Path) -> Path:
    """A database of some size."""
    upgrade(path)
    write(path, **{f"user.{number}": "x" * 3000 for number in range(100)})
    return path


@pytest.fixture
def care(path: Path, tmp_path: Path) -> Safety:
    return Safety(path, tmp_path / "database", lambda: "")


def write(path: Path, **values: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        statement = "INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)"
        connection.executemany(statement, values.items())
        connection.commit()


def read(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT key, value FROM settings"))


def damage(path: Path) -> None:
    """Overwrite pages in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(64 << 10))


def test_sound(made: Path, care: Safety) -> None:
    assert integrity.problem(made) == ""
    assert care.examine() == Condition()


def test_a_journal_left_by_a_crash_is_no_damage(made: Path, care: Safety, tmp_path: Path) -> None:
    with closing(sqlite3.connect(made)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO settings (key, value) VALUES ('user.late', '1')")
        connection.commit()
        crashed = tmp_path / "crashed" / "lxpy.db"
        crashed.parent.mkdir()
        for suffix in ("", "-wal"):
            crashed.with_name(f"lxpy.db{suffix}").write_bytes(
                made.with_name(f"lxpy.db{suffix}").read_bytes()
            )
    assert Safety(crashed, tmp_path / "other", lambda: "").examine() == Condition()
    assert read(crashed)["user.late"] == "1"


def test_no_database(care: Safety, path: Path, tmp_path: Path) -> None:
    assert care.examine() == Condition()
    lost = Safety(path, tmp_path / "database", lambda: "there are 3 instances")
    assert lost.examine() == Condition(State.LOST, "there are 3 instances")
    upgrade(path)  # the next start finds a database, an empty one
    assert lost.examine().state is State.LOST
    lost.recovered()
    assert lost.examine() == Condition()


def test_a_lost_database_is_its_copy_again(made: Path, tmp_path: Path) -> None:
    care = Safety(made, tmp_path / "database", lambda: "there are 3 instances")
    dump = care.dumps.make()
    made.unlink()
    assert care.examine().state is State.LOST
    upgrade(made)  # what the daemon runs on meanwhile
    assert care.restore() == safety.Replacement(dump.path, dump.made_at)
    assert len(read(made)) == 100 and care.examine().state is State.RESTORED


def test_damage_without_a_copy(made: Path, care: Safety) -> None:
    damage(made)
    found = care.examine()
    assert found.state is State.DAMAGED and found.read is None
    assert "there is no sound copy of it" in found.cause
    assert care.restore() == safety.Replacement(None, None)
    assert not made.exists() and list(made.parent.glob("lxpy.db.damaged-*"))


@pytest.mark.parametrize("clean", [True, False])
def test_damage_with_a_copy(made: Path, care: Safety, *, clean: bool) -> None:
    with closing(sqlite3.connect(made)) as connection:
        connection.execute(
            "INSERT INTO intents VALUES ('i', 'create', 'default', 'c1', '{}', '2026-01-01')"
        )
        connection.commit()
    dump = care.dumps.make()
    write(made, **{"user.new": "1"})
    if clean:
        care.closed()
    damage(made)
    found = care.examine()
    assert (found.state, found.read) == (State.DAMAGED, dump.path)
    assert care.restore() == safety.Replacement(dump.path, dump.made_at)
    restored = read(made)
    assert len(restored) == 100 and "user.new" not in restored
    with closing(sqlite3.connect(made)) as connection:
        # To undo what has been finished since would delete it.
        assert not connection.execute("SELECT * FROM intents").fetchall()
    assert made.stat().st_mode & 0o777 == 0o600
    assert care.examine().state is State.RESTORED
    care.recovered()
    assert care.examine() == Condition()


def test_a_damaged_index_loses_nothing(made: Path, care: Safety) -> None:
    with closing(sqlite3.connect(made)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_settings_1'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    care.dumps.make()
    write(made, **{"user.new": "1"})
    with made.open("r+b") as file:
        file.seek((root - 1) * size + 100)
        file.write(b"\0" * 1000)
    found = care.examine()
    assert (found.state, found.read) == (State.DAMAGED, made)
    assert care.restore() == safety.Replacement(made, None)
    assert len(read(made)) == 101 and care.examine() == Condition()


def test_a_damaged_copy_is_passed_over(made: Path, tmp_path: Path) -> None:
    clock = Clock()
    dumps = Dumps(made, tmp_path / "dumps", clock=clock)
    first = dumps.make()
    clock.now += timedelta(hours=2)
    damage(dumps.make().path)
    assert [each.path for each in dumps.sound()] == [first.path]


def test_a_copy_of_a_damaged_database_is_none(made: Path, tmp_path: Path) -> None:
    dumps = Dumps(made, tmp_path / "dumps")
    damage(made)
    with pytest.raises(Failed, match="docs/recovery.md"):
        dumps.make()
    assert list((tmp_path / "dumps").iterdir()) == []


def test_when_a_copy_is_due(made: Path, tmp_path: Path) -> None:
    clock = Clock()
    dumps = Dumps(made, tmp_path / "dumps", clock=clock)
    assert dumps.due()
    clock.now = datetime.now(UTC) + timedelta(minutes=1)
    dumps.make()
    assert not dumps.due()
    clock.now += timedelta(hours=2)
    assert not dumps.due()  # nothing was written
    changed = clock.now.timestamp()
    os.utime(made, (changed, changed))
    assert dumps.due()


def test_rotation(made: Path, tmp_path: Path) -> None:
    clock = Clock()
    dumps = Dumps(made, tmp_path / "dumps", clock=clock)
    begin = clock.now
    name = "lxpy-{:%Y%m%dT%H%M%SZ}.db"
    dumps.make()
    for hour in range(1, 24 * 10):
        (tmp_path / "dumps" / name.format(begin + timedelta(hours=hour))).write_bytes(b"x")
    clock.now = begin + timedelta(days=10)
    dumps.make()
    made_at = [each.made_at for each in dumps.listed()]
    assert made_at[:24] == [clock.now - timedelta(hours=number) for number in range(24)]
    days = {each.date() for each in made_at}
    assert len(days) == 7 and len(made_at) <= 24 + 6
    assert all(each.hour == 23 for each in made_at[24:])


async def test_only_reading(made: Path, care: Safety) -> None:
    dump = care.dumps.make()
    database = Database(f"sqlite+aiosqlite:///{made}")
    database.read_instead(dump.path, "it is damaged: repair it")
    async with database.read() as session:
        assert len(await settings.load(session)) == 100
    with pytest.raises(DatabaseReadOnly, match="repair it"):
        async with database.write():
            raise AssertionError("not reached")
    await database.close()
    assert [each.name for each in dump.path.parent.iterdir()] == [dump.path.name]


async def test_what_a_transaction_changed_is_told(database: Database) -> None:
    heard: list[frozenset[str]] = []
    database.on_commit = heard.append
    async with database.write() as session:
        await settings.replace(session, {"user.a": "1"})
    async with database.write():
        pass
    assert heard == [frozenset(("settings",)), frozenset()]
