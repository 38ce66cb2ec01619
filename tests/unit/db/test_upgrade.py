"""The schema at start-up: made, upgraded, refused, and never half done."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from lxpy.db import rows  # noqa: F401
from lxpy.db import upgrade as module
from lxpy.db.base import Base
from lxpy.db.upgrade import NewerDatabase, revisions, upgrade
from lxpy.errors import Failed

_BROKEN = '''
"""Fails half way."""
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade():
    op.create_table("half", sa.Column("id", sa.Integer(), nullable=False))
    op.execute("INSERT INTO half VALUES (1)")
    op.execute("SELECT * FROM no_such_table")
'''

_REBUILD = '''
"""Rebuilds a table that others refer to."""
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade():
    with op.batch_alter_table("images", recreate="always") as batch:
        batch.add_column(sa.Column("extra", sa.Text(), nullable=False, server_default="x"))
'''


def ask(path: Path, statement: str, *parameters: Any) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(statement, parameters).fetchall()
        connection.commit()
    return found


def tables(path: Path) -> set[str]:
    return {row[0] for row in ask(path, "SELECT name FROM sqlite_master")}


@pytest.fixture
def more_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a copy of the migrations, with one more, in place of ours."""

    def put(text: str) -> None:
        folder = tmp_path / "resources" / "migrations"
        shutil.copytree(str(resources.files("lxpy.migrations")), folder)
        head = revisions()[-1]
        (folder / "versions" / "9999_more.py").write_text(text.replace("{head}", head))

        class Resources:
            files = staticmethod(lambda _: folder)
            as_file = staticmethod(resources.as_file)

        monkeypatch.setattr(module, "resources", Resources)

    return put


def test_models_equal_migrations(path: Path) -> None:
    assert upgrade(path) is None
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_new_database_is_private_and_has_the_default_project(path: Path) -> None:
    upgrade(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ask(path, "SELECT name FROM projects") == [("default",)]


def test_a_second_time_nothing_happens(path: Path) -> None:
    upgrade(path)
    before = path.stat()
    assert upgrade(path) is None
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_the_database_is_copied_before(path: Path, more_migrations: Any) -> None:
    upgrade(path)
    ask(path, "INSERT INTO settings VALUES ('user.a', 'b')")
    more_migrations(_REBUILD)
    copy = upgrade(path)
    assert copy is not None and stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert ask(copy, "SELECT version_num FROM alembic_version") == [(revisions()[-2],)]
    assert ask(copy, "SELECT value FROM settings") == ask(path, "SELECT value FROM settings")


def test_rebuilding_a_table_keeps_what_refers_to_it(path: Path, more_migrations: Any) -> None:
    upgrade(path)
    ask(
        path,
        "INSERT INTO images VALUES (1, 'default', 'f', 'f', 1, 'x86_64', 'container', 0, 0, 0, "
        "NULL, NULL, '2026-01-01 00:00:00', NULL, '{}', '[]', '{}')",
    )
    ask(path, "INSERT INTO image_aliases VALUES (1, 'default', 'a', '', 1)")
    more_migrations(_REBUILD)
    upgrade(path)
    assert ask(path, "SELECT extra FROM images") == [("x",)]
    assert ask(path, "SELECT name FROM image_aliases") == [("a",)]


def test_a_migration_that_fails_changes_nothing(path: Path, more_migrations: Any) -> None:
    upgrade(path)
    more_migrations(_BROKEN)
    for _ in range(2):
        with pytest.raises(Failed, match="no_such_table.*nothing was changed"):
            upgrade(path)
        assert "half" not in tables(path)
        assert ask(path, "SELECT version_num FROM alembic_version") == [(revisions()[-2],)]
    assert [each.name for each in path.parent.glob("lxpy.db.*")] == []


def test_the_first_migration_that_fails_can_be_tried_again(
    path: Path, more_migrations: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context():
        more_migrations(_BROKEN)
        with pytest.raises(Failed):
            upgrade(path)
        assert tables(path) == set()
        monkeypatch.undo()
    upgrade(path)
    assert "projects" in tables(path)


def test_three_copies_are_kept(path: Path, more_migrations: Any) -> None:
    upgrade(path)
    for number in range(4):
        path.with_name(f"lxpy.db.before-0000-2026010{number}000000").touch()
    more_migrations(_REBUILD)
    copy = upgrade(path)
    left = sorted(each.name[-14:] for each in path.parent.glob("lxpy.db.before-*"))
    assert copy is not None and len(left) == 3
    assert copy.exists() and "20260103000000" in left and "20260100000000" not in left


def test_a_newer_database_is_refused(path: Path) -> None:
    upgrade(path)
    ask(path, "UPDATE alembic_version SET version_num = '8000'")
    with pytest.raises(NewerDatabase, match="8000"):
        upgrade(path)


def test_a_damaged_file_is_refused(path: Path) -> None:
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(Failed, match=r"cannot be read.*lxpy\.db\.before-"):
        upgrade(path)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_stranger_is_refused(path: Path) -> None:
    ask(path, "CREATE TABLE other (id INTEGER)")
    with pytest.raises(Failed, match="not one of lxpy's"):
        upgrade(path)
