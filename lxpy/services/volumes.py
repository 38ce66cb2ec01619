"""Volumes: those of instances and images are looked at, custom ones made, changed, deleted.

Source: LXD docs, "Storage volumes".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from msgspec import UNSET
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.api import storage as api
from lxpy.db import pools as pool_queries
from lxpy.db import profiles as profile_queries
from lxpy.db import volumes as queries
from lxpy.db.base import now
from lxpy.db.engine import Database
from lxpy.db.rows import VolumeRow
from lxpy.errors import BadRequest, Conflict, Failed, NotFound, NotSupported
from lxpy.events.lifecycle import Lifecycle, url
from lxpy.instances.devices import disk
from lxpy.instances.expand import merge_patch
from lxpy.instances.model import DEFAULT_PROJECT, Instance
from lxpy.services.locks import Locks
from lxpy.services.storage import Pools
from lxpy.services.store import InstanceStore
from lxpy.storage import Pool, Volume, VolumeType

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NEVER = datetime(1, 1, 1, tzinfo=UTC)
_DEFAULTS = "volume."

#: raises PreconditionFailed when the writable part it is shown is not the one the caller knows
Check = Callable[[object], None]
Change = Callable[[VolumeRow], api.VolumePut]
Urls = list[str]
#: URLs of who uses each custom volume, by project, pool and name
Users = Mapping[tuple[str, str, str], Urls]


@dataclass(frozen=True, slots=True)
class Place:
    """Which volume a request is about; `kind` is a VolumeType, as clients write it."""

    pool: str
    kind: str
    name: str
    project: str = DEFAULT_PROJECT

    @property
    def volume(self) -> Volume:
        """The volume as storage knows it. Raises BadRequest for an unknown type."""
        _check_type(self.kind)
        return Volume(self.name, VolumeType(self.kind), self.project)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The name of its lock."""
        return ("volume", self.pool, self.project, self.name)


