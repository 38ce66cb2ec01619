"""Storage pools: made, looked at, changed, deleted; where instances and images lie.

Source: LXD docs, "Storage pools".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

import structlog
from msgspec import UNSET

from lxpy.api import storage as api
from lxpy.db import intents
from lxpy.db import pools as queries
from lxpy.db import profiles as profile_queries
from lxpy.db import volumes as volume_queries
from lxpy.db.engine import Database
from lxpy.db.rows import PoolRow
from lxpy.errors import BadRequest, Conflict, LxpyError, NotFound, Unavailable
from lxpy.events.lifecycle import Lifecycle, url
from lxpy.instances.expand import merge_patch
from lxpy.instances.model import DEFAULT_PROJECT
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Intent, Journal
from lxpy.services.locks import Locks
from lxpy.services.server.warnings import POOL, Trouble
from lxpy.storage import Pool, StoragePools

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
#: decided when a pool is made
_FIXED = ("source", "volatile.initial_source")
#: kinds of intents
_CREATION, _DELETION = "pool-create", "pool-delete"

Urls = list[str]
#: raises PreconditionFailed when the writable part it is shown is not the one the caller knows
Check = Callable[[object], None]
Change = Callable[[Pool], api.PoolPut]

_log = structlog.get_logger()


class Pools:
    """The storage pools of this installation; `storage` is what works on their files.

    `deleting` is around the deletion of one.
    """

    def __init__(
        self, db: Database, root: Path, store: InstanceStore, locks: Locks, lifecycle: Lifecycle
    ) -> None:
        self.storage = StoragePools(root)
        self._db = db
        self._journal = Journal(db)
        self._store = store
        self._locks = locks
        self._lifecycle = lifecycle
        self.deleting: Callable[[Pool], AbstractAsyncContextManager[None]] = lambda _: nullcontext()
        self._pools: dict[str, Pool] = {}
        self._descriptions: dict[str, str] = {}
        self._broken: dict[str, str] = {}

    async def ensure_default(self, name: str) -> None:
        """Make the pool of a new installation, on a plain directory below its own."""
        async with self._db.read() as session:
            if await queries.everything(session):
                return
        try:
            await self.create(api.PoolsPost(name=name, driver="dir"))
        except (LxpyError, OSError) as error:
            # The daemon starts all the same; `start` finds out again why, and tells.
            _log.error("default storage pool not made", pool=name, error=str(error))
            pool = self.storage.pool(name, "dir", self.storage.fill(name, "dir", {}))
            await self._insert(pool, "")

    async def start(self) -> None:
        """Make every pool usable; one that cannot be is told of, and keeps nobody else back."""
        async with self._db.read() as session:
            rows = await queries.everything(session)
            self._pools = {row.name: self._of_row(row) for row in rows}
            self._descriptions = {row.name: row.description for row in rows}
        for pool in self._pools.values():
            try:
                await self.storage.start(pool)
            except (LxpyError, OSError) as error:
                _log.warning("storage pool unavailable", pool=pool.name, error=str(error))
                self._broken[pool.name] = str(error)

    def troubles(self) -> Iterable[Trouble]:
        """Return which pools cannot be used, and why."""
        for name, text in self._broken.items():
            yield Trouble(POOL, text, entity_url=f"/1.0/storage-pools/{name}")

    async def stop(self) -> None:
        """Let go of every pool, as no instance runs any more: nothing stays mounted."""
        for pool in self._pools.values():
            if pool.name in self._broken:
                continue
            try:
                await self.storage.stop(pool)
            except (LxpyError, OSError) as error:
                _log.warning("storage pool stays in use", pool=pool.name, error=str(error))

    async def pool(self, name: str) -> Pool:
        """Return a usable pool. Raises NotFound, Unavailable."""
        pool = self._find(name)
        if name in self._broken:
            await self._try_again(pool)
        return pool

    def usable(self) -> dict[str, Pool]:
        """Return the pools that are there, as far as is known."""
        return {name: each for name, each in self._pools.items() if name not in self._broken}

    def names(self) -> set[str]:
        """Return the names of all pools, usable or not."""
        return set(self._pools)

    def check_root(self, pool: Pool, device: Mapping[str, str]) -> None:
        """Raise InvalidConfig when a root disk asks for what its pool cannot give (a quota)."""
        size = device.get("size", "")
        self.storage.validate_volume(pool, {"size": size} if size else {})

    def drivers_in_use(self) -> set[str]:
        """Return the names of the drivers that pools have."""
        return {each.driver for each in self._pools.values()}

    async def list(self) -> Sequence[api.Pool]:
        """Return all pools by name."""
        users = await self._users()
        return [await self._describe(self._pools[name], users) for name in sorted(self._pools)]

    async def get(self, name: str) -> tuple[api.Pool, object]:
        """Return a pool and its writable part. Raises NotFound."""
        pool = self._find(name)
        return await self._describe(pool, await self._users()), self.writable(pool)

    def writable(self, pool: Pool) -> object:
        """Return what the ETag of a pool stands for."""
        return [pool.name, pool.driver, dict(pool.config), self._descriptions[pool.name]]

    async def create(self, wish: api.PoolsPost) -> None:
        """Make a pool. Raises BadRequest, Conflict, Failed, InvalidConfig; nothing is left then."""
        name = _check_name(wish.name)
        async with self._locks.hold("pool", name):
            if name in self._pools:
                raise Conflict(f"The storage pool already exists: {name}")
            given = {key: value for key, value in (wish.config or {}).items() if value != ""}
            config = self.storage.fill(name, wish.driver, given)
            self._check_source(config["source"])
            pool = self.storage.pool(name, wish.driver, config)
            async with self._journal.undoable(
                _CREATION, DEFAULT_PROJECT, name, driver=pool.driver, config=dict(config)
            ) as intent:
                await self.storage.create(pool)
                try:
                    await self._insert(pool, wish.description, ends=intent)
                except BaseException:
                    await self.storage.delete(pool)
                    raise
        self._tell("storage-pool-created", name)

    async def put(self, name: str, wish: api.PoolPut, check: Check) -> None:
        """Replace a pool's writable part.

        Raises NotFound, PreconditionFailed, BadRequest, InvalidConfig.
        """
        await self._change(name, lambda _: wish, check)

    async def patch(self, name: str, wish: api.PoolPatch, check: Check) -> None:
        """Change what is given. Raises as `put`."""
        await self._change(name, lambda old: self._patched(old, wish), check)

    async def _change(self, name: str, change: Change, check: Check) -> None:
        async with self._locks.hold("pool", name):
            old = self._find(name)
            check(self.writable(old))
            wish = change(old)
            config = {key: value for key, value in (wish.config or {}).items() if value != ""}
            for key in _FIXED:
                have = old.config.get(key)
                if have is not None and config.setdefault(key, have) != have:
                    raise BadRequest(f'"{key}" of storage pool "{name}" cannot be changed')
            self.storage.validate(old.driver, config)
            await self.storage.update(old, config)
            async with self._db.write() as session:
                row = await queries.find(session, name)
                if row is None:
                    raise NotFound("Storage pool not found")
                row.config, row.description = config, wish.description
            self._keep(self.storage.pool(name, old.driver, config), wish.description)
        self._tell("storage-pool-updated", name)

    def _patched(self, old: Pool, wish: api.PoolPatch) -> api.PoolPut:
        given = None if wish.config is UNSET else wish.config
        kept = self._descriptions[old.name]
        description = kept if wish.description is UNSET else wish.description
        return api.PoolPut(config=merge_patch(old.config, given), description=description)

    async def delete(self, name: str) -> None:
        """Delete a pool that nobody uses. Raises NotFound, BadRequest."""
        async with self._locks.hold("pool", name):
            pool = self._find(name)
            used = [each for each in (await self._users()).get(name, []) if "/images/" not in each]
            if used:
                raise BadRequest(
                    f"The storage pool is currently in use: by {', '.join(used[:5])}; remove "
                    "that first"
                )
            async with self._db.write(frees=True) as session:
                intent = intents.add(session, _DELETION, DEFAULT_PROJECT, name)
            try:
                await self._remove(pool, intent)
            except BaseException:
                await self._journal.end(intent)
                raise
        self._tell("storage-pool-deleted", name)

    async def _remove(self, pool: Pool, intent: str) -> None:
        """Remove a pool's files, then its row; may be repeated. Raises BadRequest, Failed."""
        async with self.deleting(pool):
            await self.storage.delete(pool)
            async with self._db.write(frees=True) as session:
                row = await queries.find(session, pool.name)
                if row is not None:
                    await session.delete(row)
                await intents.end(session, intent)
        for kept in (self._pools, self._descriptions, self._broken):
            kept.pop(pool.name, None)

    async def resources(self, name: str) -> api.Resources:
        """Tell how full a pool is. Raises NotFound, Unavailable."""
        found = await self.storage.resources(await self.pool(name))
        return api.Resources(
            space=api.Space(used=found.space_used, total=found.space_total),
            inodes=api.Space(used=found.inodes_used, total=found.inodes_total),
        )

    # After a crash

    def handlers(self) -> Mapping[str, Callable[[Intent], Awaitable[None]]]:
        """Return what undoes or finishes, by kind of intent, what a former daemon was at."""
        return {_CREATION: self._undo_creation, _DELETION: self._finish_deletion}

    async def _undo_creation(self, intent: Intent) -> None:
        """Remove a pool that nobody knows.

        A creation takes up what an interrupted one has left, and refuses whatever else is there:
        so what it returns with is the pool's, and empty.
        """
        if intent.name in self._pools:
            return
        pool = self.storage.pool(intent.name, intent.data["driver"], intent.data["config"])
        try:
            await self.storage.create(pool)
            await self.storage.delete(pool)
        except (LxpyError, OSError) as error:
            _log.warning("storage pool half made", pool=pool.name, error=str(error))

    async def _finish_deletion(self, intent: Intent) -> None:
        """Remove the rest of a pool; one that cannot be removed any more stays as it is."""
        pool = self._pools.get(intent.name)
        if pool is None:
            return
        try:
            await self._remove(pool, intent.id)
        except (LxpyError, OSError) as error:
            _log.warning("storage pool half deleted", pool=pool.name, error=str(error))

    # Helpers

    def _find(self, name: str) -> Pool:
        try:
            return self._pools[name]
        except KeyError:
            raise NotFound("Storage pool not found") from None

    def _of_row(self, row: PoolRow) -> Pool:
        return self.storage.pool(row.name, row.driver, row.config)

    async def _insert(self, pool: Pool, description: str, *, ends: str = "") -> None:
        async with self._db.write() as session:
            row = PoolRow(name=pool.name, driver=pool.driver, description=description)
            row.config = dict(pool.config)
            session.add(row)
            await intents.end(session, ends)
        self._keep(pool, description)

    async def _try_again(self, pool: Pool) -> None:
        """A source that was missing may be mounted by now."""
        try:
            await self.storage.start(pool)
        except (LxpyError, OSError) as error:
            raise Unavailable(f'Storage pool "{pool.name}" is unavailable: {error}') from error
        self._broken.pop(pool.name, None)

    def _keep(self, pool: Pool, description: str) -> None:
        self._pools[pool.name] = pool
        self._descriptions[pool.name] = description

    def _check_source(self, source: str) -> None:
        for each in self._pools.values():
            one, other = Path(source), each.path
            if one.is_relative_to(other) or other.is_relative_to(one):
                raise BadRequest(
                    f'Source path "{source}" is in use by storage pool "{each.name}" ({other})'
                )

    async def _users(self) -> Mapping[str, Sequence[str]]:
        """Return the URLs of who uses each pool, images apart."""
        users: dict[str, Urls] = {}
        for instance in self._store.listed():
            path = url(f"/1.0/instances/{instance.name}", instance.project)
            for pool in _pools_of(instance.expanded_devices):
                users.setdefault(pool, []).append(path)
        async with self._db.read() as session:
            for profile in await profile_queries.everything(session):
                path = url(f"/1.0/profiles/{profile.name}", profile.project)
                for pool in _pools_of(profile.devices):
                    users.setdefault(pool, []).append(path)
            for row in await volume_queries.everything(session):
                path = f"/1.0/storage-pools/{row.pool.name}/volumes/custom/{row.name}"
                users.setdefault(row.pool.name, []).append(url(path, row.project))
        return users

    async def _describe(self, pool: Pool, users: Mapping[str, Sequence[str]]) -> api.Pool:
        images = await self._images(pool)
        broken = pool.name in self._broken
        return api.Pool(
            name=pool.name,
            driver=pool.driver,
            description=self._descriptions[pool.name],
            config=dict(pool.config),
            used_by=[*(f"/1.0/images/{each}" for each in images), *users.get(pool.name, [])],
            status="Unavailable" if broken else "Created",
        )

    async def _images(self, pool: Pool) -> Sequence[str]:
        """Return a pool's images; one that cannot be used any more is noted, and has none."""
        if pool.name in self._broken:
            return []
        try:
            return await self.storage.images(pool)
        except (LxpyError, OSError) as error:
            _log.warning("storage pool unavailable", pool=pool.name, error=str(error))
            self._broken[pool.name] = str(error)
            return []

    def _tell(self, action: str, name: str) -> None:
        self._lifecycle.emit(action, f"/1.0/storage-pools/{name}")


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f'Invalid storage pool name "{name[:80]}": use 1 to 63 letters, digits, ".", "_", "-"'
        )
    return name


def _pools_of(devices: Mapping[str, Mapping[str, str]]) -> set[str]:
    disks = (each for each in devices.values() if each.get("type") == "disk")
    return {each["pool"] for each in disks if each.get("pool")}
