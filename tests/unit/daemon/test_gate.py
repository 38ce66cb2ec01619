"""Connections from the network: how many, and how long one may say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lxpy.daemon.gate import Gate


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


@asynccontextmanager
async def listening(gate: Gate) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(gate, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side hangs up soon."""
    try:
        async with asyncio.timeout(5):
            return await reader.read(1) == b""
    except ConnectionError:
        return True


@pytest.mark.asyncio
async def test_who_says_nothing() -> None:
    async with listening(Gate(Echo, head_s=0.2)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        assert await reader.readexactly(19)
        assert await ended(reader)
        writer.close()
        # Who has said all of it, in however many pieces, has time.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in (b"GET / HTTP/1.1\r\n\r", b"\n"):
            writer.write(piece)
            await reader.readexactly(len(piece))
        await asyncio.sleep(0.5)
        writer.write(b"more")
        assert await reader.readexactly(4) == b"more"
        writer.close()


@pytest.mark.asyncio
# asyncio leaves it to the collector to close what the factory refuses.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_too_many() -> None:
    async with listening(Gate(Echo, most=2)) as port:
        both = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in both:
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(reader)
        writer.close()
        both[0][1].close()
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        for each in (writer, both[1][1]):
            each.close()