class Volumes:
    """The volumes of all pools."""

    def __init__(
        self, db: Database, pools: Pools, store: InstanceStore, locks: Locks, lifecycle: Lifecycle
    ) -> None:
        self._db = db
        self._pools = pools
        self._store = store
        self._locks = locks
        self._lifecycle = lifecycle

    async def list(self, pool_name: str, project: str | None) -> Sequence[api.Volume]:
        """Return a pool's volumes in a project (None: in all). Raises NotFound, Unavailable."""
        pool = await self._pools.pool(pool_name)
        found = [
            _of_instance(each)
            for each in self._store.listed(project)
            if _root_pool(each) == pool_name
        ]
        async with self._db.read() as session:
            rows = [
                row
                for row in await queries.everything(session)
                if row.pool.name == pool_name and project in (None, row.project)
            ]
            users = await self._users(session)
        found += [_of_row(row, users) for row in rows]
        return [*found, *map(_of_image, await self._pools.storage.images(pool))]

    async def get(self, place: Place) -> tuple[api.Volume, object]:
        """Return one volume and its writable part. Raises NotFound, BadRequest, Unavailable."""
        _check_type(place.kind)
        for each in await self.list(place.pool, place.project):
            if (each.type, each.name) == (place.kind, place.name):
                return each, _writable(each)
        raise _missing()

    async def create(self, pool_name: str, project: str, wish: api.VolumesPost) -> None:
        """Make an empty custom volume.

        Raises NotFound, BadRequest, Conflict, InvalidConfig; NotSupported for what is not a plain
        directory of files.
        """
        place = Place(pool_name, VolumeType.CUSTOM, _check_wish(project, wish), project)
        pool = await self._pools.pool(pool_name)
        config = {**_defaults(pool), **_set(wish.config)}
        self._pools.storage.validate_volume(pool, config)
        async with self._locks.hold(*place.key):
            await self._check_free(place)
            await self._pools.storage.create_volume(pool, place.volume)
            try:
                await self._insert(place, config, wish.description)
            except BaseException:
                await self._pools.storage.delete_volume(pool, place.volume)
                raise
        self._tell("storage-volume-created", place)

    async def put(self, place: Place, wish: api.VolumePut, check: Check) -> None:
        """Replace a custom volume's writable part.

        Raises NotFound, BadRequest, PreconditionFailed, InvalidConfig.
        """
        if wish.restore:
            raise NotFound(f'Snapshot "{wish.restore}" of volume "{place.name}" not found')
        await self._change(place, lambda _: wish, check)

    async def patch(self, place: Place, wish: api.VolumePatch, check: Check) -> None:
        """Change what is given. Raises as `put`."""
        await self._change(place, lambda row: _patched(row, wish), check)

    async def rename(self, place: Place, wish: api.VolumePost) -> None:
        """Rename a custom volume that nobody uses.

        Raises NotFound, BadRequest, Conflict; NotSupported for a move to another pool.
        """
        _check_custom(place.kind)
        elsewhere = wish.pool not in ("", place.pool) or wish.project not in ("", place.project)
        if wish.migration or elsewhere:
            raise NotSupported(
                "Moving storage volumes to another pool, project or server is not in this version "
                "of lxpy: make a new one and copy the files"
            )
        pool, new = await self._pools.pool(place.pool), replace(place, name=_check_name(wish.name))
        first, second = sorted((place.key, new.key))
        async with self._locks.hold(*first), self._locks.hold(*second):
            await self._check_unused(place)
            await self._check_free(new)
            await self._pools.storage.rename(pool, place.volume, new.name)
            try:
                async with self._db.write() as session:
                    (await _find(session, place)).name = new.name
            except BaseException:
                await self._pools.storage.rename(pool, new.volume, place.name)
                raise
        self._tell("storage-volume-renamed", new, {"old_name": place.name})

    async def delete(self, place: Place) -> None:
        """Delete a custom volume that nobody uses. Raises NotFound, BadRequest."""
        _check_custom(place.kind)
        pool = await self._pools.pool(place.pool)
        async with self._locks.hold(*place.key):
            await self._check_unused(place)
            # The files first: a crash in between leaves a row, which can be deleted again.
            await self._pools.storage.delete_volume(pool, place.volume)
            async with self._db.write() as session:
                await session.delete(await _find(session, place))
        self._tell("storage-volume-deleted", place)

    async def usage(self, place: Place) -> api.Space:
        """Return the bytes a volume takes. Raises NotFound; Failed where the pool cannot tell."""
        await self.get(place)
        pool = await self._pools.pool(place.pool)
        used = await self._pools.storage.usage(pool, place.volume)
        if used is None:
            raise Failed(
                f'Not supported: a storage pool of driver "{pool.driver}" does not know how much a '
                "volume takes"
            )
        return api.Space(used=used.used, total=used.total)

    async def _insert(self, place: Place, config: Mapping[str, str], description: str) -> None:
        async with self._db.write() as session:
            pool = await pool_queries.find(session, place.pool)
            if pool is None:
                raise NotFound("Storage pool not found")
            row = VolumeRow(pool_id=pool.id, project=place.project, name=place.name)
            row.config, row.description, row.created_at = dict(config), description, now()
            session.add(row)

    async def _change(self, place: Place, change: Change, check: Check) -> None:
        _check_custom(place.kind)
        pool = await self._pools.pool(place.pool)
        async with self._locks.hold(*place.key), self._db.write() as session:
            row = await _find(session, place)
            check(_writable(_of_row(row, {})))
            wish = change(row)
            config = _set(wish.config)
            self._pools.storage.validate_volume(pool, config)
            row.config, row.description = config, wish.description
        self._tell("storage-volume-updated", place)

    async def _check_free(self, place: Place) -> None:
        """Raise Conflict when there is such a volume."""
        async with self._db.read() as session:
            if await queries.find(session, place.pool, place.project, place.name) is not None:
                raise Conflict(f'Volume by that name already exists: "{place.name}"')

    async def _check_unused(self, place: Place) -> None:
        """Raise NotFound, or BadRequest when somebody uses the volume."""
        async with self._db.read() as session:
            await _find(session, place)
            users = await self._users(session)
        if found := users.get((place.project, place.pool, place.name)):
            raise BadRequest(
                f"The storage volume is still in use: remove it from {', '.join(found[:5])} first"
            )

    async def _users(self, session: AsyncSession) -> Users:
        users: dict[tuple[str, str, str], Urls] = {}

        def note(path: str, project: str, devices: Mapping[str, Mapping[str, str]]) -> None:
            for found in filter(None, map(disk.volume, devices.values())):
                users.setdefault((project, *found), []).append(url(path, project))

        for each in self._store.listed():
            note(f"/1.0/instances/{each.name}", each.project, each.expanded_devices)
        for row in await profile_queries.everything(session):
            note(f"/1.0/profiles/{row.name}", row.project, row.devices)
        return users

    def _tell(self, action: str, place: Place, context: Mapping[str, str] | None = None) -> None:
        path = f"/1.0/storage-pools/{place.pool}/volumes/custom/{place.name}"
        self._lifecycle.emit(action, path, place.project, context)


