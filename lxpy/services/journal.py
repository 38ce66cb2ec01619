"""Intents: what is about to change the host is written down first, and crossed out at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lxpy.db import intents
from lxpy.db.engine import Database


@dataclass(frozen=True, slots=True)
class Intent:
    """Work under way: `kind` of it, the instance, and what is needed to undo or finish it."""

    id: str
    kind: str
    project: str
    name: str
    data: dict[str, Any]


class Journal:
    """The daemon's unfinished work."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, kind: str, project: str, name: str, **data: Any) -> str:
        """Write down that work begins; return the intent's id."""
        async with self._db.write() as session:
            return intents.add(session, kind, project, name, **data)

    async def end(self, id: str) -> None:
        """Cross it out: the work is done, or undone."""
        async with self._db.write(frees=True) as session:
            await intents.end(session, id)

    @asynccontextmanager
    async def undoable(self, kind: str, project: str, name: str, **data: Any) -> AsyncIterator[str]:
        """Keep an intent for the length of a block that undoes its own work when it fails.

        On success whoever commits the result ends the intent in the same transaction.
        """
        id = await self.begin(kind, project, name, **data)
        try:
            yield id
        except BaseException:
            await self.end(id)
            raise

    async def unfinished(self) -> Sequence[Intent]:
        """Return what was under way when the daemon ended, oldest first."""
        async with self._db.read() as session:
            rows = await intents.unfinished(session)
            return [Intent(row.id, row.kind, row.project, row.name, dict(row.data)) for row in rows]
