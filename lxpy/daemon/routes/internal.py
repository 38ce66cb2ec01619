"""`/internal`: whether the daemon is ready, and its end. On the unix socket only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from msgspec import Struct

from lxpy.daemon import http


class ShutdownPut(Struct, kw_only=True):
    """How to stop instances: seconds for each, None as each wants it; or by force."""

    force: bool = False
    timeout: int | None = None


Shutdown = Callable[[bool, int | None], Awaitable[None]]


def routes(shutdown: Shutdown, is_ready: Callable[[], bool]) -> list[web.RouteDef]:
    """Return the routes; `shutdown` stops instances and supervisor, then the daemon.

    Who asks whether the daemon `is_ready` wants the instances up that come up with it.
    """

    async def ready(_: web.Request) -> web.Response:
        return http.empty() if is_ready() else http.failed(503, "LXD daemon not ready yet")

    async def stop(request: web.Request) -> web.Response:
        wish = ShutdownPut()
        if request.can_read_body:
            wish = await http.body(request, ShutdownPut)
        await shutdown(wish.force, wish.timeout)
        return http.empty()

    return [web.get("/internal/ready", ready), web.put("/internal/shutdown", stop)]
