"""`/1.0/storage-pools` and the volumes below."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from aiohttp import web

from lxpy.api import storage as api
from lxpy.daemon import http
from lxpy.errors import NotSupported
from lxpy.events.lifecycle import url
from lxpy.services.storage import Pools
from lxpy.services.volumes import Place, Volumes

_PATH = "/1.0/storage-pools"


class Handlers:
    """The handlers."""

    def __init__(self, service: Pools) -> None:
        self._service = service

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        return http.listing(request, _PATH, await self._service.list())

    async def create(self, request: web.Request) -> web.Response:
        """Make a pool."""
        wish = await http.body(request, api.PoolsPost)
        await self._service.create(wish)
        return http.created(f"{_PATH}/{wish.name}")

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one pool."""
        found, writable = await self._service.get(http.segment(request, "pool"))
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace a pool's writable part."""
        wish = await http.body(request, api.PoolPut)
        check = partial(http.check_match, request)
        await self._service.put(http.segment(request, "pool"), wish, check)
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.PoolPatch)
        check = partial(http.check_match, request)
        await self._service.patch(http.segment(request, "pool"), wish, check)
        return http.empty()

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a pool."""
        await self._service.delete(http.segment(request, "pool"))
        return http.empty()

    async def resources(self, request: web.Request) -> web.Response:
        """Reply with how full a pool is."""
        return http.sync(await self._service.resources(http.segment(request, "pool")))


class VolumeHandlers:
    """The handlers of what is in a pool."""

    def __init__(self, service: Volumes) -> None:
        self._service = service

    async def list(self, request: web.Request) -> web.Response:
        """Reply with the volumes of a pool, or those of one type."""
        pool = http.segment(request, "pool")
        kind = request.match_info.get("type")
        found = http.chosen(request, await self._service.list(pool, http.project_or_all(request)))
        chosen = [each for each in found if kind in (None, each.type)]
        if http.recursion(request):
            return http.sync(chosen)
        base = f"{_PATH}/{quote(pool)}/volumes"
        return http.sync([url(f"{base}/{each.type}/{each.name}", each.project) for each in chosen])

    async def create(self, request: web.Request) -> web.Response:
        """Make a custom volume; unlike other objects, LXD does not say where it is."""
        if request.headers.get("Content-Type") == "application/octet-stream":
            raise NotSupported("Importing storage volumes is not in this version of lxpy")
        wish = await http.body(request, api.VolumesPost)
        wish.type = request.match_info.get("type", wish.type)
        await self._service.create(http.segment(request, "pool"), http.project(request), wish)
        return http.empty()

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one volume."""
        found, writable = await self._service.get(_place(request))
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace a volume's writable part."""
        wish = await http.body(request, api.VolumePut)
        await self._service.put(_place(request), wish, partial(http.check_match, request))
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.VolumePatch)
        await self._service.patch(_place(request), wish, partial(http.check_match, request))
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a volume."""
        wish = await http.body(request, api.VolumePost)
        place = _place(request)
        await self._service.rename(place, wish)
        base = f"{_PATH}/{quote(place.pool)}/volumes/{place.kind}"
        return http.created(f"{base}/{quote(wish.name)}", place.project)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a volume."""
        await self._service.delete(_place(request))
        return http.empty()

    async def state(self, request: web.Request) -> web.Response:
        """Reply with how much a volume takes."""
        return http.sync({"usage": await self._service.usage(_place(request))})

    async def snapshots(self, request: web.Request) -> web.Response:
        """Reply with a volume's snapshots: this version makes none."""
        await self._service.get(_place(request))
        return http.sync([])


def _place(request: web.Request) -> Place:
    """Return the volume that a request is about."""
    pool, kind, name = (http.segment(request, part) for part in ("pool", "type", "volume"))
    return Place(pool, kind, name, http.project(request))


def routes(pools: Pools, volumes: Volumes) -> list[web.RouteDef]:
    """Return the routes of storage."""
    handlers, inside = Handlers(pools), VolumeHandlers(volumes)
    pool = _PATH + "/{pool}"
    of_type = f"{pool}/volumes/{{type}}"
    volume = f"{of_type}/{{volume}}"
    return [
        web.get(_PATH, handlers.list),
        web.post(_PATH, handlers.create),
        web.get(pool, handlers.get),
        web.put(pool, handlers.put),
        web.patch(pool, handlers.patch),
        web.delete(pool, handlers.delete),
        web.get(f"{pool}/resources", handlers.resources),
        web.get(f"{pool}/volumes", inside.list),
        web.post(f"{pool}/volumes", inside.create),
        web.get(of_type, inside.list),
        web.post(of_type, inside.create),
        web.get(volume, inside.get),
        web.put(volume, inside.put),
        web.patch(volume, inside.patch),
        web.post(volume, inside.rename),
        web.delete(volume, inside.delete),
        web.get(f"{volume}/state", inside.state),
        web.get(f"{volume}/snapshots", inside.snapshots),
    ]
