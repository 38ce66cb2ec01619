"""Custom volumes in which the server's images and backups lie: storage.images_volume and
storage.backups_volume.

`LXPY_DIR/images` is a link into the volume then, which the server holds. Source: LXD docs, "Server
configuration".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from lxpy.api.envelope import Status
from lxpy.db.engine import Database
from lxpy.errors import BadRequest, Conflict, LxpyError, NotFound
from lxpy.operations.registry import Registry
from lxpy.services.locks import Locks
from lxpy.services.storage import relocation
from lxpy.services.storage.places import Place, custom, find, stored
from lxpy.services.storage.pools import Pools
from lxpy.storage import ContentType, Plain, Pool, Volume
from lxpy.threads import in_thread

_log = structlog.get_logger()

IMAGES, BACKUPS = "storage.images_volume", "storage.backups_volume"
KEYS = (IMAGES, BACKUPS)
_DIRECTORY = "lxpy-{name}"  # in the volume

Config = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Held:
    """A volume that the server holds for a key's `value`."""

    value: str
    pool: Pool
    volume: Volume


class OwnVolumes:
    """Moves images and backups; `moving` says why nothing else is done meanwhile, "" otherwise."""

    def __init__(
        self,
        db: Database,
        pools: Pools,
        locks: Locks,
        registry: Registry,
        *,
        images: Path,
        backups: Path,
    ) -> None:
        self._db = db
        self._pools = pools
        self._locks = locks
        self._registry = registry
        self._places = {IMAGES: images, BACKUPS: backups}
        self._held: dict[str, _Held] = {}
        self.moving = ""

    async def start(self, config: Config) -> None:
        """Hold what the config names, and finish what a crash has interrupted.

        What cannot be had is logged: images or backups are missing until it can.
        """
        for key, place in self._places.items():
            try:
                await in_thread(relocation.recover, place)
                if value := config.get(key, ""):
                    await self._enter(key, value)
            except (LxpyError, OSError) as error:
                _log.error("volume not at hand", key=key, error=str(error))

    async def stop(self) -> None:
        """Let go of the volumes: the pools go down."""
        for key in list(self._held):
            await self._let_go(key)

    def users(self) -> list[tuple[str, str, str]]:
        """Return project, pool and name of the volumes in use."""
        return [(each.volume.project, each.pool.name, each.volume.name)
                for each in self._held.values()]  # fmt: skip

    # Changes of the config: `check`, `leave`, the config is written, `enter`

    async def check(self, old: Config, new: Config) -> None:
        """Raise BadRequest for what cannot be, Conflict while something is being done."""
        changed = [key for key in KEYS if old.get(key, "") != new.get(key, "")]
        for key in changed:
            if value := new.get(key):
                try:
                    _, volume = await self._find(value)
                except (BadRequest, NotFound) as error:
                    raise BadRequest(f'Failed validation of "{key}": {error}') from error
                if volume.content is not ContentType.FILESYSTEM:
                    raise BadRequest(
                        f'Failed validation of "{key}": Storage volume "{value}" in "default" '
                        "project is not filesystem content type"
                    )
        if changed:
            self._check_idle()

    def _check_idle(self) -> None:
        busy = [
            each
            for each in self._registry.listed(None)
            if each.kind == "task" and each.status in (Status.PENDING, Status.RUNNING)
        ]
        if busy:
            raise Conflict(
                "Images and backups cannot be moved while something is being done "
                f"({busy[0].description}): try again when it has ended"
            )

    async def leave(self, config: Config) -> None:
        """Take home what lies in a volume that the config does not name any more."""
        for key, held in list(self._held.items()):
            if config.get(key, "") != held.value:
                place = self._places[key]
                self.moving = f"{place.name} are being moved: try again in a moment"
                try:
                    await relocation.move_home(place)
                finally:
                    self.moving = ""
                await self._let_go(key)

    async def enter(self, config: Config) -> None:
        """Put what the config names a volume for there. Raises LxpyError; it stays then."""
        for key in KEYS:
            value = config.get(key, "")
            if value and key not in self._held:
                await self._enter(key, value)

    async def _enter(self, key: str, value: str) -> None:
        place = self._places[key]
        pool, volume = await self._find(value)
        async with self._locks.hold(*_place(value).key):
            await self._pools.storage.hold(pool, volume, _holder(key))
        self._held[key] = _Held(value, pool, volume)
        try:
            rootfs = await self._pools.storage.rootfs(pool, volume)
            assert isinstance(rootfs, Plain)
            target = Path(rootfs.path) / _DIRECTORY.format(name=place.name)
            if not await in_thread(relocation.is_at, place, target):
                self.moving = f"{place.name} are being moved: try again in a moment"
                await relocation.move_out(place, target)
        except BaseException:
            await self._let_go(key)
            raise
        finally:
            self.moving = ""

    async def _let_go(self, key: str) -> None:
        held = self._held.pop(key)
        await self._pools.storage.let_go(held.pool, held.volume, _holder(key))

    async def _find(self, value: str) -> tuple[Pool, Volume]:
        place = _place(value)
        try:
            pool = await self._pools.pool(place.pool)
        except NotFound as error:
            raise NotFound(f'Unable to load storage pool "{place.pool}": {error}') from error
        try:
            async with self._db.read() as session:
                return pool, stored(await find(session, place))
        except NotFound as error:
            raise NotFound(
                f'Failed loading storage volume "{value}" in "default" project: {error}'
            ) from error


def _place(value: str) -> Place:
    pool, mark, name = value.partition("/")
    if not (pool and mark and name) or "/" in name:
        raise BadRequest("Invalid syntax for volume, must be <pool>/<volume>")
    return custom(pool, name)


def _holder(key: str) -> str:
    return f"server/{os.path.basename(key)}"
