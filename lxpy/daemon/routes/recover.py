"""`/internal/recover`: a lost or damaged database is found again. On the unix socket only."""

from __future__ import annotations

from aiohttp import web

from lxpy.api import recover as api
from lxpy.daemon import http
from lxpy.services.recovery.recovery import Recovery


class Handlers:
    """The handlers."""

    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery

    async def validate(self, request: web.Request) -> web.Response:
        """Reply with what could be taken in."""
        wish = await http.body(request, api.RecoverPost)
        return http.sync(await self._recovery.validate(wish))

    async def take_in(self, request: web.Request) -> web.Response:
        """Take in what lies on the pools; the daemon begins anew then."""
        wish = await http.body(request, api.RecoverPost)
        return http.sync(await self._recovery.take_in(wish))

    async def start_over(self, request: web.Request) -> web.Response:
        """Begin without what was lost."""
        await self._recovery.start_over()
        return http.empty()

    async def database(self, request: web.Request) -> web.Response:
        """Put a sound database in the place of a damaged one; the daemon begins anew then."""
        return http.sync(await self._recovery.replace_database())


def routes(recovery: Recovery) -> list[web.RouteDef]:
    """Return the routes."""
    handlers = Handlers(recovery)
    return [
        web.post("/internal/recover/validate", handlers.validate),
        web.post("/internal/recover/import", handlers.take_in),
        web.post("/internal/recover/start-over", handlers.start_over),
        web.post("/internal/recover/database", handlers.database),
    ]
