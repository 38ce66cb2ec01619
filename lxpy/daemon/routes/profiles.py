"""`/1.0/profiles`."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from aiohttp import web

from lxpy.api import profiles as api
from lxpy.daemon import http
from lxpy.services.projects.profiles import Profiles
from lxpy.services.projects.scopes import Feature

_PATH = "/1.0/profiles"


class Handlers:
    """The handlers."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        return http.listing(
            request, _PATH, await self._profiles.list(http.owner(request, Feature.PROFILES))
        )

    async def create(self, request: web.Request) -> web.Response:
        """Create a profile."""
        wish, project = (
            await http.body(request, api.ProfilesPost),
            http.owner(request, Feature.PROFILES),
        )
        await self._profiles.create(project, wish)
        return http.created(f"{_PATH}/{quote(wish.name, safe='')}", project)

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one profile."""
        name = http.segment(request, "name")
        found, writable = await self._profiles.get(http.owner(request, Feature.PROFILES), name)
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace a profile's writable part."""
        wish = await http.body(request, api.ProfilePut)
        check = partial(http.check_match, request)
        name = http.segment(request, "name")
        await self._profiles.put(http.owner(request, Feature.PROFILES), name, wish, check)
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.ProfilePatch)
        check = partial(http.check_match, request)
        name = http.segment(request, "name")
        await self._profiles.patch(http.owner(request, Feature.PROFILES), name, wish, check)
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a profile."""
        wish, project = (
            await http.body(request, api.ProfilePost),
            http.owner(request, Feature.PROFILES),
        )
        await self._profiles.rename(project, http.segment(request, "name"), wish.name)
        return http.created(f"{_PATH}/{quote(wish.name, safe='')}", project)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a profile."""
        await self._profiles.delete(
            http.owner(request, Feature.PROFILES), http.segment(request, "name")
        )
        return http.empty()


def routes(profiles: Profiles) -> list[web.RouteDef]:
    """Return the routes of profiles."""
    handlers = Handlers(profiles)
    return [
        web.get(_PATH, handlers.list),
        web.post(_PATH, handlers.create),
        web.get(f"{_PATH}/{{name}}", handlers.get),
        web.put(f"{_PATH}/{{name}}", handlers.put),
        web.patch(f"{_PATH}/{{name}}", handlers.patch),
        web.post(f"{_PATH}/{{name}}", handlers.rename),
        web.delete(f"{_PATH}/{{name}}", handlers.delete),
    ]
