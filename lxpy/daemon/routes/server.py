"""`/`, `/1.0` and what is about the whole server: resources, projects, cluster, warnings, trust."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from lxpy.api import server as api
from lxpy.daemon import auth, http
from lxpy.errors import Failed, NotFound
from lxpy.services.server.server import Server

_WARNINGS = "/1.0/warnings"


class Handlers:
    """The handlers."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def versions(self, request: web.Request) -> web.Response:
        """Reply with the API's versions."""
        return http.sync(["/1.0"])

    async def get(self, request: web.Request) -> web.Response:
        """Reply with what the server is."""
        who = auth.identify(request)
        if not who.trusted or who.metrics_only:
            return http.sync(self._server.introduction())
        found, writable = await self._server.get(request.query.get("project") or "default")
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace the server's config."""
        wish = await http.body(request, api.ServerPut)
        await self._server.put(wish, partial(http.check_match, request))
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change the server's config."""
        wish = await http.body(request, api.ServerPut)
        await self._server.patch(wish, partial(http.check_match, request))
        return http.empty()

    async def resources(self, request: web.Request) -> web.Response:
        """Reply with the host's hardware."""
        return http.sync(await self._server.resources())

    async def cluster(self, request: web.Request) -> web.Response:
        """Reply that there is no cluster."""
        return http.sync(api.Cluster())

    async def members(self, request: web.Request) -> web.Response:
        """Refuse: there is no cluster."""
        raise Failed("Server is not clustered")

    async def warnings(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        found = http.chosen(request, self._server.warnings.warnings())
        if http.recursion(request):
            return http.sync(found)
        return http.sync([f"{_WARNINGS}/{each.uuid}" for each in found])

    async def warning(self, request: web.Request) -> web.Response:
        """Reply with one warning."""
        for each in self._server.warnings.warnings():
            if each.uuid == http.segment(request, "uuid"):
                return http.sync(each)
        raise NotFound("Warning not found")

    async def mark_warning(self, request: web.Request) -> web.Response:
        """Note that a warning is known, or that it is new."""
        wish = await http.body(request, api.WarningPut)
        self._server.warnings.mark(http.segment(request, "uuid"), wish.status)
        return http.empty()

    async def dismiss_warning(self, request: web.Request) -> web.Response:
        """Forget a warning."""
        self._server.warnings.dismiss(http.segment(request, "uuid"))
        return http.empty()


def introductions(server: Server) -> list[web.RouteDef]:
    """Return the routes by which clients find out whom they speak to."""
    handlers = Handlers(server)
    return [web.get("/", handlers.versions), web.get("/1.0", handlers.get)]


def routes(server: Server) -> list[web.RouteDef]:
    """Return the routes of the server."""
    handlers = Handlers(server)
    return [
        *introductions(server),
        web.put("/1.0", handlers.put),
        web.patch("/1.0", handlers.patch),
        web.get("/1.0/resources", handlers.resources),
        web.get("/1.0/cluster", handlers.cluster),
        web.get("/1.0/cluster/members", handlers.members),
        web.get(_WARNINGS, handlers.warnings),
        web.get(f"{_WARNINGS}/{{uuid}}", handlers.warning),
        web.put(f"{_WARNINGS}/{{uuid}}", handlers.mark_warning),
        web.patch(f"{_WARNINGS}/{{uuid}}", handlers.mark_warning),
        web.delete(f"{_WARNINGS}/{{uuid}}", handlers.dismiss_warning),
    ]
