"""`/1.0/profiles`."""

from __future__ import annotations

from aiohttp import web

from lxpy.api import profiles as api
from lxpy.daemon import http
from lxpy.services.profiles import Profiles

_PATH = "/1.0/profiles"


class Handlers:
    """The handlers."""

    def __init__(self, service: Profiles) -> None:
        self._service = service

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        return http.listing(request, _PATH, await self._service.list(http.project(request)))

    async def create(self, request: web.Request) -> web.Response:
        """Make a profile."""
        wish = await http.body(request, api.ProfilesPost)
        await self._service.create(http.project(request), wish)
        return http.created(f"{_PATH}/{wish.name}", http.project(request))

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one profile."""
        name = http.segment(request, "name")
        found, writable = await self._service.get(http.project(request), name)
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace a profile's writable part."""
        project, name = await self._matching(request)
        await self._service.put(project, name, await http.body(request, api.ProfilePut))
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        project, name = await self._matching(request)
        await self._service.patch(project, name, await http.body(request, api.ProfilePatch))
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a profile."""
        project, name = http.project(request), http.segment(request, "name")
        wish = await http.body(request, api.ProfilePost)
        await self._service.rename(project, name, wish.name)
        return http.created(f"{_PATH}/{wish.name}", project)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a profile."""
        await self._service.delete(http.project(request), http.segment(request, "name"))
        return http.empty()

    async def _matching(self, request: web.Request) -> tuple[str, str]:
        project, name = http.project(request), http.segment(request, "name")
        _, writable = await self._service.get(project, name)
        http.check_match(request, writable)
        return project, name


def routes(service: Profiles) -> list[web.RouteDef]:
    """Return the routes of profiles."""
    handlers = Handlers(service)
    one = _PATH + "/{name}"
    return [
        web.get(_PATH, handlers.list),
        web.post(_PATH, handlers.create),
        web.get(one, handlers.get),
        web.put(one, handlers.put),
        web.patch(one, handlers.patch),
        web.post(one, handlers.rename),
        web.delete(one, handlers.delete),
    ]
