"""Websockets of aiohttp as the channels that operations speak of."""

from __future__ import annotations

from aiohttp import ClientConnectionResetError, WSMsgType, web

from lxpy.errors import BadRequest

PING_S = 10.0


class WebChannel:
    """One accepted websocket. Sends to a closed one are swallowed."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def receive(self) -> bytes | str | None:
        """Return the next message, None at the end."""
        message = await self._socket.receive()
        if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
            data: bytes | str = message.data
            return data
        return None

    async def send(self, data: bytes | memoryview) -> None:
        """Send a binary frame."""
        try:
            await self._socket.send_bytes(bytes(data))
        except (ConnectionError, ClientConnectionResetError):
            return

    async def send_text(self, text: str) -> None:
        """Send a text frame."""
        try:
            await self._socket.send_str(text)
        except (ConnectionError, ClientConnectionResetError):
            return

    async def close(self) -> None:
        """Close it; a client that does not answer is not waited for long."""
        await self._socket.close()


async def accept(
    request: web.Request, *, pings: bool = True
) -> tuple[web.WebSocketResponse, WebChannel]:
    """Upgrade a request. Raises BadRequest when it does not ask for that."""
    socket = web.WebSocketResponse(
        heartbeat=PING_S * 3 if pings else None, max_msg_size=64 << 20, timeout=2.0
    )
    if not socket.can_prepare(request):
        raise BadRequest("Bad Request: this endpoint takes websockets only")
    await socket.prepare(request)
    return socket, WebChannel(socket)
