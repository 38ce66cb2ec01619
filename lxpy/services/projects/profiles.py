"""Profiles: config and devices that instances share, and what a change means for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import quote

from msgspec import UNSET
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy import profiles as builtin
from lxpy.api import profiles as api
from lxpy.api.instances import Config, Devices
from lxpy.db import profiles as queries
from lxpy.db.engine import Database
from lxpy.db.rows import InstanceRow, ProfileRow
from lxpy.errors import BadRequest, Conflict, Failed, Forbidden, InvalidConfig, LxpyError, NotFound
from lxpy.events.lifecycle import Lifecycle, url
from lxpy.instances import devices, keys, names
from lxpy.instances.expand import expand_config, expand_devices, merge_patch, without_unset
from lxpy.instances.model import DEFAULT_PROJECT, Instance, Profile, root_device
from lxpy.services.projects.scopes import Feature, Scopes
from lxpy.threads import in_thread

_DEFAULT = "default"
#: raises PreconditionFailed when the writable part it is shown is not the one the caller knows
Check = Callable[[object], None]
Change = Callable[[ProfileRow], api.ProfilePut]


class Profiles:
    """Lists and changes profiles. `on_change` applies one to its users: (project, name)."""

    def __init__(self, db: Database, scopes: Scopes, lifecycle: Lifecycle) -> None:
        self._db = db
        self._scopes = scopes
        self._lifecycle = lifecycle
        self._changing = asyncio.Lock()
        self.on_change: Callable[[str, str], Awaitable[None]] | None = None
        #: raises when a project does not allow a profile, or what its users become
        self.check: Callable[[str, Profile, list[Instance]], Awaitable[None]] | None = None

    async def ensure_default(self, pool: str, network: str) -> None:
        """Make the built-in profiles when there is no "default" yet: at the first start."""
        async with self._db.read() as session:
            if await queries.find(session, DEFAULT_PROJECT, _DEFAULT) is not None:
                return
        made = await in_thread(_builtin, pool, network)
        async with self._db.write() as session:
            present = {each.name for each in await queries.all_of(session, DEFAULT_PROJECT)}
            session.add_all(
                _row(DEFAULT_PROJECT, each) for each in made if each.name not in present
            )

    async def profiles(self, project: str, wanted: Sequence[str]) -> list[Profile]:
        """Return profiles by name, in the order given, for an instance of a project.

        Raises NotFound for an unknown project or profile, BadRequest for a double.
        """
        self._scopes.get(project)
        for number, name in enumerate(wanted):
            if name in wanted[:number]:
                raise BadRequest(f'Duplicate profile found in request: "{name}" is given twice')
        if not wanted:
            return []
        owner = self._scopes.owner(Feature.PROFILES, project)
        async with self._db.read() as session:
            rows = await queries.named(session, owner, wanted)
        missing = next((name for name in wanted if name not in rows), None)
        if missing is not None:
            raise NotFound(f'Requested profile "{missing}" doesn\'t exist')
        return [_profile(rows[name]) for name in wanted]

    async def list(self, project: str) -> list[api.Profile]:
        """Return the project's profiles by name."""
        async with self._db.read() as session:
            rows = await queries.all_of(session, project)
            users = await queries.users(session)
        return [_object(row, users.get(row.id, [])) for row in rows]

    async def get(self, project: str, name: str) -> tuple[api.Profile, object]:
        """Return a profile and its writable part. Raises NotFound."""
        async with self._db.read() as session:
            row = await _find(session, project, name)
            users = await queries.users(session)
        return _object(row, users.get(row.id, [])), _writable(row)

    async def create(self, project: str, wish: api.ProfilesPost) -> None:
        """Make a profile. Raises BadRequest, InvalidConfig, Failed when its name is taken."""
        self._scopes.get(project)
        name = names.check_profile_name(wish.name)
        config, given = _checked(wish)
        if self.check is not None:
            await self.check(project, Profile(name, config, given), [])
        async with self._changing, self._db.write() as session:
            if await queries.find(session, project, name) is not None:
                raise Failed(
                    f'Error inserting "{name}" into database: The profile already exists: '
                    "use another name, or change that profile"
                )
            session.add(
                ProfileRow(
                    project=project,
                    name=name,
                    description=wish.description,
                    config=config,
                    devices=given,
                )
            )
        self._tell("profile-created", project, name)

    async def put(self, project: str, name: str, wish: api.ProfilePut, check: Check) -> None:
        """Replace a profile's writable part and apply it to its users.

        Raises NotFound, PreconditionFailed, InvalidConfig; BadRequest when a user could not live
        with it; Failed naming the users that did not take the change, which is kept.
        """
        await self._change(project, name, lambda _: wish, check)

    async def patch(self, project: str, name: str, wish: api.ProfilePatch, check: Check) -> None:
        """Change what is given; otherwise like `put`."""
        await self._change(project, name, lambda row: _patched(row, wish), check)

    async def rename(self, project: str, name: str, new_name: str) -> None:
        """Give a profile another name; its users keep it. Raises NotFound, Forbidden, Conflict."""
        if name == _DEFAULT:
            raise Forbidden('The "default" profile cannot be renamed')
        names.check_profile_name(new_name)
        async with self._changing, self._db.write() as session:
            row = await _find(session, project, name)
            if await queries.find(session, project, new_name) is not None:
                raise Conflict(f'Name "{new_name}" already in use')
            row.name = new_name
        if self.on_change is not None:
            await self.on_change(project, name)  # users are still known by the old name
        self._tell("profile-renamed", project, new_name, {"old_name": name})

    async def delete(self, project: str, name: str) -> None:
        """Remove a profile. Raises NotFound, Forbidden, Failed when instances use it."""
        if name == _DEFAULT:
            raise Forbidden('The "default" profile cannot be deleted')
        async with self._changing, self._db.write() as session:
            row = await _find(session, project, name)
            users = await queries.instances_with(session, row.id)
            if users:
                raise Failed(
                    f'Profile is currently in use: remove "{name}" from '
                    f"{_some([each.name for each in users])} first"
                )
            await session.delete(row)
        self._tell("profile-deleted", project, name)

    async def _change(self, project: str, name: str, change: Change, check: Check) -> None:
        async with self._changing, self._db.write() as session:
            row = await _find(session, project, name)
            check(_writable(row))
            wish = change(row)
            config, given = _checked(wish)
            users = await queries.instances_with(session, row.id)
            for user in users:
                _check_user(user, row.id, config, given)
            if self.check is not None:
                changed = [_as_user(each, row.id, config, given) for each in users]
                await self.check(project, Profile(name, config, given), changed)
            row.config, row.devices, row.description = config, given, wish.description
        self._tell("profile-updated", project, name)
        if self.on_change is not None:
            await self.on_change(project, name)

    def _tell(
        self, action: str, project: str, name: str, context: Mapping[str, str] | None = None
    ) -> None:
        path = f"/1.0/profiles/{quote(name, safe='')}"
        self._lifecycle.emit(action, path, project, context)


