"""Brings the database to this version's schema when the daemon starts.

A SQLite file is copied before it is changed; all migrations run in one transaction, so that a
failure or a crash leaves the old schema; there is no downgrade. Alembic is imported only when
there is something to do: it costs a quarter of a second and 15 MiB.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, event

from lxpy.db import integrity
from lxpy.db.base import now
from lxpy.errors import Failed

_COPIES = 3


class NewerDatabase(Failed):
    """The database was written by a newer lxpy."""

    def __init__(self, path: Path, revision: str) -> None:
        super().__init__(
            f"Database {path} has schema revision {revision}, which this lxpy does not know: "
            "install the version that wrote it, or restore a copy from before its upgrade"
        )


def revisions() -> list[str]:
    """Return the known revisions in order; the files are called NNNN_what.py."""
    folder = resources.files("lxpy.migrations").joinpath("versions")
    names = sorted(each.name for each in folder.iterdir())
    return [name.split("_")[0] for name in names if name[:4].isdigit() and name.endswith(".py")]


def upgrade(path: Path) -> Path | None:
    """Upgrade the SQLite file at `path`, making it when absent; return the copy made before.

    Blocking: call it before the event loop serves. Only root can read the file and its copies, of
    which the last three are kept. Raises NewerDatabase; Failed when the file is no database, a
    migration fails or the disk is full: then the database is what it was.
    """
    known = revisions()
    current = _revision(path)
    if current == known[-1]:
        return None
    if current is not None and current not in known:
        raise NewerDatabase(path, current)
    copy = _copy(path, current) if current is not None else None
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _run_alembic(path)
    except Exception as error:
        if copy is not None:
            copy.unlink(missing_ok=True)
        cause = str(error).splitlines()[0] if str(error) else repr(error)
        raise Failed(
            f"Upgrading database {path} to {known[-1]} failed: {cause}; nothing was changed"
        ) from error
    _prune(path)
    return copy


def _revision(path: Path) -> str | None:
    if not path.exists() or path.stat().st_size == 0:
        return None
    try:
        with closing(sqlite3.connect(path)) as connection:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
            if "alembic_version" not in tables:
                if tables:
                    raise Failed(f"Database {path} is not one of lxpy's: move it away")
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise Failed(
            f"Database {path} cannot be read: {error}; restore it from a copy "
            f"({path.name}.before-*, database/dumps) or rebuild it: lxpy recover"
        ) from error
    return row[0] if row else None


def _copies(path: Path) -> list[Path]:
    """Return the copies made before upgrades, oldest first."""
    found = path.parent.glob(f"{path.name}.before-*")
    return sorted(found, key=lambda each: each.name.rpartition("-")[2])


def _copy(path: Path, revision: str) -> Path:
    target = path.with_name(f"{path.name}.before-{revision}-{now():%Y%m%d%H%M%S%f}")
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
        if said := integrity.problem(target):
            raise sqlite3.DatabaseError(f"the copy is not sound: {said}")
    except (OSError, sqlite3.Error) as error:
        target.unlink(missing_ok=True)
        raise Failed(
            f"Copying database {path} before its upgrade failed: {error}; free some space in "
            f"{path.parent}"
        ) from error
    return target


def _prune(path: Path) -> None:
    for old in _copies(path)[:-_COPIES]:
        old.unlink(missing_ok=True)


def _run_alembic(path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    engine = create_engine(URL.create("sqlite", database=str(path)))
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    try:
        with (
            resources.as_file(resources.files("lxpy.migrations")) as folder,
            engine.connect() as connection,
        ):
            config = Config()
            config.set_main_option("script_location", str(folder).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    # Python's module would commit before each DDL statement; with foreign keys on, rebuilding a
    # table (batch mode) would delete what refers to it. The pragma works outside of transactions.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = OFF")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
