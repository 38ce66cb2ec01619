"""Backups of custom volumes that the daemon keeps for a while, as LXD does.

Source: LXD docs, "REST API", "Storage", "backups" of custom volumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lxpy.api import backups as backups_api
from lxpy.api import storage as api
from lxpy.api.snapshots import NEVER
from lxpy.db.backups import Owner
from lxpy.db.engine import Database
from lxpy.db.rows import BackupRow, VolumeRow
from lxpy.errors import NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.operations.registry import Operation, Registry, Work
from lxpy.services.backups.shelf import Shelf
from lxpy.services.locks import Locks
from lxpy.services.storage.exports import VolumeExports, Wish
from lxpy.services.storage.places import Place, find


class VolumeBackups:
    """The backups of custom volumes; those that have expired go with those of instances."""

    def __init__(
        self,
        db: Database,
        shelf: Shelf,
        locks: Locks,
        exports: VolumeExports,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._shelf = shelf
        self._locks = locks
        self._exports = exports
        self._registry = registry
        self._lifecycle = lifecycle

    # Looking

    async def list(self, place: Place) -> Sequence[api.VolumeBackup]:
        """Return the backups of a volume, oldest first. Raises NotFound, BadRequest."""
        return [_shown(row) for row in await self._shelf.all_of(await self._owner(place))]

    async def get(self, place: Place, backup: str) -> api.VolumeBackup:
        """Return a backup. Raises NotFound, BadRequest."""
        return _shown(await self._shelf.find(await self._owner(place), backup))

    async def path(self, place: Place, backup: str) -> str:
        """Return the path of a backup's file. Raises NotFound, BadRequest."""
        owner = await self._owner(place)
        await self._shelf.find(owner, backup)
        self._tell("retrieved", place, backup)
        return str(self._shelf.files.path(owner, backup))

    # Making and changing

    async def create(self, place: Place, wish: backups_api.BackupsPost, how: Wish) -> Operation:
        """Start making a backup. Raises NotFound, BadRequest, Conflict, NotSupported."""
        owner = await self._owner(place)
        backup = await self._shelf.claim(owner, wish.name)

        async def work(operation: Operation) -> None:
            try:
                async with self._shelf.new(owner, operation, "Backing up volume") as file:
                    await self._exports.write(place, how, file.descriptor)
                    data = {"volume_only": how.volume_only, "size": file.size_bytes}
                    async with self._locks.hold(*place.key):
                        if await self._owner(place) != owner:
                            raise NotFound("The volume was deleted while it was backed up")
                        await self._shelf.keep(owner, backup, file, wish.expires_at, data)
            finally:
                self._shelf.unclaim(owner, backup)
            self._tell("created", place, backup)

        return self._spawn("Creating custom volume backup", work, place, backup)

    async def rename(self, place: Place, backup: str, wish: backups_api.BackupPost) -> Operation:
        """Start renaming a backup. Raises NotFound, BadRequest, Conflict."""
        owner = await self._owner(place)
        await self._shelf.find(owner, backup)
        new_name = await self._shelf.free_name(owner, wish.name or backup)

        async def work(_: Operation) -> None:
            async with self._locks.hold(*place.key):
                await self._shelf.find(owner, backup)
                await self._shelf.rename(owner, backup, new_name)
            self._tell("renamed", place, new_name, {"old_name": backup})

        return self._spawn("Renaming custom volume backup", work, place, backup)

    async def delete(self, place: Place, backup: str) -> Operation:
        """Start deleting a backup. Raises NotFound, BadRequest."""
        owner = await self._owner(place)
        await self._shelf.find(owner, backup)

        async def work(_: Operation) -> None:
            async with self._locks.hold(*place.key):
                await self._shelf.remove(owner, backup)
            self._tell("deleted", place, backup)

        return self._spawn("Deleting custom volume backup", work, place, backup)

    async def forget(self, row: VolumeRow) -> None:
        """Remove the files of a volume whose row is gone, and theirs with it."""
        await self._shelf.files.delete_all(Owner("volumes", row.id))

    async def _owner(self, place: Place) -> Owner:
        async with self._db.read() as session:
            return Owner("volumes", (await find(session, place)).id)

    def _spawn(self, description: str, work: Work, place: Place, backup: str) -> Operation:
        # lxc cuts "/1.0/backups/" off to learn the name
        resources = {"storage_volumes": [place.path], "backups": [f"/1.0/backups/{backup}"]}
        return self._registry.spawn(
            description, work, project=place.project, resources=resources, cancellable=True
        )

    def _tell(
        self, action: str, place: Place, backup: str, context: Mapping[str, str] | None = None
    ) -> None:
        event = f"storage-volume-backup-{action}"
        self._lifecycle.emit(event, f"{place.path}/backups/{backup}", place.project, context)


def _shown(row: BackupRow) -> api.VolumeBackup:
    return api.VolumeBackup(
        name=row.name,
        created_at=row.created_at,
        expires_at=row.expires_at or NEVER,
        volume_only=bool(row.data.get("volume_only")),
        optimized_storage=False,
        size=int(row.data.get("size", 0)),
    )
