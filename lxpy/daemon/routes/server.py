"""`/`, `/1.0` and what is about the whole server: resources, projects, cluster, warnings, trust."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from lxpy.api import server as api
from lxpy.daemon import http
from lxpy.errors import Failed, NotFound, NotSupported
from lxpy.services.server import Server

_PROJECTS = "/1.0/projects"
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
        found, writable = await self._server.get(http.project(request))
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

    async def projects(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        found = http.chosen(request, await self._server.projects())
        if http.recursion(request):
            return http.sync(found)
        return http.sync([f"{_PROJECTS}/{each.name}" for each in found])

    async def create_project(self, request: web.Request) -> web.Response:
        """Refuse to create a project."""
        await self._server.create_project()
        return http.empty()

    async def project(self, request: web.Request) -> web.Response:
        """Reply with one project."""
        found, writable = await self._server.project(http.segment(request, "name"))
        return http.sync(found, etag_of=writable)

    async def change_project(self, request: web.Request) -> web.Response:
        """Refuse to change a project."""
        await self._server.change_project(http.segment(request, "name"))
        return http.empty()

    async def rename_project(self, request: web.Request) -> web.Response:
        """Refuse to rename a project."""
        await self._server.rename_project(http.segment(request, "name"))
        return http.empty()

    async def delete_project(self, request: web.Request) -> web.Response:
        """Refuse to delete a project."""
        await self._server.delete_project(http.segment(request, "name"))
        return http.empty()

    async def cluster(self, request: web.Request) -> web.Response:
        """Reply that there is no cluster."""
        return http.sync(api.Cluster())

    async def members(self, request: web.Request) -> web.Response:
        """Refuse: there is no cluster."""
        raise Failed("Server is not clustered")

    async def none(self, request: web.Request) -> web.Response:
        """Reply with an empty list: certificates are things this server has not."""
        return http.sync([])

    async def warnings(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        found = http.chosen(request, self._server.warnings())
        if http.recursion(request):
            return http.sync(found)
        return http.sync([f"{_WARNINGS}/{each.uuid}" for each in found])

    async def warning(self, request: web.Request) -> web.Response:
        """Reply with one warning."""
        for each in self._server.warnings():
            if each.uuid == http.segment(request, "uuid"):
                return http.sync(each)
        raise NotFound("Warning not found")

    async def no_certificate(self, request: web.Request) -> web.Response:
        """Refuse: there is no such certificate."""
        raise NotFound("Certificate not found")

    async def trust(self, request: web.Request) -> web.Response:
        """Refuse to trust a client's certificate."""
        raise NotSupported(
            "Client certificates are not in this version of lxpy: it listens on its unix socket "
            "only, which is for whoever may open it"
        )


def routes(server: Server) -> list[web.RouteDef]:
    """Return the routes of the server."""
    handlers = Handlers(server)
    project, certificate = f"{_PROJECTS}/{{name}}", "/1.0/certificates/{fingerprint}"
    return [
        web.get("/", handlers.versions),
        web.get("/1.0", handlers.get),
        web.put("/1.0", handlers.put),
        web.patch("/1.0", handlers.patch),
        web.get("/1.0/resources", handlers.resources),
        web.get(_PROJECTS, handlers.projects),
        web.post(_PROJECTS, handlers.create_project),
        web.get(project, handlers.project),
        web.put(project, handlers.change_project),
        web.patch(project, handlers.change_project),
        web.post(project, handlers.rename_project),
        web.delete(project, handlers.delete_project),
        web.get("/1.0/cluster", handlers.cluster),
        web.get("/1.0/cluster/members", handlers.members),
        web.get(_WARNINGS, handlers.warnings),
        web.get(f"{_WARNINGS}/{{uuid}}", handlers.warning),
        web.get("/1.0/certificates", handlers.none),
        web.post("/1.0/certificates", handlers.trust),
        web.get(certificate, handlers.no_certificate),
        web.delete(certificate, handlers.no_certificate),
    ]
