"""The instances as the database has them, kept in memory: this daemon alone writes them.

Every GET is answered from here; every change is committed before it is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db import instances as queries
from lxpy.db import intents
from lxpy.db.engine import Database
from lxpy.db.rows import InstanceRow
from lxpy.errors import Conflict, NotFound
from lxpy.instances.expand import expand_config, expand_devices
from lxpy.instances.model import Instance, RootVolume, Snapshot, split_unique_name
from lxpy.services.journal import Intent
from lxpy.services.projects.scopes import Feature, Scopes
from lxpy.services.snapshots.store import SnapshotStore

Key = tuple[str, str]


class InstanceStore:
    """All instances of this installation, by project and name."""

    def __init__(self, db: Database, scopes: Scopes) -> None:
        self.snapshots = SnapshotStore(db)
        self._db = db
        self._scopes = scopes
        self._instances: dict[Key, Instance] = {}

    async def load(self) -> None:
        """Read everything from the database: at start, and when profiles have changed."""
        async with self._db.read() as session:
            rows = await queries.everything(session)
            self._instances = {(row.project, row.name): _instance(row) for row in rows}
            await self.snapshots.load(session)

    def get(self, project: str, name: str) -> Instance:
        """Return an instance. Raises NotFound."""
        try:
            return self._instances[project, name]
        except KeyError:
            raise NotFound("Instance not found") from None

    def has(self, project: str, name: str) -> bool:
        """Tell whether there is such an instance."""
        return (project, name) in self._instances

    def by_unique_name(self, unique: str) -> Instance | None:
        """Return the instance that a cgroup, a log or the supervisor names."""
        return self._instances.get(split_unique_name(unique))

    def listed(self, project: str | None = None) -> list[Instance]:
        """Return the instances of a project (None: of all) by name."""
        found = (each for each in self._instances.values() if project in (None, each.project))
        return sorted(found, key=lambda each: (each.project, each.name))

    def users_of(self, project: str, profile: str) -> list[Instance]:
        """Return the instances with that profile, which is of the project `project`."""
        projects = self._scopes.users(Feature.PROFILES, project)
        return [
            each for each in self.listed() if each.project in projects and profile in each.profiles
        ]

    def by_id(self, id: int) -> Instance | None:
        """Return the instance that a snapshot belongs to."""
        return next((each for each in self._instances.values() if each.id == id), None)

    async def add(
        self, instance: Instance, *, ends: str = "", snapshots: Iterable[Snapshot] = ()
    ) -> Instance:
        """Insert an instance with its snapshots; the intent `ends` is crossed out with it.

        Raises Conflict when its name is taken, NotFound when a profile is gone.
        """
        if self.has(instance.project, instance.name):
            raise Conflict('This "instances" entry already exists')
        async with self._db.write() as session:
            row = InstanceRow(project=instance.project, type="container", profiles=[])
            _fill(row, instance)
            row.created_at = instance.created_at
            session.add(row)
            await session.flush()
            await self._assign(session, row, instance)
            if ends:
                await intents.end(session, ends)
            await session.flush()
            kept = replace(instance, id=row.id)
            inserted = await self.snapshots.insert(session, kept.id, snapshots)
        self._keep(kept)
        self.snapshots.adopt(inserted)
        return kept

    async def save(
        self,
        instance: Instance,
        *,
        ends: str = "",
        begins: Intent | None = None,
        snapshots: Iterable[Snapshot] | None = None,
    ) -> Instance:
        """Write a changed instance, name and project included; an intent ends, or begins, with it.

        `snapshots` are what those that it has become, with their devices; the others' rows go.

        Raises Conflict when its name is taken, NotFound when a profile is gone.
        """
        old = next(each for each in self._instances.values() if each.id == instance.id)
        renamed = (old.project, old.name) != (instance.project, instance.name)
        if renamed and self.has(instance.project, instance.name):
            raise Conflict(f'Name "{instance.name}" already in use')
        async with self._db.write() as session:
            row = await session.get_one(InstanceRow, instance.id)
            _fill(row, instance)
            if (old.project, old.profiles) != (instance.project, instance.profiles):
                row.profiles = []
                await session.flush()
                await self._assign(session, row, instance)
            if ends:
                await intents.end(session, ends)
            if begins is not None:
                intents.add(
                    session, begins.kind, begins.project, begins.name, begins.id, **begins.data
                )
            if snapshots is not None:
                snapshots = await self.snapshots.settle(session, instance.id, snapshots)
        del self._instances[old.project, old.name]
        self._keep(instance)
        if snapshots is not None:
            self.snapshots.forget(instance.id)
            self.snapshots.adopt(snapshots)
        return instance

    async def note(
        self,
        instance: Instance,
        changes: Mapping[str, str],
        *,
        last_used_at: datetime | None = None,
    ) -> Instance:
        """Change config keys that lxpy itself keeps; "" removes one."""
        current = self.get(instance.project, instance.name)
        if last_used_at is None and all(
            current.config.get(key, "") == value for key, value in changes.items()
        ):
            return current
        config = {**current.config, **changes}
        expanded = {**current.expanded_config, **changes}
        noted = replace(
            current,
            config={key: value for key, value in config.items() if value != ""},
            expanded_config={key: value for key, value in expanded.items() if value != ""},
            last_used_at=last_used_at or current.last_used_at,
        )
        # On every start and stop: one statement instead of loading the row with its profiles.
        async with self._db.write(frees=True) as session:
            await queries.note(session, noted.id, dict(noted.config), noted.last_used_at)
        self._keep(noted)
        return noted

    async def remove(self, instance: Instance, *, intent: Mapping[str, str]) -> str:
        """Delete an instance's row; what remains to be removed becomes an intent, whose id it
        returns.
        """
        async with self._db.write(frees=True) as session:
            await queries.delete_by_id(session, instance.id)
            id = intents.add(session, "delete", instance.project, instance.name, **intent)
        self._instances.pop((instance.project, instance.name), None)
        self.snapshots.forget(instance.id)
        return id

    async def reload(self, project: str, profile: str) -> list[tuple[Instance, Instance]]:
        """Expand the users of a profile anew; return what each was and is."""
        before = self.users_of(project, profile)
        await self.reread(before)
        return [(old, self.get(old.project, old.name)) for old in before]

    async def reread(self, instances: Iterable[Instance]) -> None:
        """Take instances, or their profiles, as others have written them to the database."""
        async with self._db.read() as session:
            for old in instances:
                row = await session.get(InstanceRow, old.id)
                if row is not None:
                    self._keep(_instance(row))

    async def _assign(self, session: AsyncSession, row: InstanceRow, instance: Instance) -> None:
        owner = self._scopes.owner(Feature.PROFILES, instance.project)
        try:
            await queries.assign(session, row, owner, instance.profiles)
        except LookupError as error:
            raise NotFound(f'Requested profile "{error}" doesn\'t exist') from error

    def _keep(self, instance: Instance) -> None:
        self._instances[instance.project, instance.name] = instance


def _fill(row: InstanceRow, instance: Instance) -> None:
    row.project = instance.project
    row.name = instance.name
    row.architecture = instance.architecture
    row.ephemeral = instance.ephemeral
    row.stateful = instance.stateful
    row.description = instance.description
    row.last_used_at = instance.last_used_at
    row.config = dict(instance.config)
    row.devices = {name: dict(device) for name, device in instance.devices.items()}
    row.volume = instance.volume.stored()


def _instance(row: InstanceRow) -> Instance:
    profiles = [each.profile for each in row.profiles]
    return Instance(
        id=row.id,
        project=row.project,
        name=row.name,
        architecture=row.architecture,
        config=row.config,
        devices=row.devices,
        expanded_config=expand_config([each.config for each in profiles], row.config),
        expanded_devices=expand_devices([each.devices for each in profiles], row.devices),
        profiles=tuple(each.name for each in profiles),
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        ephemeral=row.ephemeral,
        stateful=row.stateful,
        description=row.description,
        volume=RootVolume.read(row.volume),
    )
