"""`/1.0/events`: a websocket that tells what happens."""

from __future__ import annotations

import asyncio

from aiohttp import web

from lxpy.api.events import TYPES
from lxpy.daemon import http
from lxpy.daemon.sockets import WebChannel, accept
from lxpy.errors import Failed
from lxpy.events.bus import Bus, Listener


class Events:
    """The handler."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """Send events until the client goes."""
        text = request.query.get("type") or ",".join(TYPES)
        types = [word.strip() for word in text.split(",")]
        for word in types:
            if word not in TYPES:
                raise Failed(f'"{word}" isn\'t a supported event type')
        project = http.project_or_all(request)
        socket, channel = await accept(request)
        listener = self._bus.listen(types, project)
        sender = asyncio.create_task(_send(listener, channel))
        try:
            while await channel.receive() is not None:
                continue
        finally:
            listener.close()
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            await channel.close()
        return socket


async def _send(listener: Listener, channel: WebChannel) -> None:
    async for data in listener:
        await channel.send_text(data.decode())
    await channel.close()  # it was too slow, or the daemon stops


def routes(bus: Bus) -> list[web.RouteDef]:
    """Return the routes of events."""
    return [web.get("/1.0/events", Events(bus).listen)]
