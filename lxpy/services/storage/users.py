"""Who uses a custom volume: instances and profiles that show it, instances that run with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db import profiles as profile_queries
from lxpy.db.rows import InstanceRow
from lxpy.errors import BadRequest
from lxpy.events.lifecycle import url
from lxpy.instances.devices import disk
from lxpy.instances.model import Instance
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.projects.scopes import Feature, Scopes
from lxpy.services.snapshots.quiet import Pause
from lxpy.services.storage.disks import HOLDER
from lxpy.services.storage.places import Place
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume

Urls = list[str]
#: URLs of who uses each custom volume, by project, pool and name
Users = Mapping[tuple[str, str, str], Urls]
Flush = Callable[[], Awaitable[None]]
_SERVER = "/1.0"


@dataclass(frozen=True, slots=True)
class Stillness:
    """A storage driver's `Quiet` for a volume that several instances may be writing to.

    What they have written is written out before, so that they stand still for a shorter time, and
    once more while they do.
    """

    pauses: tuple[Pause, ...]
    flush: Flush

    @property
    def freezes(self) -> list[str]:
        """The unique names of the instances that stand still."""
        return [each.freezes for each in self.pauses if each.freezes]

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Have all of them stand still for the length of a block. Raises Failed."""
        await self.flush()
        async with AsyncExitStack() as stack:
            for each in self.pauses:
                await stack.enter_async_context(each())
            await self.flush()
            yield


class VolumeUsers:
    """Finds users, and holds their locks.

    Locks are taken in one order: instances before volumes, each kind by name. Who attaches a volume
    holds its instance's lock and takes that of the volume.
    """

    def __init__(
        self,
        scopes: Scopes,
        pools: Pools,
        store: InstanceStore,
        locks: Locks,
        pause: Callable[[Instance], Pause],
    ) -> None:
        self._scopes = scopes
        self._pools = pools
        self._store = store
        self._locks = locks
        self._pause = pause
        #: returns project, pool and name of the volumes that the server itself uses
        self.own: Callable[[], Iterable[tuple[str, str, str]]] = tuple

    async def urls(self, session: AsyncSession) -> Users:
        """Return who shows which volume."""
        users: dict[tuple[str, str, str], Urls] = {}

        def note(path: str, project: str, devices: Mapping[str, Mapping[str, str]]) -> None:
            for found in {each for each in map(disk.volume, devices.values()) if each}:
                owner = self._scopes.owner(Feature.VOLUMES, project)
                users.setdefault((owner, *found), []).append(url(path, project))

        for each in self._store.listed():
            note(f"/1.0/instances/{each.name}", each.project, each.expanded_devices)
        for row in await profile_queries.everything(session):
            note(f"/1.0/profiles/{row.name}", row.project, row.devices)
        for volume in set(self.own()):
            users.setdefault(volume, []).append(_SERVER)
        return users

    def running(self, pool: Pool, volume: Volume) -> list[Instance]:
        """Return the running instances that have a volume, by name."""
        holders = self._pools.storage.holders(pool, volume)
        names = [each.removeprefix(HOLDER) for each in holders if each.startswith(HOLDER)]
        found = [self._store.by_unique_name(name) for name in names]
        return sorted((each for each in found if each), key=lambda each: each.unique_name)

    def check_not_own(self, place: Place) -> None:
        """Raise BadRequest when the server itself uses the volume."""
        if (place.pool, place.name) in {
            each[1:] for each in self.own() if each[0] == place.project
        }:
            raise BadRequest(
                "The storage volume is still in use, by the server itself: unset "
                "storage.images_volume or storage.backups_volume first"
            )

    async def check_unused(self, session: AsyncSession, place: Place) -> None:
        """Raise BadRequest when something shows the volume."""
        self.check_not_own(place)
        users = await self.urls(session)
        if found := users.get((place.project, place.pool, place.name)):
            raise BadRequest(
                f"The storage volume is still in use: remove it from {', '.join(found[:5])} first"
            )

    async def check_at_rest(self, pool: Pool, volume: Volume, what: str) -> None:
        """Raise BadRequest when a running instance has the volume, or something else reads it.

        `what` says what cannot be done then.
        """
        if found := self.running(pool, volume):
            names = ", ".join(each.name for each in found[:5])
            raise BadRequest(
                f"{what} while running instances use the volume: stop {names}, or detach it"
            )
        if not await self._pools.storage.is_free(pool, volume):
            raise BadRequest(
                f"{what} while the volume is in use: it is exported, compared or mounted; try "
                "again when that has ended"
            )

    @asynccontextmanager
    async def locked(self, pool: Pool, volume: Volume, *places: Place) -> AsyncIterator[None]:
        """Hold the locks of volumes, and those of the running instances that have `volume`."""
        while True:
            users = self.running(pool, volume)
            async with AsyncExitStack() as stack:
                keys = [("instance", each.project, each.name) for each in users]
                for key in [*sorted(keys), *sorted({each.key for each in places})]:
                    await stack.enter_async_context(self._locks.hold(*key))
                if _names(self.running(pool, volume)) <= _names(users):
                    yield
                    return

    @asynccontextmanager
    async def renaming(self, place: Place, new: Place) -> AsyncIterator[None]:
        """Hold the locks of a volume and of all instances that show it, which read anew after it.

        The block renames it, and calls `follow`.
        """
        while True:
            users = self._showing(place)
            async with AsyncExitStack() as stack:
                keys = [("instance", each.project, each.name) for each in users]
                for key in [*sorted(keys), *sorted((place.key, new.key))]:
                    await stack.enter_async_context(self._locks.hold(*key))
                if _names(self._showing(place)) <= _names(users):
                    yield
                    await self._store.reread(users)
                    return

    def _showing(self, place: Place) -> list[Instance]:
        """Return the instances that show a volume."""
        return [
            each
            for each in self._store.listed()
            if self._scopes.owner(Feature.VOLUMES, each.project) == place.project
            and any(_shows(device, place) for device in each.expanded_devices.values())
        ]

    async def follow(self, session: AsyncSession, place: Place, name: str) -> None:
        """Write the new name of a volume into the devices that show it: instances', profiles'."""
        instances = [await session.get(InstanceRow, each.id) for each in self._showing(place)]
        for row in (*instances, *await profile_queries.everything(session)):
            if row is None or self._scopes.owner(Feature.VOLUMES, row.project) != place.project:
                continue
            if any(_shows(device, place) for device in row.devices.values()):
                row.devices = {
                    key: {**device, "source": name} if _shows(device, place) else device
                    for key, device in row.devices.items()
                }

    def stillness(self, pool: Pool, volume: Volume, flush: Flush) -> Stillness:
        """Return what makes the running users of a volume stand still; their locks are held."""
        return Stillness(tuple(map(self._pause, self.running(pool, volume))), flush)


def _shows(device: Mapping[str, str], place: Place) -> bool:
    return disk.volume(device) == (place.pool, place.name)


def _names(instances: Iterable[Instance]) -> set[str]:
    return {each.unique_name for each in instances}
