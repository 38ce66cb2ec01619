"""`/1.0/projects`."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from aiohttp import web

from lxpy.api import projects as api
from lxpy.daemon import http
from lxpy.services.projects.projects import PATH, Projects
from lxpy.services.server import access


class Handlers:
    """The handlers."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects; restricted clients see their own."""
        seen = [each for each in await self._projects.list() if access.allows(each.name)]
        found = http.chosen(request, seen)
        if http.recursion(request):
            return http.sync(found)
        return http.sync([f"{PATH}/{quote(each.name, safe='')}" for each in found])

    async def create(self, request: web.Request) -> web.Response:
        """Make a project."""
        wish = await http.body(request, api.ProjectsPost)
        await self._projects.create(wish)
        return http.created(f"{PATH}/{quote(wish.name, safe='')}")

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one project."""
        found, writable = await self._projects.get(_name(request))
        return http.sync(found, etag_of=writable)

    async def state(self, request: web.Request) -> web.Response:
        """Reply with what a project may have, and has."""
        return http.sync(await self._projects.state(_name(request)))

    async def put(self, request: web.Request) -> web.Response:
        """Replace config and description of a project."""
        wish = await http.body(request, api.ProjectPut)
        await self._projects.put(_name(request), wish, partial(http.check_match, request))
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.ProjectPatch)
        await self._projects.patch(_name(request), wish, partial(http.check_match, request))
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a project."""
        wish = await http.body(request, api.ProjectPost)
        return http.accepted(await self._projects.rename(_name(request), wish))

    async def delete(self, request: web.Request) -> web.Response:
        """Remove a project."""
        await self._projects.delete(_name(request))
        return http.empty()


def _name(request: web.Request) -> str:
    """Return the project's name. Raises Forbidden."""
    name = http.segment(request, "name")
    access.check(name)
    return name


def routes(projects: Projects) -> list[web.RouteDef]:
    """Return the routes of projects."""
    handlers = Handlers(projects)
    one = f"{PATH}/{{name}}"
    return [
        web.get(PATH, handlers.list),
        web.post(PATH, handlers.create),
        web.get(one, handlers.get),
        web.put(one, handlers.put),
        web.patch(one, handlers.patch),
        web.post(one, handlers.rename),
        web.delete(one, handlers.delete),
        web.get(f"{one}/state", handlers.state),
    ]
