"""Backups of instances that the daemon keeps for a while, as LXD does.

Source: LXD docs, "REST API", "Instances", "backups".
"""

from __future__ import annotations

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
from lxpy.errors import LxpyError, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.images.progress import Meter
from lxpy.instances.model import Instance
from lxpy.operations.registry import Operation, Registry
from lxpy.services.backups import targets
from lxpy.services.backups.exports import KEPT_COMPRESSION, Exports, Wish
from lxpy.services.backups.shelf import Shelf
from lxpy.services.backups.targets import place_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.projects.allowances import Allowances

_log = structlog.get_logger()


class Backups:
    """The backups of instances; `start` before use."""

    def __init__(
        self,
        db: Database,
        shelf: Shelf,
        allowances: Allowances,
        store: InstanceStore,
        locks: Locks,
        exports: Exports,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._shelf = shelf
        self._allowances = allowances
        self._store = store
        self._locks = locks
        self._exports = exports
        self._registry = registry
        self._lifecycle = lifecycle
        self._having: set[int] = set()  # ids of instances: few have backups, lists ask for all

    async def start(self) -> None:
        """Bring rows and files to agree after a crash; what cannot be now, the next start does."""
        async with self._db.read() as session:
            rows = await queries.everything(session)
        self._having = {row.instance_id for row in rows if row.instance_id is not None}
        known = {self._shelf.files.path(queries.owner_of(row), row.name): row for row in rows}
        try:
            for path in await self._shelf.files.sweep(known.keys()):
                _log.warning("the file of a backup is missing", path=str(path))
                await self._shelf.remove(queries.owner_of(known[path]), known[path].name)
            await self.prune()
        except LxpyError as error:
            _log.warning("backups not tidied up", error=str(error))

    async def prune(self, _: datetime | None = None) -> None:
        """Delete backups whose time is over: at start, and once a minute."""
        async with self._db.read() as session:
            rows = await queries.expired(session)
        for row in rows:
            _log.info("backup expired", backup=row.name)
            await self._shelf.remove(queries.owner_of(row), row.name)

    async def forget(self, instance: Instance) -> None:
        """Remove the files of an instance whose row is gone, and theirs with it."""
        self._having.discard(instance.id)
        await self._shelf.files.delete_all(_owner(instance))

    # Looking

    async def of(self, instance: Instance) -> Sequence[api.Backup]:
        """Return the backups of an instance, oldest first; no query where there are none."""
        if instance.id not in self._having:
            return ()
        return [_shown(row) for row in await self._shelf.all_of(_owner(instance))]

    async def list(self, project: str, name: str) -> Sequence[api.Backup]:
        """Return the backups of an instance, oldest first. Raises NotFound."""
        owner = _owner(self._store.get(project, name))
        return [_shown(row) for row in await self._shelf.all_of(owner)]

    async def get(self, project: str, name: str, backup: str) -> api.Backup:
        """Return a backup. Raises NotFound."""
        return _shown(await self._shelf.find(_owner(self._store.get(project, name)), backup))

    async def path(self, project: str, name: str, backup: str) -> str:
        """Return the path of a backup's file. Raises NotFound."""
        owner = _owner(self._store.get(project, name))
        await self._shelf.find(owner, backup)
        self._tell("retrieved", project, name, backup)
        return str(self._shelf.files.path(owner, backup))

    # Making

    async def create(self, project: str, name: str, wish: api.BackupsPost) -> Operation:
        """Start making a backup. Raises NotFound, BadRequest, Conflict, NotSupported."""
        owner = _owner(self._store.get(project, name))
        self._allowances.check_feature(project, "backups")
        alone = wish.instance_only or wish.container_only
        packer = await self._exports.packer(project, wish.compression_algorithm, KEPT_COMPRESSION)
        how = Wish(packer, alone, wish.since)
        self._exports.check(project, name, how)
        if wish.target is not None:
            backup = await self._shelf.free_name(owner, wish.name)
            return self._send((project, name, backup), how, place_of(wish.target))
        backup = await self._shelf.claim(owner, wish.name)

        async def work(operation: Operation) -> None:
            try:
                await self._make(operation, owner, (project, name, backup), how, wish.expires_at)
            finally:
                self._shelf.unclaim(owner, backup)

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
        async with self._shelf.new(owner, operation, "Backing up instance") as file:
            await self._exports.write(project, name, how, file.descriptor)
            data = {"instance_only": how.instance_only, "size": file.size_bytes}
            async with self._locks.hold("instance", project, name):
                if _owner(self._store.get(project, name)) != owner:
                    raise NotFound("Instance not found: it was deleted while it was backed up")
                await self._shelf.keep(owner, backup, file, expires_at, data)
                self._having.add(owner.id)
        self._tell("created", project, name, backup)

    # Changing

    async def rename(self, project: str, name: str, backup: str, wish: api.BackupPost) -> Operation:
        """Start renaming a backup. Raises NotFound, BadRequest, Conflict."""
        owner = _owner(self._store.get(project, name))
        await self._shelf.find(owner, backup)
        new_name = await self._shelf.free_name(owner, wish.name or backup)

        async def work(_: Operation) -> None:
            async with self._locks.hold("instance", project, name):
                await self._shelf.find(owner, backup)
                await self._shelf.rename(owner, backup, new_name)
            self._tell("renamed", project, name, new_name, {"old_name": backup})

        return self._spawn("Renaming instance backup", work, project, name, backup)

    async def delete(self, project: str, name: str, backup: str) -> Operation:
        """Start deleting a backup. Raises NotFound."""
        owner = _owner(self._store.get(project, name))
        await self._shelf.find(owner, backup)

        async def work(_: Operation) -> None:
            await self._shelf.remove(owner, backup)
            self._tell("deleted", project, name, backup)

        return self._spawn("Deleting backup", work, project, name, backup)

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
