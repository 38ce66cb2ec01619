"""Profiles: made, changed, renamed, deleted; a change is applied to their users at once.

Source: LXD docs, "Profiles".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import UNSET
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy import profiles as built_in
from lxpy.api import profiles as api
from lxpy.db import profiles as queries
from lxpy.db.engine import Database
from lxpy.db.rows import ProfileRow
from lxpy.errors import Conflict, Failed, Forbidden, NotFound
from lxpy.events.lifecycle import Lifecycle, url
from lxpy.instances import devices, keys
from lxpy.instances.expand import merge_patch
from lxpy.instances.model import Profile
from lxpy.instances.names import check_profile_name

DEFAULT = "default"

Change = Callable[[str, str], Awaitable[None]]


class Profiles:
    """The profiles of this installation. `on_change(project, name)` hears of every change."""

    def __init__(self, db: Database, lifecycle: Lifecycle) -> None:
        self.on_change: Change = _nothing
        self._db = db
        self._lifecycle = lifecycle

    async def ensure_default(self, pool: str, network: str) -> None:
        """Make the built-in profiles of a new installation; a changed one stays as it is."""
        async with self._db.write() as session:
            if await queries.find(session, "default", DEFAULT) is not None:
                return
            for name in built_in.names():
                given = built_in.load(name, pool=pool, network=network)
                row = ProfileRow(project="default", name=name, description=given.description)
                row.config = dict(given.config)
                row.devices = {each: dict(device) for each, device in given.devices.items()}
                session.add(row)

    async def profiles(self, project: str, names: Sequence[str]) -> list[Profile]:
        """Return profiles in the order asked for. Raises NotFound naming the one that is missing,
        Conflict for one named twice.
        """
        if len(set(names)) != len(names):
            raise Conflict(f"A profile is named twice: {', '.join(names)}")
        found: list[Profile] = []
        async with self._db.read() as session:
            for name in names:
                row = await queries.find(session, project, name)
                if row is None:
                    raise NotFound(f'Requested profile "{name}" doesn\'t exist')
                found.append(Profile(row.name, row.config, row.devices, row.description))
        return found

    async def list(self, project: str) -> Sequence[api.Profile]:
        """Return the project's profiles by name."""
        async with self._db.read() as session:
            users = await queries.users(session, project)
            return [_profile(row, users) for row in await queries.all_of(session, project)]

    async def get(self, project: str, name: str) -> tuple[api.Profile, object]:
        """Return a profile and its writable part. Raises NotFound."""
        async with self._db.read() as session:
            row = await _find(session, project, name)
            users = await queries.users(session, project, row.id)
            return _profile(row, users), _writable(row)

    async def create(self, project: str, wish: api.ProfilesPost) -> None:
        """Make a profile. Raises BadRequest, InvalidConfig, Failed when its name is taken."""
        name = check_profile_name(wish.name)
        config, given = _checked(wish.config or {}, wish.devices or {})
        async with self._db.write() as session:
            if await queries.find(session, project, name) is not None:
                raise Failed(f'Error inserting "{name}" into database: The profile already exists')
            session.add(
                ProfileRow(
                    project=project,
                    name=name,
                    description=wish.description,
                    config=config,
                    devices=given,
                )  # fmt: skip
            )
        self._tell("profile-created", project, name)

    async def put(self, project: str, name: str, wish: api.ProfilePut) -> None:
        """Replace a profile's writable part. Raises NotFound, InvalidConfig; Failed when users of
        it could not be changed.
        """
        config, given = _checked(wish.config or {}, wish.devices or {})
        async with self._db.write() as session:
            row = await _find(session, project, name)
            row.description, row.config, row.devices = wish.description, config, given
        self._tell("profile-updated", project, name)
        await self.on_change(project, name)

    async def patch(self, project: str, name: str, wish: api.ProfilePatch) -> None:
        """Change what is given. Raises as `put`."""
        found, _ = await self.get(project, name)
        config = found.config
        if wish.config is not UNSET:
            config = merge_patch(found.config, wish.config)
        given = (
            found.devices if wish.devices is UNSET else {**found.devices, **(wish.devices or {})}
        )
        description = found.description if wish.description is UNSET else wish.description
        await self.put(
            project,
            name,
            api.ProfilePut(description=description, config=config, devices=given),
        )

    async def rename(self, project: str, name: str, new_name: str) -> None:
        """Rename a profile; its users keep it. Raises Forbidden, NotFound, Conflict."""
        if name == DEFAULT:
            raise Forbidden('The "default" profile cannot be renamed')
        check_profile_name(new_name)
        async with self._db.write() as session:
            row = await _find(session, project, name)
            if await queries.find(session, project, new_name) is not None:
                raise Conflict(f'Name "{new_name}" already in use')
            row.name = new_name
        context = {"old_name": name}
        self._lifecycle.emit("profile-renamed", f"/1.0/profiles/{new_name}", project, context)
        await self.on_change(project, name)

    async def delete(self, project: str, name: str) -> None:
        """Delete a profile that nobody uses. Raises Forbidden, NotFound, Failed."""
        if name == DEFAULT:
            raise Forbidden('The "default" profile cannot be deleted')
        async with self._db.write() as session:
            row = await _find(session, project, name)
            if users := await queries.users(session, project, row.id):
                names = ", ".join(instance for _, instance in users[:5])
                raise Failed(f"Profile is currently in use: by {names}; remove it from them first")
            await session.delete(row)
        self._tell("profile-deleted", project, name)

    def _tell(self, action: str, project: str, name: str) -> None:
        self._lifecycle.emit(action, f"/1.0/profiles/{name}", project)


async def _nothing(_project: str, _name: str) -> None:
    """Nobody wants to hear of changes."""


async def _find(session: AsyncSession, project: str, name: str) -> ProfileRow:
    row = await queries.find(session, project, name)
    if row is None:
        raise NotFound("Profile not found")
    return row


def _checked(
    config: Mapping[str, str], given: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return config and devices as they are stored. Raises InvalidConfig, NotSupported."""
    kept = {key: value for key, value in config.items() if value != ""}
    keys.validate(kept, profile=True)
    devices.validate(given)
    return kept, {name: dict(device) for name, device in given.items()}


def _writable(row: ProfileRow) -> object:
    return [row.config, row.description, row.devices]


def _profile(row: ProfileRow, users: Sequence[tuple[int, str]]) -> api.Profile:
    mine = (name for profile, name in users if profile == row.id)
    return api.Profile(
        name=row.name,
        description=row.description,
        config=row.config,
        devices=row.devices,
        used_by=[url(f"/1.0/instances/{name}", row.project) for name in mine],
    )
