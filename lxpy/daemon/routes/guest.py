"""The guest API: plain HTTP for the instance itself, at /dev/lxd/sock."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from lxpy.api.guest import GuestPatch
from lxpy.daemon import http
from lxpy.daemon.routes.images import send_export
from lxpy.daemon.sockets import accept
from lxpy.errors import LxpyError
from lxpy.events.bus import Listener
from lxpy.services.instances.guests import EVENTS, Guests
from lxpy.services.instances.store import Key

#: finds the instance whose request it is, and waits until that may ask again
Caller = Callable[[web.Request], Awaitable[Key]]
INSTANCE = web.RequestKey("instance", tuple[str, str])

_MAX_BODY_BYTES = 1 << 16
_CHUNK = 1 << 14
_LARGE_AT_ONCE = 4
_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger()


class Handlers:
    """The handlers; `request[INSTANCE]` is who asks."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests
        self._large: defaultdict[Key, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_LARGE_AT_ONCE)
        )

    async def top(self, _: web.Request) -> web.Response:
        """Reply with the versions of the API."""
        return _json(["/1.0"])

    async def show(self, request: web.Request) -> web.Response:
        """Reply with what the instance is."""
        return _json(self._guests.show(request[INSTANCE]))

    async def change(self, request: web.Request) -> web.Response:
        """Note that the instance is ready."""
        wish = await http.body(request, GuestPatch)
        await self._guests.change(request[INSTANCE], wish.state)
        return _text("")

    async def keys(self, request: web.Request) -> web.Response:
        """Reply with the URLs of the config that the instance may read."""
        return _json([f"/1.0/config/{key}" for key in self._guests.keys(request[INSTANCE])])

    async def value(self, request: web.Request) -> web.StreamResponse:
        """Reply with the value of a config key."""
        key = http.segment(request, "key")
        return await self._send(request, self._guests.value(request[INSTANCE], key))

    async def meta_data(self, request: web.Request) -> web.StreamResponse:
        """Reply with cloud-init's meta-data."""
        return await self._send(request, self._guests.meta_data(request[INSTANCE]))

    async def _send(self, request: web.Request, text: str) -> web.StreamResponse:
        """Reply with a text; a few long ones at a time, as who asks may not read the answer."""
        if len(text) <= _CHUNK:
            return _text(text)
        async with self._large[request[INSTANCE]]:
            response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
            await response.prepare(request)
            for start in range(0, len(text), _CHUNK):
                await response.write(text[start : start + _CHUNK].encode())
            return response

    async def devices(self, request: web.Request) -> web.Response:
        """Reply with the instance's devices."""
        return _json(self._guests.devices(request[INSTANCE]))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send events until the client goes: on a websocket, or as lines."""
        types = (request.query.get("type") or ",".join(EVENTS)).split(",")
        listener = self._guests.listen(request[INSTANCE], types)
        try:
            if web.WebSocketResponse().can_prepare(request):
                return await _send_frames(request, listener)
            return await _send_lines(request, listener)
        finally:
            listener.close()

    async def image(self, request: web.Request) -> web.StreamResponse:
        """Reply with the files of an image."""
        fingerprint = http.segment(request, "fingerprint")
        found = await self._guests.image(request[INSTANCE], fingerprint)
        return await send_export(request, found)


async def _send_frames(request: web.Request, listener: Listener) -> web.StreamResponse:
    socket, channel = await accept(request)

    async def send() -> None:
        async for data in listener:
            await channel.send_text(data.decode())
        await channel.close()

    sender = asyncio.create_task(send())
    try:
        while await channel.receive() is not None:
            continue
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        await channel.close()
    return socket


async def _send_lines(request: web.Request, listener: Listener) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    async for data in listener:
        await response.write(data + b"\n")
    return response


def _json(data: object) -> web.Response:
    return web.Response(body=_encode(data) + b"\n", content_type="application/json")


def _text(text: str) -> web.Response:
    return web.Response(body=text.encode(), content_type="application/octet-stream")


def _failed(status: int, text: str) -> web.Response:
    headers = {"X-Content-Type-Options": "nosniff"}
    return web.Response(text=f"{text}\n", status=status, headers=headers)


def _guard(caller: Caller) -> Middleware:
    @web.middleware
    async def guarded(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            request[INSTANCE] = await caller(request)
            return await handler(request)
        except LxpyError as error:
            return _failed(error.status, str(error))
        except web.HTTPNotFound:
            return _failed(404, "404 page not found")
        except web.HTTPException as error:
            return _failed(error.status, error.reason)
        except ConnectionError:
            raise
        except Exception:
            _log.exception("guest's request broke", method=request.method, path=request.path)
            return _failed(500, "Internal error")

    return guarded


def build(guests: Guests, caller: Caller) -> web.Application:
    """Return what answers instances."""
    site = web.Application(middlewares=[_guard(caller)], client_max_size=_MAX_BODY_BYTES)
    handlers = Handlers(guests)
    site.add_routes(
        [
            web.get("/", handlers.top),
            web.get("/1.0", handlers.show),
            web.patch("/1.0", handlers.change),
            web.get("/1.0/config", handlers.keys),
            web.get("/1.0/config/{key}", handlers.value),
            web.get("/1.0/meta-data", handlers.meta_data),
            web.get("/1.0/devices", handlers.devices),
            web.get("/1.0/events", handlers.events),
            web.get("/1.0/images/{fingerprint}/export", handlers.image),
        ]
    )
    return site
