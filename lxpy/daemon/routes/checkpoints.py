"""`/1.0/instances/NAME/checkpoint`: whether the memory of an instance can be saved."""

from __future__ import annotations

from aiohttp import web

from lxpy.daemon import http
from lxpy.services.checks import Checks


def routes(checks: Checks) -> list[web.RouteDef]:
    """Return the routes."""

    async def check(request: web.Request) -> web.Response:
        name = http.segment(request, "name")
        return http.sync(await checks.check(http.project(request), name))

    paths = ("/1.0/instances", "/1.0/containers")
    return [web.get(f"{path}/{{name}}/checkpoint", check) for path in paths]