def _writable(volume: api.Volume) -> list[object]:
    return [volume.name, volume.type, volume.config, volume.description]


def _missing() -> NotFound:
    return NotFound("Storage pool volume not found")


async def _find(session: AsyncSession, place: Place) -> VolumeRow:
    row = await queries.find(session, place.pool, place.project, place.name)
    if row is None:
        raise _missing()
    return row


def _check_type(kind: str) -> None:
    if kind not in list(VolumeType):
        raise BadRequest(
            f'Invalid storage volume type "{kind}": use one of {", ".join(VolumeType)}'
        )


def _check_custom(kind: str) -> None:
    _check_type(kind)
    if kind != VolumeType.CUSTOM:
        raise BadRequest(
            f'Storage volumes of type "{kind}" cannot be changed: change the instance or image'
        )


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f'Invalid storage volume name "{name[:80]}": use 1 to 63 letters, digits, ".", "_", "-"'
        )
    return name


def _check_wish(project: str, wish: api.VolumesPost) -> str:
    """Return the name of a volume that can be made. Raises NotFound, BadRequest, NotSupported."""
    if project != DEFAULT_PROJECT:
        raise NotFound("Project not found")
    _check_custom(wish.type or VolumeType.CUSTOM)
    if wish.content_type not in ("", "filesystem"):
        raise NotSupported(
            f'Storage volumes of content type "{wish.content_type}" are not in this version of '
            'lxpy: use "filesystem"'
        )
    if wish.source is not None and wish.source.type not in ("", "none"):
        raise NotSupported(
            "Copying storage volumes is not in this version of lxpy: make a new one and copy the "
            "files"
        )
    return _check_name(wish.name)


def _set(config: Mapping[str, str] | None) -> dict[str, str]:
    return {key: value for key, value in (config or {}).items() if value != ""}


def _defaults(pool: Pool) -> dict[str, str]:
    """Return what the pool's config gives its volumes."""
    return {
        key.removeprefix(_DEFAULTS): value
        for key, value in pool.config.items()
        if key.startswith(_DEFAULTS)
    }


def _patched(row: VolumeRow, wish: api.VolumePatch) -> api.VolumePut:
    return api.VolumePut(
        config=merge_patch(row.config, None if wish.config is UNSET else wish.config),
        description=row.description if wish.description is UNSET else wish.description,
    )


def _of_instance(instance: Instance) -> api.Volume:
    return api.Volume(
        name=instance.name,
        type=VolumeType.CONTAINER,
        config={},
        description="",
        used_by=[url(f"/1.0/instances/{instance.name}", instance.project)],
        created_at=instance.created_at,
        project=instance.project,
    )


def _of_image(fingerprint: str) -> api.Volume:
    return api.Volume(
        name=fingerprint,
        type=VolumeType.IMAGE,
        config={},
        description="",
        used_by=[f"/1.0/images/{fingerprint}"],
        created_at=_NEVER,
    )


def _of_row(row: VolumeRow, users: Users) -> api.Volume:
    return api.Volume(
        name=row.name,
        type=VolumeType.CUSTOM,
        config=row.config,
        description=row.description,
        used_by=users.get((row.project, row.pool.name, row.name), []),
        created_at=row.created_at,
        content_type=row.content_type,
        project=row.project,
    )


def _root_pool(instance: Instance) -> str:
    roots = (each for each in instance.expanded_devices.values() if disk.is_root(each))
    return next((each.get("pool", "") for each in roots), "")
