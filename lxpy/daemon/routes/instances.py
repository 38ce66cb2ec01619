"""`/1.0/instances`, and the same under its old name `/1.0/containers`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from lxpy.api import instances as api
from lxpy.daemon import http
from lxpy.daemon.routes import backups
from lxpy.errors import BadRequest
from lxpy.services.backups.imports import Imports, Wish
from lxpy.services.instances.bulk import Bulk
from lxpy.services.instances.console import Consoles
from lxpy.services.instances.creation import Creation
from lxpy.services.instances.exec import Exec
from lxpy.services.instances.instances import Instances
from lxpy.services.instances.logs import Logs
from lxpy.services.instances.moves import Moves
from lxpy.services.instances.power import Power
from lxpy.services.instances.updates import Updates
from lxpy.services.migration.sink import MigrationSink
from lxpy.services.migration.source import MigrationSource


@dataclass(frozen=True, slots=True)
class Services:
    """What works on instances."""

    instances: Instances
    creation: Creation
    source: MigrationSource
    sink: MigrationSink
    imports: Imports
    updates: Updates
    power: Power
    bulk: Bulk
    exec: Exec
    consoles: Consoles
    logs: Logs
    moves: Moves


class Handlers:
    """The handlers below one of the two paths."""

    def __init__(self, services: Services, path: str) -> None:
        self._services = services
        self._path = path

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs, objects, or objects with their state."""
        project = http.project_or_all(request)
        kind = request.query.get("instance-type") or "container"
        if kind not in ("container", "virtual-machine"):
            raise BadRequest(f'Invalid instance type "{kind}"')
        if kind == "virtual-machine":
            return http.sync([])
        if http.recursion(request) > 1:
            return http.listing(
                request, self._path, await self._services.instances.list_full(project)
            )
        return http.listing(request, self._path, self._services.instances.list(project))

    async def create(self, request: web.Request) -> web.Response:
        """Create an instance."""
        if request.headers.get("Content-Type", "").startswith("application/octet-stream"):
            return await self._import(request)
        if request.query.get("target"):
            raise BadRequest("Target only allowed when clustered")
        wish = await http.body(request, api.InstancesPost)
        if wish.source.type == "migration":
            operation = await self._services.sink.receive(http.project(request), wish)
        else:
            operation = await self._services.creation.create(http.project(request), wish)
        return http.accepted(operation)

    async def _import(self, request: web.Request) -> web.Response:
        headers = request.headers
        wish = Wish(headers.get("X-LXD-name", ""), headers.get("X-LXD-pool", ""))
        project, imports = http.project(request), self._services.imports
        return await backups.receive(request, lambda body: imports.receive(project, body, wish))

    async def change_all(self, request: web.Request) -> web.Response:
        """Start or stop all instances of a project."""
        wish = await http.body(request, api.InstancesPut)
        return http.accepted(self._services.bulk.change(http.project(request), wish.state))

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one instance."""
        project, name = http.project(request), http.segment(request, "name")
        if http.recursion(request):
            full, writable = await self._services.instances.get_full(project, name)
            return http.sync(full, etag_of=writable)
        found, writable = self._services.instances.get(project, name)
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace an instance's writable part."""
        project, name = self._matching(request)
        wish = await http.body(request, api.InstancePut)
        return http.accepted(self._services.updates.put(project, name, wish))

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        project, name = self._matching(request)
        wish = await http.body(request, api.InstancePatch)
        await self._services.updates.patch(project, name, wish)
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename an instance, move it to another pool or project, or send it to another server."""
        wish = await http.body(request, api.InstancePost)
        name = http.segment(request, "name")
        project = http.project(request)
        if wish.migration and not (wish.pool or wish.project):
            return http.accepted(self._services.source.send(project, name, wish))
        return http.accepted(await self._services.moves.move(project, name, wish))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete an instance."""
        name = http.segment(request, "name")
        return http.accepted(self._services.instances.delete(http.project(request), name))

    async def state(self, request: web.Request) -> web.Response:
        """Reply with what an instance does."""
        name = http.segment(request, "name")
        return http.sync(await self._services.instances.state(http.project(request), name))

    async def change(self, request: web.Request) -> web.Response:
        """Start, stop, restart, freeze or unfreeze."""
        wish = await http.body(request, api.InstanceStatePut)
        name = http.segment(request, "name")
        return http.accepted(self._services.power.change(http.project(request), name, wish))

    async def exec(self, request: web.Request) -> web.Response:
        """Run a command."""
        wish = await http.body(request, api.ExecPost)
        name = http.segment(request, "name")
        return http.accepted(self._services.exec.execute(http.project(request), name, wish))

    async def console(self, request: web.Request) -> web.Response:
        """Attach to the console."""
        wish = await http.body(request, api.ConsolePost)
        name = http.segment(request, "name")
        return http.accepted(self._services.consoles.attach(http.project(request), name, wish))

    async def console_log(self, request: web.Request) -> web.StreamResponse:
        """Reply with what the console has printed."""
        name = http.segment(request, "name")
        return _file(await self._services.consoles.log(http.project(request), name))

    async def clear_console(self, request: web.Request) -> web.Response:
        """Empty the console's log."""
        await self._services.consoles.clear(http.project(request), http.segment(request, "name"))
        return http.empty()

    async def logs(self, request: web.Request) -> web.Response:
        """Reply with the URLs of an instance's logs."""
        name = http.segment(request, "name")
        found = await self._services.logs.list(http.project(request), name)
        return http.sync([f"{self._path}/{name}/logs/{each}" for each in found])

    async def log(self, request: web.Request) -> web.StreamResponse:
        """Reply with one log."""
        name, file = http.segment(request, "name"), http.segment(request, "file")
        return _file(await self._services.logs.path(http.project(request), name, file))

    async def delete_log(self, request: web.Request) -> web.Response:
        """Remove one log."""
        name, file = http.segment(request, "name"), http.segment(request, "file")
        await self._services.logs.delete(http.project(request), name, file)
        return http.empty()

    def _matching(self, request: web.Request) -> tuple[str, str]:
        """Return project and name; raise when If-Match names another version."""
        project, name = http.project(request), http.segment(request, "name")
        _, writable = self._services.instances.get(project, name)
        http.check_match(request, writable)
        return project, name


def _file(path: Path) -> web.FileResponse:
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f"inline;filename={path.name}",
    }
    return web.FileResponse(path, headers=headers)


def routes(services: Services) -> list[web.RouteDef]:
    """Return the routes of instances."""
    found: list[web.RouteDef] = []
    for path in ("/1.0/instances", "/1.0/containers"):
        handlers = Handlers(services, path)
        one = path + "/{name}"
        found += [
            web.get(path, handlers.list),
            web.post(path, handlers.create),
            web.put(path, handlers.change_all),
            web.get(one, handlers.get),
            web.put(one, handlers.put),
            web.patch(one, handlers.patch),
            web.post(one, handlers.rename),
            web.delete(one, handlers.delete),
            web.get(f"{one}/state", handlers.state),
            web.put(f"{one}/state", handlers.change),
            web.post(f"{one}/exec", handlers.exec),
            web.post(f"{one}/console", handlers.console),
            web.get(f"{one}/console", handlers.console_log),
            web.delete(f"{one}/console", handlers.clear_console),
            web.get(f"{one}/logs", handlers.logs),
            web.get(f"{one}/logs/{{file}}", handlers.log),
            web.delete(f"{one}/logs/{{file}}", handlers.delete_log),
        ]

    async def no_machines(_: web.Request) -> web.Response:
        return http.sync([])

    return [*found, web.get("/1.0/virtual-machines", no_machines)]
