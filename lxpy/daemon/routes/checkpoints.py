"""`/1.0/instances/NAME/checkpoint` and `memory`: may it be saved; what was saved, as a stream."""

from __future__ import annotations

from aiohttp import web

from lxpy.daemon import http
from lxpy.daemon.routes.backups import send, upload
from lxpy.services.memory.checks import Checks
from lxpy.services.memory.memory import Memory
from lxpy.units import is_true


def routes(checks: Checks, memory: Memory) -> list[web.RouteDef]:
    """Return the routes."""

    async def check(request: web.Request) -> web.Response:
        name = http.segment(request, "name")
        return http.sync(await checks.check(http.project(request), name))

    async def fetch(request: web.Request) -> web.StreamResponse:
        name = http.segment(request, "name")
        project = http.project(request)
        if is_true(request.query.get("ahead")):
            sending = memory.sent_ahead(project, name)
        else:
            sending = memory.sent(project, name, request.query.get("beyond", ""))
        async with sending as found:
            return await send(request, found.chunks, found.headers)

    async def put(request: web.Request) -> web.Response:
        name = http.segment(request, "name")
        await memory.take(
            http.project(request), name, upload(request),
            is_ahead=is_true(request.query.get("ahead")), beyond=request.query.get("beyond", ""),
        )  # fmt: skip
        return http.empty()

    async def forget(request: web.Request) -> web.Response:
        await memory.forget_ahead(http.project(request), http.segment(request, "name"))
        return http.empty()

    found = []
    for path in ("/1.0/instances", "/1.0/containers"):
        found += [
            web.get(f"{path}/{{name}}/checkpoint", check),
            web.get(f"{path}/{{name}}/memory", fetch),
            web.put(f"{path}/{{name}}/memory", put),
            web.delete(f"{path}/{{name}}/memory", forget),
        ]
    return found
