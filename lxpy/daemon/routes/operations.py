"""`/1.0/operations`: look, wait, cancel, connect."""

from __future__ import annotations

from aiohttp import web

from lxpy.daemon import auth, http
from lxpy.daemon.sockets import accept
from lxpy.errors import Forbidden
from lxpy.events.lifecycle import Lifecycle, url
from lxpy.operations.registry import Registry


class Operations:
    """The handlers."""

    def __init__(self, registry: Registry, lifecycle: Lifecycle) -> None:
        self._registry = registry
        self._lifecycle = lifecycle

    async def list(self, request: web.Request) -> web.Response:
        """Reply with operations by status, in lower case."""
        full = http.recursion(request) > 0
        found: dict[str, list[object]] = {}
        for each in self._registry.listed(http.project_or_all(request)):
            entry = each.describe() if full else url(each.url, each.project)
            found.setdefault(each.status.text.lower(), []).append(entry)
        return http.sync(found)

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one operation."""
        return http.sync(self._registry.get(http.segment(request, "id")).describe())

    async def wait(self, request: web.Request) -> web.Response:
        """Reply when the operation or the time is over; strangers need the operation's secret."""
        operation = self._registry.get(http.segment(request, "id"))
        secret = request.query.get("secret", "")
        is_known = auth.identify(request).trusted and not secret
        if not is_known and not operation.is_secret(secret):
            raise Forbidden("not authorized")
        seconds = http.integer(request, "timeout", -1)
        await operation.wait(None if seconds < 0 else seconds)
        return http.sync(operation.describe())

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel an operation."""
        operation = self._registry.get(http.segment(request, "id"))
        operation.cancel()
        self._lifecycle.emit("operation-cancelled", operation.url, operation.project)
        return http.empty()

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Connect a websocket to the operation's session."""
        secret = request.query.get("secret", "")
        id = http.segment(request, "id")
        session, name = self._registry.socket(id, secret)
        socket, channel = await accept(request, pings=self._registry.get(id).pings)
        try:
            await session.attach(name, channel)
        finally:
            await channel.close()
        return socket


def routes(registry: Registry, lifecycle: Lifecycle) -> list[web.RouteDef]:
    """Return the routes of operations."""
    handlers = Operations(registry, lifecycle)
    return [
        web.get("/1.0/operations", handlers.list),
        web.get("/1.0/operations/{id}", handlers.get),
        web.delete("/1.0/operations/{id}", handlers.cancel),
        web.get("/1.0/operations/{id}/wait", handlers.wait),
        web.get("/1.0/operations/{id}/websocket", handlers.connect),
    ]
