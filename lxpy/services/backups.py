"""Backups of instances that the daemon keeps for a while, as LXD does.

Source: LXD docs, "REST API", "Instances", "backups".
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog

from lxpy.api import backups as api
from lxpy.api.snapshots import NEVER
from lxpy.bucket import Place
from lxpy.db import backups as queries
from lxpy.db.backups import Owner
from lxpy.db.engine import Database
from lxpy.db.rows import BackupRow
from lxpy.errors import BadRequest, Conflict, LxpyError, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.images.progress import Meter
from lxpy.instances.model import Instance
from lxpy.operations.registry import Operation, Registry
from lxpy.services import targets
from lxpy.services.backupfiles import BackupFiles, NewFile
from lxpy.services.exports import Exports, Wish, refuse_optimized
from lxpy.services.locks import Locks
from lxpy.services.store import InstanceStore
from lxpy.services.targets import place_of
from lxpy.threads import in_thread

_REPORT_S = 0.5
_EXPIRY_S = 60.0
_MAX_NAME_BYTES = 200

_log = structlog.get_logger()


class Backups:
    """The backups of instances; `start` before use."""

    def __init__(
        self,
        db: Database,
        files: BackupFiles,
        store: InstanceStore,
        locks: Locks,
        exports: Exports,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._files = files
        self._store = store
        self._locks = locks
        self._exports = exports
        self._registry = registry
        self._lifecycle = lifecycle
        self._making: set[tuple[Owner, str]] = set()

    async def start(self) -> None:
        """Bring rows and files to agree after a crash."""
        async with self._db.read() as session:
            rows = await queries.everything(session)
        known = {self._files.path(queries.owner_of(row), row.name): row for row in rows}
        for path in await self._files.sweep(known.keys()):
            _log.warning("the file of a backup is missing", path=str(path))
            async with self._db.write(frees=True) as session:
                await queries.remove(session, queries.owner_of(known[path]), known[path].name)

    async def maintain(self) -> None:
        """Delete backups whose time is over, for ever."""
        while True:
            try:
                await self.prune()
            except LxpyError as error:
                _log.warning("expired backups not deleted", error=str(error))
            await asyncio.sleep(_EXPIRY_S)

    async def prune(self) -> None:
        """Delete backups whose time is over."""
        async with self._db.read() as session:
            rows = await queries.expired(session)
        for row in rows:
            _log.info("backup expired", backup=row.name)
            await self._remove(queries.owner_of(row), row.name)

    async def forget(self, instance: Instance) -> None:
        """Remove the files of an instance whose row is gone, and theirs with it."""
        await self._files.delete_all(_owner(instance))

    # Looking

    async def list(self, project: str, name: str) -> Sequence[api.Backup]:
        """Return the backups of an instance, oldest first. Raises NotFound."""
        owner = _owner(self._store.get(project, name))
        async with self._db.read() as session:
            return [_shown(row) for row in await queries.all_of(session, owner)]

    async def get(self, project: str, name: str, backup: str) -> api.Backup:
        """Return a backup. Raises NotFound."""
        return _shown(await self._find(_owner(self._store.get(project, name)), backup))

    async def path(self, project: str, name: str, backup: str) -> str:
        """Return the path of a backup's file. Raises NotFound."""
        owner = _owner(self._store.get(project, name))
        await self._find(owner, backup)
        self._tell("retrieved", project, name, backup)
        return str(self._files.path(owner, backup))

    # Making

    async def create(self, project: str, name: str, wish: api.BackupsPost) -> Operation:
        """Start making a backup. Raises NotFound, BadRequest, Conflict, NotSupported."""
        refuse_optimized(wish.optimized_storage)
        owner = _owner(self._store.get(project, name))
        alone = wish.instance_only or wish.container_only
        how = Wish(await self._exports.packer(wish.compression_algorithm), alone, wish.since)
        self._exports.check(project, name, how)
        backup = await self._name(owner, wish.name)
        if wish.target is not None:
            return self._send((project, name, backup), how, place_of(wish.target))
        self._making.add((owner, backup))

        async def work(operation: Operation) -> None:
            try:
                await self._make(operation, owner, (project, name, backup), how, wish.expires_at)
            finally:
                self._making.discard((owner, backup))

        return self._spawn("Backing up instance", work, project, name, backup)

    def _send(self, names: tuple[str, str, str], how: Wish, place: Place) -> Operation:
        """Start sending a backup away; the daemon does not keep it."""
        project, name, backup = names

        async def work(operation: Operation) -> None:
            meter = Meter(operation.progress, "create_backup", f"Sending backup to {place}")
            async with self._exports.stream(project, name, how) as chunks:
                await targets.send(chunks, place, meter)

        return self._spawn("Backing up instance", work, project, name, backup)

    async def _make(
        self,
        operation: Operation,
        owner: Owner,
        names: tuple[str, str, str],
        how: Wish,
        expires_at: datetime | None,
    ) -> None:
        project, name, backup = names
        async with self._files.new(owner) as file:
            watcher = asyncio.create_task(_watch(file, operation))
            try:
                await self._exports.write(project, name, how, file.descriptor)
            finally:
                watcher.cancel()
                await asyncio.wait([watcher])
            data = {"instance_only": how.instance_only, "size": file.size_bytes}
            async with self._locks.hold("instance", project, name):
                if _owner(self._store.get(project, name)) != owner:
                    raise NotFound("Instance not found: it was deleted while it was backed up")
                await file.name(backup)
                try:
                    await self._insert(owner, backup, expires_at, data)
                except BaseException:
                    await self._files.delete(owner, backup)
                    raise
        self._tell("created", project, name, backup)

    async def _insert(
        self, owner: Owner, backup: str, expires_at: datetime | None, data: Mapping[str, Any]
    ) -> None:
        ends = None if expires_at is None or expires_at.year <= 1970 else expires_at
        async with self._db.write() as session:
            queries.add(session, owner, backup, ends, dict(data))

    async def _name(self, owner: Owner, wanted: str) -> str:
        """Return the name of a new backup, the next free one unless one is wanted."""
        async with self._db.read() as session:
            taken = {row.name for row in await queries.all_of(session, owner)}
        taken |= {name for who, name in self._making if who == owner}
        if not wanted:
            return next(f"backup{n}" for n in itertools.count() if f"backup{n}" not in taken)
        check_name(wanted)
        if wanted in taken:
            raise Conflict(f'Backup "{wanted}" already exists')
        return wanted

    # Changing

    async def rename(self, project: str, name: str, backup: str, wish: api.BackupPost) -> Operation:
        """Start renaming a backup. Raises NotFound, BadRequest, Conflict."""
        owner = _owner(self._store.get(project, name))
        await self._find(owner, backup)
        new_name = await self._name(owner, wish.name or backup)

        async def work(_: Operation) -> None:
            async with self._locks.hold("instance", project, name):
                await self._find(owner, backup)
                # Both names until the row has the new one: a crash leaves one file too many.
                await self._files.also(owner, backup, new_name)
                try:
                    await self._call(owner, backup, new_name)
                except BaseException:
                    await self._files.delete(owner, new_name)
                    raise
                await self._files.delete(owner, backup)
            self._tell("renamed", project, name, new_name, {"old_name": backup})

        return self._spawn("Renaming instance backup", work, project, name, backup)

    async def _call(self, owner: Owner, backup: str, new_name: str) -> None:
        async with self._db.write() as session:
            await queries.rename(session, owner, backup, new_name)

    async def delete(self, project: str, name: str, backup: str) -> Operation:
        """Start deleting a backup. Raises NotFound."""
        owner = _owner(self._store.get(project, name))
        await self._find(owner, backup)

        async def work(_: Operation) -> None:
            await self._remove(owner, backup)
            self._tell("deleted", project, name, backup)

        return self._spawn("Deleting backup", work, project, name, backup)

    async def _remove(self, owner: Owner, backup: str) -> None:
        async with self._db.write(frees=True) as session:
            await queries.remove(session, owner, backup)
        await self._files.delete(owner, backup)

    async def _find(self, owner: Owner, backup: str) -> BackupRow:
        async with self._db.read() as session:
            row = await queries.find(session, owner, backup)
        if row is None:
            raise NotFound(f'Backup "{backup}" not found')
        return row

    def _spawn(
        self, description: str, work: Any, project: str, name: str, backup: str
    ) -> Operation:
        # lxc cuts "/1.0/backups/" off to learn the name
        resources = {
            "instances": [f"/1.0/instances/{name}"],
            "backups": [f"/1.0/backups/{backup}"],
        }
        return self._registry.spawn(
            description, work, project=project, resources=resources, cancellable=True
        )

    def _tell(
        self,
        action: str,
        project: str,
        name: str,
        backup: str,
        context: Mapping[str, str] | None = None,
    ) -> None:
        path = f"/1.0/instances/{name}/backups/{backup}"
        self._lifecycle.emit(f"instance-backup-{action}", path, project, context)


def check_name(name: str) -> None:
    """Raise BadRequest for a name that a backup cannot have."""
    bad = "/" in name or name.startswith(".") or not name.isprintable()
    if bad or any(each.isspace() for each in name) or len(name.encode()) > _MAX_NAME_BYTES:
        raise BadRequest(
            f'Invalid backup name "{name[:80]}": use printable characters without spaces and '
            'slashes, the first one no "."'
        )


def _owner(instance: Instance) -> Owner:
    return Owner("instances", instance.id)


def _shown(row: BackupRow) -> api.Backup:
    alone = bool(row.data.get("instance_only"))
    return api.Backup(
        name=row.name,
        created_at=row.created_at,
        expires_at=row.expires_at or NEVER,
        instance_only=alone,
        container_only=alone,
        optimized_storage=False,
        size=int(row.data.get("size", 0)),
    )


async def _watch(file: NewFile, operation: Operation) -> None:
    while True:
        await asyncio.sleep(_REPORT_S)
        size = await in_thread(lambda: file.size_bytes)
        operation.progress("create_backup", f"Backing up instance: {size / 1e6:.2f}MB")
