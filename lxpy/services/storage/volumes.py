"""Volumes: those of instances and images are looked at, custom ones made, changed, deleted.

Source: LXD docs, "Storage volumes".
"""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import UNSET

from lxpy.api import storage as api
from lxpy.db import intents
from lxpy.db import volumes as queries
from lxpy.db.engine import Database
from lxpy.db.rows import VolumeRow
from lxpy.errors import BadRequest, Conflict
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.expand import merge_patch
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.projects.allowances import Allowances
from lxpy.services.storage import views
from lxpy.services.storage.disks import Disks
from lxpy.services.storage.files import Record, VolumeFiles
from lxpy.services.storage.places import (
    Place,
    check_custom,
    check_name,
    check_options,
    check_type,
    custom,
    defaults,
    find,
    given,
    missing,
    place_of,
    stored,
)
from lxpy.services.storage.pools import Pools
from lxpy.services.storage.roots import RootVolumes
from lxpy.services.storage.users import VolumeUsers
from lxpy.storage import ContentType, Pool, Volume, VolumeType
from lxpy.units import is_true

#: of a block volume that is given none
_BLOCK_SIZE = "10GiB"

#: raises PreconditionFailed when the writable part it is shown is not the one the caller knows
Check = Callable[[object], None]
Change = Callable[[Mapping[str, str], str], api.VolumePut]


