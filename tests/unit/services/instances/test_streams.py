"""Pipes and websockets: all bytes, in order, and an end in both directions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from lxpy.services.instances.streams import Reader, Sockets, Writer, pump


class Recorder:
    """A channel that keeps what is sent to it."""

    def __init__(self) -> None:
        self.data = b""
        self.texts: list[str] = []
        self.closed = False

    async def receive(self) -> bytes | str | None:
        return None

    async def send(self, data: bytes | memoryview) -> None:
        self.data += data

    async def send_text(self, text: str) -> None:
        self.texts.append(text)

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue


async def test_more_than_a_pipe_holds(pipe: tuple[int, int]) -> None:
    sent = os.urandom(3 << 20)
    channel, ended = Recorder(), asyncio.Event()
    pumping = asyncio.create_task(pump(Reader(pipe[0]), channel, ended))
    assert await Writer(pipe[1]).write(sent)
    os.close(pipe[1])
    await pumping
    assert channel.data == sent
    assert channel.texts == [""]


async def test_a_pipe_that_stays_open_does_not_hold_the_end(pipe: tuple[int, int]) -> None:
    channel, ended = Recorder(), asyncio.Event()
    pumping = asyncio.create_task(pump(Reader(pipe[0]), channel, ended))
    await asyncio.sleep(0)
    os.write(pipe[1], b"last words")
    ended.set()
    await asyncio.wait_for(pumping, 5)
    assert channel.data == b"last words"
    assert channel.texts == [""]


async def test_nobody_reads_any_more(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    assert not await Writer(pipe[1]).write(b"x")


async def test_sockets_are_waited_for() -> None:
    sockets = Sockets({"0": "a", "control": "b"})
    assert not await sockets.wait(("0",), 0.01)
    first = Recorder()

    async def connect() -> None:
        sockets.add("0", first)
        await asyncio.sleep(0)
        sockets.add("control", Recorder())

    connecting = asyncio.create_task(connect())
    assert await sockets.wait(("0", "control"), 5)
    await connecting
    assert not sockets.add("0", Recorder())
    await sockets.close()
    assert first.closed