def _builtin(pool: str, network: str) -> list[Profile]:
    return [builtin.load(name, pool=pool, network=network) for name in builtin.names()]


async def _find(session: AsyncSession, project: str, name: str) -> ProfileRow:
    row = await queries.find(session, project, name)
    if row is None:
        raise NotFound("Profile not found")
    return row


def _row(project: str, profile: Profile) -> ProfileRow:
    return ProfileRow(
        project=project,
        name=profile.name,
        description=profile.description,
        config=dict(profile.config),
        devices={name: dict(device) for name, device in profile.devices.items()},
    )


def _profile(row: ProfileRow) -> Profile:
    return Profile(row.name, row.config, row.devices, row.description)


def _object(row: ProfileRow, users: Sequence[tuple[str, str]]) -> api.Profile:
    return api.Profile(
        config=row.config,
        description=row.description,
        devices=row.devices,
        name=row.name,
        used_by=[url(f"/1.0/instances/{name}", project) for project, name in users],
    )


def _writable(row: ProfileRow) -> list[object]:
    return [row.config, row.description, row.devices]


def _checked(wish: api.ProfilePut) -> tuple[Config, Devices]:
    """Return config without unset keys, and devices. Raises InvalidConfig, NotSupported."""
    keys.validate(wish.config or {}, profile=True)
    given = without_unset(wish.devices)
    devices.validate(given)
    return {key: value for key, value in (wish.config or {}).items() if value != ""}, given


def _patched(row: ProfileRow, wish: api.ProfilePatch) -> api.ProfilePut:
    given = {} if wish.devices is UNSET else (wish.devices or {})
    return api.ProfilePut(
        config=merge_patch(row.config, None if wish.config is UNSET else wish.config),
        description=row.description if wish.description is UNSET else wish.description,
        devices={**row.devices, **given},
    )


def _check_user(user: InstanceRow, profile_id: int, config: Config, given: Devices) -> None:
    """Raise BadRequest when an instance could not be with the changed profile."""
    used = [each.profile for each in user.profiles]
    before = expand_devices([each.devices for each in used], user.devices)
    after = expand_devices(
        [given if each.id == profile_id else each.devices for each in used], user.devices
    )
    together = expand_config(
        [config if each.id == profile_id else each.config for each in used], user.config
    )
    try:
        keys.validate_expanded(together)
        devices.validate(after, expanded=True, instance=user.name)
        if root_device(before)[1]["pool"] != root_device(after)[1]["pool"]:
            raise InvalidConfig("its root disk cannot go to another storage pool by this")
    except LxpyError as error:
        raise BadRequest(
            f'Instance "{user.name}" uses this profile and cannot be changed so: {error}'
        ) from error


def _as_user(user: InstanceRow, profile_id: int, config: Config, given: Devices) -> Instance:
    """Return an instance as it becomes with the changed profile."""
    used = [each.profile for each in user.profiles]
    return Instance(
        id=user.id, project=user.project, name=user.name, architecture=user.architecture,
        config=user.config, devices=user.devices, profiles=tuple(each.name for each in used),
        created_at=user.created_at,
        expanded_config=expand_config(
            [config if each.id == profile_id else each.config for each in used], user.config
        ),
        expanded_devices=expand_devices(
            [given if each.id == profile_id else each.devices for each in used], user.devices
        ),
    )  # fmt: skip


def _some(found: Sequence[str]) -> str:
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return ", ".join(f'"{each}"' for each in found[:5]) + more
