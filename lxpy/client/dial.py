"""Websockets of another server's operations, as the daemon opens them (asyncio)."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit

import aiohttp
from aiohttp import WSMsgType

from lxpy.client.fetch import pinned
from lxpy.errors import BadRequest, Failed

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10)
_MAX_FRAME_BYTES = 64 << 20


class Dialed:
    """One opened websocket. Sends to a closed one are swallowed."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
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
        except (ConnectionError, aiohttp.ClientConnectionResetError):
            return

    async def send_text(self, text: str) -> None:
        """Send a text frame."""
        try:
            await self._socket.send_str(text)
        except (ConnectionError, aiohttp.ClientConnectionResetError):
            return

    async def close(self) -> None:
        """Close it."""
        await self._socket.close()


@asynccontextmanager
async def dialed(
    operation: str, secrets: Mapping[str, str], certificate: str
) -> AsyncIterator[dict[str, Dialed]]:
    """Open the sockets of an operation, given by its URL, for the length of a block.

    `secrets` are by the sockets' names. The server may have no other `certificate` (PEM); without
    one it must have one that the host believes in. Raises BadRequest, Failed.
    """
    if urlsplit(operation).scheme != "https":
        raise BadRequest(f'Invalid operation URL "{operation[:200]}": it must begin with https://')
    trust = pinned(certificate) if certificate else True
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        opened: dict[str, Dialed] = {}
        try:
            for name, secret in secrets.items():
                url = f"{operation.rstrip('/')}/websocket?secret={quote(secret, safe='')}"
                # No pings: LXD does not read, and so not answer, on every socket all the time.
                connected = await session.ws_connect(url, ssl=trust, max_msg_size=_MAX_FRAME_BYTES)
                _keep_alive(connected.get_extra_info("socket"))
                opened[name] = Dialed(connected)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Failed(f"Failed connecting to {operation}: {_reason(error)}") from error
        yield opened


def _keep_alive(sock: socket.socket | None) -> None:
    """Have the kernel notice a peer that is gone without a word."""
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return "its certificate is another than the one that was given"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"it answered with HTTP status {error.status}"
    return str(error) or type(error).__name__
