"""The socket of the files: streams of binary frames, each ended by an empty text frame."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from lxpy.errors import Failed
from lxpy.operations.channel import Channel

_MAX_JSON_BYTES = 64 << 20


class Lost(Failed):
    """The other server has gone: nobody knows what it has done."""


def lost() -> Lost:
    """Return the error of a peer that has gone."""
    return Lost("The other server has closed the connection before the transfer was complete")


async def stream(channel: Channel) -> AsyncIterator[bytes]:
    """Yield a stream to its end. Raises Failed when the peer has gone."""
    while True:
        message = await channel.receive()
        if message is None:
            raise lost()
        if isinstance(message, str):
            return
        yield message


async def end(channel: Channel) -> None:
    """End a stream."""
    await channel.send_text("")


async def receive_json(channel: Channel) -> dict[str, Any]:
    """Return the object that the next stream is. Raises Failed."""
    data = bytearray()
    async for piece in stream(channel):
        data += piece
        if len(data) > _MAX_JSON_BYTES:
            raise Failed("The other server's description of the transfer is too large")
    try:
        found = json.loads(data)
    except ValueError as error:
        raise Failed("The other server's description of the transfer is no JSON") from error
    if not isinstance(found, dict):
        raise Failed("The other server's description of the transfer is no object")
    return found


async def send_json(channel: Channel, value: dict[str, Any]) -> None:
    """Send an object as a stream of its own."""
    await channel.send(json.dumps(value).encode())
    await end(channel)
