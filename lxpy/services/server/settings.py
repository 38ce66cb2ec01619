"""The server's config: read once, kept in memory, written by `Server` alone."""

from __future__ import annotations

from collections.abc import Callable

from lxpy.db import settings
from lxpy.db.engine import Database


class Settings:
    """Server config keys that are set."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._values: dict[str, str] = {}
        #: called after a change with the keys whose values are others now
        #: returns what a project says of a key, "" for nothing
        self.of_project: Callable[[str, str], str] = _nothing
        self.on_change: list[Callable[[set[str]], None]] = []

    async def load(self) -> None:
        """Read them from the database."""
        async with self._db.read() as session:
            self._values = await settings.load(session)

    def get(self, key: str, default: str = "", *, project: str = "") -> str:
        """Return the value of a key, `default` when it is not set.

        What a project says itself goes before.
        """
        own = self.of_project(project, key) if project else ""
        return own or self._values.get(key) or default

    def all(self) -> dict[str, str]:
        """Return every key that is set."""
        return dict(self._values)

    async def replace(self, values: dict[str, str]) -> None:
        """Make `values`, checked by the caller, the whole config."""
        async with self._db.write() as session:
            await settings.replace(session, values)
        old, self._values = self._values, dict(values)
        changed = {key for key in old | values if old.get(key) != values.get(key)}
        for call in self.on_change:
            call(changed)


def _nothing(_: str, __: str) -> str:
    """Return what a project says that has no config."""
    return ""
