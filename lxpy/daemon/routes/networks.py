"""`/1.0/networks`."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from aiohttp import web

from lxpy.api import networks as api
from lxpy.daemon import http
from lxpy.services.networks.networks import Networks

_PATH = "/1.0/networks"
#: tells whether a project may know of a network
Sees = Callable[[str, str], bool]


class Handlers:
    """The handlers."""

    def __init__(self, service: Networks, sees: Sees) -> None:
        self._service = service
        self._sees = sees

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects: those that the project may know of."""
        found, project = await self._service.list(), http.project(request)
        seen = [each for each in found if self._sees(project, each.name)]
        return http.listing(request, _PATH, seen)

    async def create(self, request: web.Request) -> web.Response:
        """Make a network."""
        wish = await http.body(request, api.NetworksPost)
        await self._service.create(wish)
        return http.created(f"{_PATH}/{quote(wish.name, safe='')}")

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one network."""
        found = await self._service.get(http.segment(request, "name"))
        return http.sync(found, etag_of=self._service.writable(found))

    async def put(self, request: web.Request) -> web.Response:
        """Replace a network's writable part."""
        name = await self._matching(request)
        await self._service.put(name, await http.body(request, api.NetworkPut))
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        name = await self._matching(request)
        await self._service.patch(name, await http.body(request, api.NetworkPatch))
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a network."""
        wish = await http.body(request, api.NetworkPost)
        await self._service.rename(http.segment(request, "name"), wish.name)
        return http.created(f"{_PATH}/{quote(wish.name, safe='')}")

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a network."""
        await self._service.delete(http.segment(request, "name"))
        return http.empty()

    async def leases(self, request: web.Request) -> web.Response:
        """Reply with the addresses in use."""
        name = http.segment(request, "name")
        return http.sync(await self._service.leases(http.project(request), name))

    async def state(self, request: web.Request) -> web.Response:
        """Reply with what the interface does."""
        return http.sync(await self._service.state(http.segment(request, "name")))

    async def _matching(self, request: web.Request) -> str:
        name = http.segment(request, "name")
        found = await self._service.get(name)
        http.check_match(request, self._service.writable(found))
        return name


def routes(service: Networks, sees: Sees) -> list[web.RouteDef]:
    """Return the routes of networks."""
    handlers = Handlers(service, sees)
    one = _PATH + "/{name}"
    return [
        web.get(_PATH, handlers.list),
        web.post(_PATH, handlers.create),
        web.get(one, handlers.get),
        web.put(one, handlers.put),
        web.patch(one, handlers.patch),
        web.post(one, handlers.rename),
        web.delete(one, handlers.delete),
        web.get(one + "/leases", handlers.leases),
        web.get(one + "/state", handlers.state),
    ]
