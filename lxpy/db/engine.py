"""The connection to the database: pragmas, short sessions, errors that say what to do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import ConnectionPoolEntry

from lxpy.db import integrity
from lxpy.db.reserve import Reserve
from lxpy.errors import Failed, Unavailable
from lxpy.threads import in_thread

_CHANGE = re.compile(r"\s*(?:INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM)\s+\"?(\w+)")
#: SQLITE_CORRUPT, SQLITE_NOTADB
_DAMAGE = ("malformed", "not a database")


class DatabaseUnavailable(Failed):
    """The database refused to write or to answer."""

    def __init__(self, url: str, cause: BaseException) -> None:
        text = str(cause).splitlines()[0]
        remedy = "free some space" if "full" in text else "see the daemon's log"
        super().__init__(f"Database {url} failed: {text}; nothing was changed, {remedy}")


class DatabaseReadOnly(Unavailable):
    """The database may be read only, for a reason its reader can do something about."""


class Database:
    """Hands out short transactions; a transaction spans no other await than its own queries.

    `read_only` is why nothing may be written, "" when all is well. `on_commit` hears which tables
    a transaction has changed; `on_damage` what is wrong with a file that was sound at the start.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.read_only = ""
        self.on_commit: Callable[[frozenset[str]], None] = lambda _: None
        self.on_damage: Callable[[str], None] = lambda _: None
        self._writing = asyncio.Lock()
        self._changed: set[str] = set()
        self._open(url, _set_pragmas)
        path = self.engine.url.database
        on_disk = self.engine.dialect.name == "sqlite" and path not in (None, "", ":memory:")
        self._reserve = Reserve(Path(path)) if on_disk and path else None

    def _open(self, url: str, prepare: Callable[[Any, ConnectionPoolEntry], None]) -> None:
        self.engine: AsyncEngine = create_async_engine(url, pool_size=4, max_overflow=4)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine.sync_engine, "connect", prepare)
            event.listen(self.engine.sync_engine, "begin", _begin)
        event.listen(self.engine.sync_engine, "before_cursor_execute", self._note)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    def read_instead(self, path: Path, reason: str) -> None:
        """Only read from now on, from `path`: the database itself, or a copy of it.

        Call it before anything else.
        """
        own = str(path) == self.engine.url.database
        self.read_only = reason
        self._reserve = None
        address = integrity.address(path, immutable=not own)
        self._open(f"sqlite+aiosqlite:///{address}&uri=true", _trust)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if match := _CHANGE.match(statement):
            self._changed.add(match[1])

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a session for queries."""
        async with self._sessions() as session:
            try:
                yield session
            except DBAPIError as error:
                if not _is_outage(error):
                    raise
                raise self._unavailable(error) from error

    @asynccontextmanager
    async def write(self, *, frees: bool = False) -> AsyncIterator[AsyncSession]:
        """Open a transaction that is committed at the end of the block, one at a time.

        `frees` is for what stops or deletes: it succeeds on a full disk, too.
        Raises DatabaseUnavailable when the commit fails (a full disk, a lost file),
        DatabaseReadOnly.
        """
        if self.read_only:
            raise DatabaseReadOnly(self.read_only)
        async with self._writing, self._sessions() as session:
            await self._look_after_reserve(lend=frees)
            self._changed.clear()
            try:
                yield session
                await session.commit()
            except DBAPIError as error:
                if not _is_outage(error):
                    raise
                raise self._unavailable(error) from error
            changed = frozenset(self._changed)
        self.on_commit(changed)

    async def _look_after_reserve(self, *, lend: bool) -> None:
        if self._reserve is None:
            return
        if lend:
            await in_thread(self._reserve.lend)
        elif self._reserve.missing and not await in_thread(self._reserve.keep):
            cause = OSError("the disk is full, what is left is for stopping and deleting")
            raise DatabaseUnavailable(self.engine.url.database or self.url, cause)

    def _unavailable(self, error: DBAPIError) -> DatabaseUnavailable:
        if not self.read_only and any(each in str(error.orig) for each in _DAMAGE):
            self.on_damage(str(error.orig))
        return DatabaseUnavailable(self.engine.url.database or self.url, error.orig or error)

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


def _is_outage(error: DBAPIError) -> bool:
    """Tell a full disk or a damaged file from a broken rule (IntegrityError) or a bug."""
    return isinstance(error, OperationalError) or type(error) is DatabaseError


def _set_pragmas(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # BEGIN is ours, see _begin
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "busy_timeout = 10000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _trust(connection: Any, _record: ConnectionPoolEntry) -> None:
    """Prepare a connection that only reads."""
    connection.isolation_level = None
    connection.execute("PRAGMA query_only = ON").close()


def _begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")