class Volumes:
    """The volumes of all pools."""

    def __init__(
        self,
        *,
        db: Database,
        allowances: Allowances,
        pools: Pools,
        store: InstanceStore,
        roots: RootVolumes,
        locks: Locks,
        files: VolumeFiles,
        users: VolumeUsers,
        disks: Disks,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._allowances = allowances
        self._pools = pools
        self._store = store
        self._roots = roots
        self._locks = locks
        self._files = files
        self._users = users
        self._disks = disks
        self._lifecycle = lifecycle
        self.on_removed: Callable[[VolumeRow], Awaitable[None]] = _nothing

    # Looking

    async def list(
        self, pool_name: str, project: str | None, owner: str | None
    ) -> Sequence[api.Volume]:
        """Return a pool's volumes and their snapshots in a project (None: in all).

        `owner` is the project whose custom volumes count in it. Raises NotFound, Unavailable.
        """
        pool = await self._pools.pool(pool_name)
        found: builtins.list[api.Volume] = []
        for instance in self._store.listed(project):
            if views.root_pool(instance) == pool_name:
                found += views.of_instance(instance, self._store.snapshots.of(instance.id))
        async with self._db.read() as session:
            rows = [
                row
                for row in await queries.everything(session)
                if row.pool.name == pool_name and owner in (None, row.project)
            ]
            users = await self._users.urls(session)
            snapshots = await queries.all_snapshots(session) if rows else {}
        for row in rows:
            found.append(views.of_row(row, users))
            found += [views.listed_snapshot(row, each, users) for each in snapshots.get(row.id, ())]
        return [*found, *map(views.of_image, await self._pools.storage.images(pool))]

    async def get(self, place: Place) -> tuple[api.Volume, object]:
        """Return one volume and its writable part. Raises NotFound, BadRequest, Unavailable."""
        check_type(place.kind)
        found = await self._custom(place) if place.kind == VolumeType.CUSTOM else None
        if found is None:
            for each in await self.list(place.pool, place.project, place.project):
                if (each.type, each.name) == (place.kind, place.name):
                    found = each
        if found is None:
            raise missing()
        return found, views.writable(found)

    async def _custom(self, place: Place) -> api.Volume:
        await self._pools.pool(place.pool)
        async with self._db.read() as session:
            return views.of_row(await find(session, place), await self._users.urls(session))

    async def usage(self, place: Place) -> api.Space | None:
        """Return the bytes a volume takes, None where that is not known without counting.

        Raises NotFound, BadRequest.
        """
        await self.get(place)
        pool = await self._pools.pool(place.pool)
        used = await self._pools.storage.usage(pool, await self._stored(place))
        return None if used is None else api.Space(used=used.used, total=used.total)

    async def _stored(self, place: Place) -> Volume:
        """Return an existing volume of any type as storage knows it."""
        if place.kind == VolumeType.CONTAINER:
            return volume_of(self._store.get(place.project, place.name))
        if place.kind == VolumeType.IMAGE:
            return Volume(place.name, VolumeType.IMAGE)
        async with self._db.read() as session:
            return stored(await find(session, place))

    # Custom volumes: making, changing, deleting

    async def create(self, pool_name: str, project: str, wish: api.VolumesPost) -> None:
        """Make an empty custom volume. Raises NotFound, BadRequest, Conflict, InvalidConfig."""
        check_custom(wish.type or VolumeType.CUSTOM)
        place = custom(pool_name, check_name(wish.name), project)
        content = _content(wish.content_type)
        pool = await self._pools.pool(pool_name)
        config = self._complete(pool, content, {**defaults(pool, content), **given(wish.config)})
        await self.check_allowed(place, config)
        record = Record(place, content, config, wish.description)
        async with self._locks.hold(*place.key):
            await self.check_free(place)
            async with self._files.making(record) as intent:
                await self._pools.storage.create_volume(pool, record.volume)
                async with self._files.or_removed(pool, record.volume):
                    await self._files.insert(record, ends=intent)
        self._tell("created", place)

    async def put(self, place: Place, wish: api.VolumePut, check: Check) -> None:
        """Replace a volume's writable part, or restore a snapshot of a custom one.

        Raises NotFound, BadRequest, PreconditionFailed, InvalidConfig.
        """
        if wish.restore:
            await self._restore(place, wish.restore)
        else:
            await self._change(place, lambda config, description: wish, check)

    async def patch(self, place: Place, wish: api.VolumePatch, check: Check) -> None:
        """Change what is given. Raises as `put`."""

        def change(config: Mapping[str, str], description: str) -> api.VolumePut:
            return api.VolumePut(
                config=merge_patch(config, None if wish.config is UNSET else wish.config),
                description=description if wish.description is UNSET else wish.description,
            )

        await self._change(place, change, check)

    async def rename(self, place: Place, wish: api.VolumePost) -> None:
        """Rename a custom volume that no running instance has; devices that show it follow.

        Raises NotFound, BadRequest, Conflict.
        """
        check_custom(place.kind)
        pool, new = await self._pools.pool(place.pool), place.named(check_name(wish.name))
        if place == new:
            raise Conflict(f'Volume by that name already exists: "{place.name}"')
        async with self._users.renaming(place, new):
            row = await self._at_rest(pool, place, "A volume cannot be renamed")
            self._users.check_not_own(place)
            await self.check_free(new)
            await self._files.rename(pool, row, place, new, self._users.follow)
        self._tell("renamed", new, {"old_name": place.name})

    async def delete(self, place: Place) -> None:
        """Delete a custom volume that nobody uses, and its snapshots; or an unpacked image.

        That is unpacked anew for the next instance. Raises NotFound, BadRequest.
        """
        if place.kind == VolumeType.IMAGE:
            await self.get(place)
            pool = await self._pools.pool(place.pool)
            await self._pools.storage.delete_image(pool, place.name)
            self._tell("deleted", place)
            return
        check_custom(place.kind)
        pool = await self._pools.pool(place.pool)
        async with self._locks.hold(*place.key):
            row = await self.unused(pool, place, "A volume cannot be deleted")
            await self._files.delete(pool, row, place)
            await self.on_removed(row)
        self._tell("deleted", place)

    async def check_free(self, place: Place) -> None:
        """Raise Conflict when there is such a volume."""
        async with self._db.read() as session:
            if await queries.find(session, place.pool, place.project, place.name) is not None:
                raise Conflict(f'Volume by that name already exists: "{place.name}"')

    async def check_allowed(self, place: Place, config: Mapping[str, str]) -> None:
        """Raise Failed when the project may not have one more of such a size."""
        size = config.get("size", "")
        await self._allowances.check_volume(place.project, place.name, size, "creation")

    async def unused(self, pool: Pool, place: Place, what: str) -> VolumeRow:
        """Return the row of a volume, its lock held. Raises NotFound, BadRequest if it is used."""
        async with self._db.read() as session:
            await find(session, place)
            await self._users.check_unused(session, place)
        return await self._at_rest(pool, place, what)

    async def _at_rest(self, pool: Pool, place: Place, what: str) -> VolumeRow:
        """Return the row of a volume, its lock held. Raises NotFound, BadRequest if it is read."""
        async with self._db.read() as session:
            row = await find(session, place)
        await self._users.check_at_rest(pool, stored(row), what)
        for name in await self._pools.storage.snapshots(pool, stored(row)):
            await self._users.check_at_rest(pool, stored(row).at(name), what)
        return row

    async def _restore(self, place: Place, snapshot: str) -> None:
        check_custom(place.kind)
        pool = await self._pools.pool(place.pool)
        async with self._locks.hold(*place.key):
            async with self._db.read() as session:
                row = await find(session, place)
                known = await queries.find_snapshot(session, row.id, snapshot)
            if known is None:
                raise missing()
            await self._users.check_at_rest(pool, stored(row), "A snapshot cannot be restored")
            await self._files.restore(pool, row, place, snapshot)
        self._tell("restored", place, {"snapshot": snapshot})

    async def _change(self, place: Place, change: Change, check: Check) -> None:
        check_type(place.kind)
        if place.kind != VolumeType.CUSTOM:
            await self._write_on(place, change, check)
            return
        pool = await self._pools.pool(place.pool)
        async with self._locks.hold(*place.key):
            async with self._db.read() as session:
                row = await find(session, place)
            check(views.writable(views.of_row(row, {})))
            wish = change(row.config, row.description)
            config = await self._settled(pool, row, given(wish.config))
            size = config.get("size", "")
            await self._allowances.check_volume(place.project, place.name, size, "update")
            intent = await self._files.resize(pool, place, row, config)
            try:
                if intent:
                    await self._disks.resized(pool, stored(row))
                await self._write(place, config, wish.description, intent)
            except BaseException:
                if intent:
                    await self._files.resize_back(pool, row, intent)
                raise
        self._tell("updated", place)

    async def _write(
        self, place: Place, config: dict[str, str], description: str, intent: str
    ) -> None:
        async with self._db.write() as session:
            row = await find(session, place)
            row.config, row.description = config, description
            if intent:
                await intents.end(session, intent)

    async def _write_on(self, place: Place, change: Change, check: Check) -> None:
        """Change what is written on the volume of an instance."""
        async with self._roots.locked(place):
            shown, writable = await self.get(place)
            check(writable)
            wish = change(shown.config, shown.description)
            if place.kind == VolumeType.IMAGE:
                if (given(wish.config), wish.description) != (shown.config, shown.description):
                    check_custom(place.kind)
                return
            changed = await self._roots.write(place, shown, wish)
        if changed:
            self._tell("updated", place)

    def _complete(self, pool: Pool, content: ContentType, config: dict[str, str]) -> dict[str, str]:
        """Return the config of a volume, checked, with the size that a disk must have."""
        if content is ContentType.BLOCK:
            config.setdefault("size", _BLOCK_SIZE)
        check_options(content, config)
        self._pools.storage.validate_volume(pool, config)
        return config

    async def _settled(self, pool: Pool, row: VolumeRow, config: dict[str, str]) -> dict[str, str]:
        """Return a volume's new config. Raises BadRequest, InvalidConfig."""
        content = ContentType(row.content_type)
        if content is not ContentType.FILESYSTEM and row.config.get("size"):
            config.setdefault("size", row.config["size"])
        if content is ContentType.ISO and config.get("size") != row.config.get("size"):
            raise BadRequest(f'The size of ISO volume "{row.name}" is that of its file')
        for key in ("security.shifted", "security.unmapped"):
            if config.get(key) != row.config.get(key):
                await self._users.check_at_rest(pool, stored(row), f'"{key}" cannot be changed')
        writers = sorted(self._disks.writers(place_of(row)))
        if len(writers) > 1 and not is_true(config.get("security.shared")):
            raise BadRequest(
                f'Volume "{row.name}" is written to by {", ".join(writers)}: detach it from all '
                "but one of them before security.shared is unset"
            )
        return self._complete(pool, content, config)

    def _tell(self, action: str, place: Place, context: Mapping[str, str] | None = None) -> None:
        name = f"storage-volume-{action}"
        self._lifecycle.emit(name, place.path, place.project, context)


def _content(text: str) -> ContentType:
    """Return the content type of a new, empty volume. Raises BadRequest."""
    content = text or ContentType.FILESYSTEM
    if content == ContentType.ISO:
        raise BadRequest("An ISO volume cannot be empty: import a file (type iso) instead")
    if content not in list(ContentType):
        known = ", ".join(ContentType)
        raise BadRequest(f'Invalid content type "{text}": use one of {known}')
    return ContentType(content)


async def _nothing(_: VolumeRow) -> None:
    """Do nothing with a volume that is gone."""
