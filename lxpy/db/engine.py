"""The connection to the database: pragmas, short sessions, errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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

from lxpy.db.reserve import Reserve
from lxpy.errors import Failed
from lxpy.threads import in_thread


class DatabaseUnavailable(Failed):
    """The database refused to write or to answer."""

    def __init__(self, url: str, cause: BaseException) -> None:
        text = str(cause).splitlines()[0]
        remedy = "free some space" if "full" in text else "see the daemon's log"
        super().__init__(f"Database {url} failed: {text}; nothing was changed, {remedy}")


class Database:
    """Hands out short transactions; a transaction spans no other await than its own queries."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: AsyncEngine = create_async_engine(url, pool_size=4, max_overflow=4)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine.sync_engine, "connect", _set_pragmas)
            event.listen(self.engine.sync_engine, "begin", _begin)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._writing = asyncio.Lock()
        path = self.engine.url.database
        on_disk = self.engine.dialect.name == "sqlite" and path not in (None, "", ":memory:")
        self._reserve = Reserve(Path(path)) if on_disk and path else None

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
        Raises DatabaseUnavailable when the commit fails (a full disk, a lost file).
        """
        async with self._writing, self._sessions() as session:
            await self._look_after_reserve(lend=frees)
            try:
                yield session
                await session.commit()
            except DBAPIError as error:
                if not _is_outage(error):
                    raise
                raise self._unavailable(error) from error

    async def _look_after_reserve(self, *, lend: bool) -> None:
        if self._reserve is None:
            return
        if lend:
            await in_thread(self._reserve.lend)
        elif self._reserve.missing and not await in_thread(self._reserve.keep):
            cause = OSError("the disk is full, what is left is for stopping and deleting")
            raise DatabaseUnavailable(self.engine.url.database or self.url, cause)

    def _unavailable(self, error: DBAPIError) -> DatabaseUnavailable:
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


def _begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")
