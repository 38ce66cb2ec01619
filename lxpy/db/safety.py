"""What a daemon finds at its start: a sound database, a damaged one, none, or an old copy.

Marks in the directory of the copies remember across starts how the last daemon ended, and that
something has to be recovered. All of it blocks: call it in a thread.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from lxpy.db import integrity
from lxpy.db.base import now
from lxpy.db.dumps import Dumps
from lxpy.db.upgrade import revisions
from lxpy.errors import Failed

_SMALL_BYTES = 16 << 20
#: what belongs to a database file
_SUFFIXES = ("", "-wal", "-shm")


class Mark(StrEnum):
    """What is remembered from one start to the next."""

    CLEAN = "clean"
    LOST = "lost"
    RESTORED = "restored"


class State(StrEnum):
    """How the database is."""

    SOUND = "sound"
    DAMAGED = "damaged"
    LOST = "lost"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Condition:
    """How the database is; `cause` is for people.

    `read` is what a damaged one is replaced by for reading, None where nothing can be read.
    """

    state: State = State.SOUND
    cause: str = ""
    read: Path | None = None


@dataclass(frozen=True, slots=True)
class Replacement:
    """What was put in place of a damaged database.

    `path` is where its rows are from, None for nowhere; `made_at` is the age of a copy, None when
    nothing is lost.
    """

    path: Path | None
    made_at: datetime | None


class Safety:
    """The care of one database file. `evidence` tells what an installation has without it."""

    def __init__(self, database: Path, directory: Path, evidence: Callable[[], str]) -> None:
        self.dumps = Dumps(database, directory / "dumps")
        self._database = database
        self._directory = directory
        self._evidence = evidence

    def examine(self) -> Condition:
        """Look at the database before it is opened."""
        if not self._exists():
            found = self._evidence()
            if found and not self._has(Mark.LOST):
                self._set(Mark.LOST, found)
        elif said := self._damage():
            return self._damaged(said)
        return self._marked()

    def _exists(self) -> bool:
        return self._database.exists() and self._database.stat().st_size > 0

    def _damage(self) -> str:
        """Examine the database after a crash; after an orderly end, too, if that takes no time."""
        if self._has(Mark.CLEAN) and self._database.stat().st_size > _SMALL_BYTES:
            return ""
        return integrity.problem(self._database)

    def _damaged(self, said: str) -> Condition:
        head = revisions()[-1]
        if integrity.revision(self._database) == head and integrity.is_readable(self._database):
            return Condition(State.DAMAGED, f"{said}; its rows can still be read", self._database)
        for each in self.dumps.sound():
            if integrity.revision(each.path, immutable=True) == head:
                cause = f"{said}; what is shown is its copy of {each.made_at:%Y-%m-%d %H:%M} UTC"
                return Condition(State.DAMAGED, cause, each.path)
        return Condition(State.DAMAGED, f"{said}; there is no sound copy of it")

    def _marked(self) -> Condition:
        if self._has(Mark.LOST):
            return Condition(State.LOST, self._text(Mark.LOST))
        if self._has(Mark.RESTORED):
            return Condition(State.RESTORED, self._text(Mark.RESTORED))
        return Condition()

    # Marks

    def opened(self) -> None:
        """Note that a daemon is at work: whatever ends it now is a crash, unless it says so."""
        self._clear(Mark.CLEAN)

    def closed(self) -> None:
        """Note an orderly end."""
        self._set(Mark.CLEAN, "")

    def recovered(self) -> None:
        """Forget that something is to be recovered."""
        self._clear(Mark.LOST)
        self._clear(Mark.RESTORED)

    def _has(self, mark: Mark) -> bool:
        return (self._directory / mark).exists()

    def _text(self, mark: Mark) -> str:
        return (self._directory / mark).read_text()

    def _set(self, mark: Mark, text: str) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._directory / mark).write_text(text)

    def _clear(self, mark: Mark) -> None:
        (self._directory / mark).unlink(missing_ok=True)

    # Putting a copy in place

    def restore(self) -> Replacement:
        """Put a sound database in the place of a damaged or lost one, which is kept beside it.

        That is the damaged one's own content where all rows can be read, else its newest sound
        copy, else none: the next daemon begins with an empty database then. The database must not
        be open for writing. Raises Failed when there is no room; nothing is changed then.
        """
        new = self._database.with_name(f".{self._database.name}.new")
        try:
            found = self._prepare(new)
            self._set_aside()
            if found.path is not None:
                os.rename(new, self._database)
            integrity.sync(self._database.parent)
        except (OSError, sqlite3.Error) as error:
            new.unlink(missing_ok=True)
            raise Failed(f"Database {self._database} could not be replaced: {error}") from error
        return found

    def _prepare(self, new: Path) -> Replacement:
        """Write the database that is to be put in place. A mark tells that it is an old one."""
        # One that was made where another was lost is sound, and empty.
        if self._exists() and not self._has(Mark.LOST) and _salvage(self._database, new):
            return Replacement(self._database, None)
        dump = next(self.dumps.sound(), None)
        if dump is None:
            return Replacement(None, None)
        _copy(dump.path, new)
        self._set(Mark.RESTORED, f"it is the copy of {dump.made_at:%Y-%m-%d %H:%M} UTC")
        self._clear(Mark.LOST)
        return Replacement(dump.path, dump.made_at)

    def _set_aside(self) -> None:
        """Rename the database; its journal goes first, as it must never meet another file."""
        tag = f"damaged-{now():%Y%m%d%H%M%S}"
        for suffix in reversed(_SUFFIXES):
            path = self._database.with_name(f"{self._database.name}{suffix}")
            if path.exists():
                os.rename(path, path.with_name(f"{self._database.name}.{tag}{suffix}"))


def _salvage(source: Path, target: Path) -> bool:
    """Write a damaged database anew, if nothing of it is lost; tell whether."""
    if not integrity.is_readable(source):
        return False
    _make_empty(target)
    try:
        with closing(integrity.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
            new.execute("REINDEX")
            new.execute("VACUUM")
    except sqlite3.DatabaseError:
        return False
    integrity.sync(target)
    return not integrity.problem(target, immutable=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a copy, without its notes of work under way.

    To undo that work would delete what has been finished since.
    """
    _make_empty(target)
    with (
        closing(integrity.connect(source, immutable=True)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)
        new.execute("DELETE FROM intents")
        new.commit()
    integrity.sync(target)


def _make_empty(target: Path) -> None:
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
