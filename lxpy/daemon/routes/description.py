"""`/1.0/openapi.json`: what this server answers, for programs that write clients and tests."""

from __future__ import annotations

from aiohttp import web

from lxpy.daemon import openapi
from lxpy.threads import in_thread


def routes() -> list[web.RouteDef]:
    """Return the route; the description is made when it is asked for the first time."""
    made: dict[str, openapi.Json] = {}

    async def describe(request: web.Request) -> web.Response:
        """Reply with the API's description."""
        if not made:
            made.update(await in_thread(openapi.describe, list(request.app.router.routes())))
        return web.json_response(made)

    return [web.get("/1.0/openapi.json", describe)]
