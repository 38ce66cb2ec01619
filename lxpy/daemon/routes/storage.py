"""`/1.0/storage-pools` and the volumes below."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from lxpy.api import storage as api
from lxpy.daemon import http
from lxpy.errors import NotSupported
from lxpy.events.lifecycle import url
from lxpy.services.storage import Pools

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
        name = await self._matching(request)
        await self._service.put(name, await http.body(request, api.PoolPut))
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        name = await self._matching(request)
        await self._service.patch(name, await http.body(request, api.PoolPatch))
        return http.empty()

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a pool."""
        await self._service.delete(http.segment(request, "pool"))
        return http.empty()

    async def resources(self, request: web.Request) -> web.Response:
        """Reply with how full a pool is."""
        return http.sync(await self._service.resources(http.segment(request, "pool")))

    async def volumes(self, request: web.Request) -> web.Response:
        """Reply with the volumes of a pool, or those of one type."""
        pool = http.segment(request, "pool")
        kind = request.match_info.get("type")
        found = http.chosen(
            request, await self._service.volumes(pool, http.project_or_all(request))
        )
        chosen = [each for each in found if kind in (None, each.type)]
        if http.recursion(request):
            return http.sync(chosen)
        base = f"{_PATH}/{quote(pool)}/volumes"
        return http.sync([url(f"{base}/{each.type}/{each.name}", each.project) for each in chosen])

    async def volume(self, request: web.Request) -> web.Response:
        """Reply with one volume."""
        found, writable = await self._service.volume(
            http.segment(request, "pool"),
            http.segment(request, "type"),
            http.segment(request, "volume"),
            http.project(request),
        )
        return http.sync(found, etag_of=writable)

    async def no_custom(self, request: web.Request) -> web.Response:
        """Refuse to make a custom volume."""
        await self._service.pool(http.segment(request, "pool"))
        raise NotSupported(
            "Custom storage volumes are not in this version of lxpy: show a directory of the host "
            "by a disk device"
        )

    async def _matching(self, request: web.Request) -> str:
        name = http.segment(request, "pool")
        _, writable = await self._service.get(name)
        http.check_match(request, writable)
        return name


def routes(service: Pools) -> list[web.RouteDef]:
    """Return the routes of storage."""
    handlers = Handlers(service)
    one = _PATH + "/{pool}"
    return [
        web.get(_PATH, handlers.list),
        web.post(_PATH, handlers.create),
        web.get(one, handlers.get),
        web.put(one, handlers.put),
        web.patch(one, handlers.patch),
        web.delete(one, handlers.delete),
        web.get(f"{one}/resources", handlers.resources),
        web.get(f"{one}/volumes", handlers.volumes),
        web.post(f"{one}/volumes", handlers.no_custom),
        web.get(f"{one}/volumes/{{type}}", handlers.volumes),
        web.post(f"{one}/volumes/{{type}}", handlers.no_custom),
        web.get(f"{one}/volumes/{{type}}/{{volume}}", handlers.volume),
    ]
