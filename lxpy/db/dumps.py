"""Checked copies of the database, by the hour and the day: what is left when the file is damaged.

A copy is made by SQLite while the daemon goes on writing, is examined, and appears under its name
only when it is sound. All of it blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lxpy.db.base import now
from lxpy.db.integrity import connect, problem, sync
from lxpy.errors import Failed

HOURLY = 24
DAILY = 7
EVERY = timedelta(hours=1)
LIMIT_BYTES = 1 << 30
#: kept whatever they take
_LEAST = 3
_NEW = ".new"
_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"lxpy-(\d{8}T\d{6}Z)\.db")


@dataclass(frozen=True, slots=True)
class Dump:
    """A copy of the database as it was at a time."""

    path: Path
    made_at: datetime
    size_bytes: int


class Dumps:
    """The copies of one database, in a directory that holds nothing else."""

    def __init__(
        self, database: Path, directory: Path, *, clock: Callable[[], datetime] = now
    ) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock

    def listed(self) -> list[Dump]:
        """Return the copies, newest first."""
        found: list[Dump] = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                if match := _NAME.fullmatch(entry.name):
                    made_at = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC)
                    found.append(Dump(Path(entry.path), made_at, entry.stat().st_size))
        return sorted(found, key=lambda each: each.made_at, reverse=True)

    def sound(self) -> Iterator[Dump]:
        """Yield the copies that are still whole, newest first."""
        return (each for each in self.listed() if not problem(each.path, immutable=True))

    def due(self) -> bool:
        """Tell whether the last copy is an hour old and the database was written since."""
        newest = next(iter(self.listed()), None)
        if newest is None:
            return self._database.exists()
        if self._clock() - newest.made_at < EVERY:
            return False
        return self._changed_at() > newest.made_at.timestamp()

    def _changed_at(self) -> float:
        found = 0.0
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                path = self._database.with_name(f"{self._database.name}{suffix}")
                found = max(found, path.stat().st_mtime)
        return found

    def make(self) -> Dump:
        """Copy the database as it is now, and let old copies go.

        Raises Failed when there is no room or the copy is not sound; nothing is left of it then.
        """
        made_at = self._clock().replace(microsecond=0)
        target = self._directory / f"lxpy-{made_at:{_TIME}}.db"
        new = self._directory / _NEW
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            self._copy(new)
            os.rename(new, target)
            sync(self._directory)
        except (OSError, sqlite3.Error) as error:
            new.unlink(missing_ok=True)
            raise Failed(
                f"Copying database {self._database} to {self._directory} failed: {error}; free "
                "some space there, or see docs/recovery.md if the database is damaged"
            ) from error
        self.rotate()
        return Dump(target, made_at, target.stat().st_size)

    def _copy(self, new: Path) -> None:
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(connect(self._database)) as connection:
            connection.execute("VACUUM INTO ?", (str(new),))
        if said := problem(new, immutable=True):
            raise sqlite3.DatabaseError(f"the copy is not sound: {said}")
        sync(new)

    def rotate(self) -> None:
        """Remove what is neither one of the last 24 nor the last of one of the last 7 days."""
        found = self.listed()
        kept = {each.path for each in found[:HOURLY]} | set(_last_of_days(found))
        room = LIMIT_BYTES
        for number, each in enumerate(found):
            room -= each.size_bytes if each.path in kept else 0
            if each.path not in kept or (room < 0 and number >= _LEAST):
                each.path.unlink(missing_ok=True)


def _last_of_days(found: Sequence[Dump]) -> Iterator[Path]:
    days: dict[object, Path] = {}
    for each in found:  # newest first
        days.setdefault(each.made_at.date(), each.path)
    return iter(list(days.values())[:DAILY])
