"""Backups that the daemon keeps, whatever they are of: a row and a file each, changed together."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from lxpy.db import backups as queries
from lxpy.db.backups import Owner
from lxpy.db.engine import Database
from lxpy.db.rows import BackupRow
from lxpy.errors import BadRequest, Conflict, NotFound
from lxpy.operations.registry import Operation
from lxpy.services.backups.files import BackupFiles, NewFile
from lxpy.threads import in_thread

_REPORT_S = 0.5
_MAX_NAME_BYTES = 200
_MISSING = {
    "instances": "Load backup from database: Instance backup",
    "volumes": "Storage volume backup",
}


class Shelf:
    """The backups of one kind of owner, whose lock the caller holds for every change."""

    def __init__(self, db: Database, files: BackupFiles) -> None:
        self.files = files
        self._db = db
        self._claimed: set[tuple[Owner, str]] = set()

    @asynccontextmanager
    async def new(self, owner: Owner, operation: Operation, what: str) -> AsyncIterator[NewFile]:
        """Make a file for the length of a block, as which its operation tells how large it is."""
        async with self.files.new(owner) as file:
            watcher = asyncio.create_task(_watch(file, operation, what))
            try:
                yield file
            finally:
                watcher.cancel()
                await asyncio.wait([watcher])

    async def all_of(self, owner: Owner) -> Sequence[BackupRow]:
        """Return the backups of an owner, oldest first."""
        async with self._db.read() as session:
            return await queries.all_of(session, owner)

    async def find(self, owner: Owner, name: str) -> BackupRow:
        """Return a backup. Raises NotFound."""
        async with self._db.read() as session:
            row = await queries.find(session, owner, name)
        if row is None:
            raise NotFound(f'{_MISSING[owner.kind]} not found: "{name}"')
        return row

    async def claim(self, owner: Owner, wanted: str) -> str:
        """Return the name of a new backup, `wanted` or the next free one, until `unclaim`.

        Raises BadRequest, Conflict.
        """
        name = await self.free_name(owner, wanted)
        self._claimed.add((owner, name))
        return name

    def unclaim(self, owner: Owner, name: str) -> None:
        """Let go of the name: the backup is there, or it will not be."""
        self._claimed.discard((owner, name))

    async def free_name(self, owner: Owner, wanted: str) -> str:
        """Return `wanted`, or the next free name. Raises BadRequest, Conflict."""
        taken = {row.name for row in await self.all_of(owner)}
        taken |= {name for who, name in self._claimed if who == owner}
        if not wanted:
            return next(f"backup{n}" for n in itertools.count() if f"backup{n}" not in taken)
        check_name(wanted)
        if wanted in taken:
            raise Conflict(f'Backup "{wanted}" already exists')
        return wanted

    async def keep(
        self,
        owner: Owner,
        name: str,
        file: NewFile,
        expires_at: datetime | None,
        data: Mapping[str, Any],
    ) -> None:
        """Give a finished file its name and its row."""
        ends = None if expires_at is None or expires_at.year <= 1970 else expires_at
        await file.name(name)
        try:
            async with self._db.write() as session:
                queries.add(session, owner, name, ends, dict(data))
        except BaseException:
            await self.files.delete(owner, name)
            raise

    async def rename(self, owner: Owner, name: str, new_name: str) -> None:
        """Give a backup another name; a crash in between leaves one file too many, for `sweep`."""
        await self.files.also(owner, name, new_name)
        try:
            async with self._db.write() as session:
                await queries.rename(session, owner, name, new_name)
        except BaseException:
            await self.files.delete(owner, new_name)
            raise
        await self.files.delete(owner, name)

    async def remove(self, owner: Owner, name: str) -> None:
        """Delete a backup. On a full disk, too."""
        async with self._db.write(frees=True) as session:
            await queries.remove(session, owner, name)
        await self.files.delete(owner, name)


def check_name(name: str) -> None:
    """Raise BadRequest for a name that a backup cannot have."""
    bad = "/" in name or name.startswith(".") or not name.isprintable()
    if bad or any(each.isspace() for each in name) or len(name.encode()) > _MAX_NAME_BYTES:
        raise BadRequest(
            f'Invalid backup name "{name[:80]}": use printable characters without spaces and '
            'slashes, the first one no "."'
        )


async def _watch(file: NewFile, operation: Operation, what: str) -> None:
    while True:
        await asyncio.sleep(_REPORT_S)
        size = await in_thread(lambda: file.size_bytes)
        operation.progress("create_backup", f"{what}: {size / 1e6:.2f}MB")
