"""Whether a SQLite file is sound, and what of it can be read when it is not. All of it blocks."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

#: beyond this size only the structure is examined, not every index against its table
_LARGE_BYTES = 256 << 20


def address(path: Path, *, immutable: bool = False) -> str:
    """Return the URI that opens a file for reading.

    `immutable` is for files that nobody writes: without locks, and without a look at a journal.
    """
    return f"file:{quote(str(path))}?mode=ro{'&immutable=1' if immutable else ''}"


def connect(path: Path, *, immutable: bool = False) -> sqlite3.Connection:
    """Open a file for reading."""
    return sqlite3.connect(address(path, immutable=immutable), uri=True)


def problem(path: Path, *, immutable: bool = False) -> str:
    """Return what is wrong with a file; "" when it is sound."""
    try:
        check = "quick_check" if path.stat().st_size > _LARGE_BYTES else "integrity_check"
        with closing(connect(path, immutable=immutable)) as connection:
            found = connection.execute(f"PRAGMA {check}(3)").fetchall()
    except (OSError, sqlite3.Error) as error:
        return str(error)
    said = "; ".join(str(row[0]).replace("\n", " ") for row in found)
    return "" if said == "ok" else said or "the file could not be examined"


def revision(path: Path, *, immutable: bool = False) -> str:
    """Return the revision of a file's schema, "" when it has none or cannot be read."""
    try:
        with closing(connect(path, immutable=immutable)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:
        return ""
    return str(row[0]) if row else ""


def is_readable(path: Path, *, immutable: bool = False) -> bool:
    """Tell whether every row of every table can be read, and what rows refer to is there."""
    try:
        with closing(connect(path, immutable=immutable)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (name,) in names.fetchall():
                # NOT INDEXED: what an index has lost, the table still has.
                for _ in connection.execute(f'SELECT * FROM "{name}" NOT INDEXED'):
                    pass
            return not connection.execute("PRAGMA foreign_key_check").fetchall()
    except (sqlite3.Error, UnicodeDecodeError):
        return False


def sync(path: Path) -> None:
    """Write a file, or the names in a directory, out to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
