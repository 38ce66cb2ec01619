"""Daemon and supervisor's ends of the connection, against each other's protocol."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lxpy.runtime import frames
from lxpy.runtime.link import Link, StartFailed, SupervisorLost
from lxpy.runtime.loop import Loop
from lxpy.runtime.peer import Peer

Message = dict[str, Any]


class Daemon:
    """A link, what it was told, and the other end, answered by hand."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self.other = theirs
        self.events: list[Message] = []
        self.lost = 0
        self.link = Link(ours, lambda message, _: self.events.append(message), self._lost)

    def _lost(self) -> None:
        self.lost += 1

    def close(self) -> None:
        self.link.close()
        self.other.close()


@pytest.fixture
async def daemon() -> Any:
    daemon = Daemon()
    yield daemon
    daemon.close()


async def asked(daemon: Daemon) -> Message:
    """Wait for the next request."""
    await asyncio.sleep(0.01)
    received = frames.receive(daemon.other)
    assert received is not None
    return received[0]


async def test_answers_find_their_requests(daemon: Daemon) -> None:
    first = asyncio.ensure_future(daemon.link.request("kill", name="a"))
    second = asyncio.ensure_future(daemon.link.request("kill", name="b"))
    one, two = await asked(daemon), await asked(daemon)
    frames.send(daemon.other, {"id": two["id"], "ok": {"n": 2}})
    frames.send(daemon.other, {"event": "ready", "name": "a"})
    frames.send(daemon.other, {"id": one["id"], "ok": {"n": 1}})
    assert await first == ({"n": 1}, [])
    assert await second == ({"n": 2}, [])
    assert daemon.events == [{"event": "ready", "name": "a"}]


async def test_a_refusal_names_its_step(daemon: Daemon) -> None:
    request = asyncio.ensure_future(daemon.link.request("start"))
    number = (await asked(daemon))["id"]
    error = {"step": "rootfs", "text": "mount(/x): No such file or directory", "errno": 2}
    frames.send(daemon.other, {"id": number, "error": error})
    with pytest.raises(StartFailed, match=r"rootfs: mount\(/x\)") as caught:
        await request
    assert (caught.value.step, caught.value.number) == ("rootfs", 2)


async def test_whoever_waits_hears_of_the_supervisors_death(daemon: Daemon) -> None:
    request = asyncio.ensure_future(daemon.link.request("start"))
    await asked(daemon)
    daemon.other.close()
    with pytest.raises(SupervisorLost):
        await request
    assert daemon.lost == 1
    with pytest.raises(SupervisorLost):
        daemon.link.tell("ack")


async def test_descriptors_that_nobody_waits_for_are_closed(daemon: Daemon) -> None:
    reader, writer = os.pipe()
    frames.send(daemon.other, {"id": 77, "ok": {}}, [writer])
    os.close(writer)
    await asyncio.sleep(0.01)
    assert os.read(reader, 1) == b""
    os.close(reader)


async def test_a_peer_that_does_not_read_blocks_nobody(daemon: Daemon) -> None:
    reader, writer = os.pipe()
    for number in range(2000):
        daemon.link.tell("ack", [writer], number=number, text="x" * 1000)
    os.close(writer)
    received: list[int] = []
    while len(received) < 2000:
        try:
            message, fds = frames.receive(daemon.other) or ({}, [])
        except BlockingIOError:
            await asyncio.sleep(0.001)  # for what waits to be sent
            continue
        received.append(message["number"])
        frames.close_all(fds)
    assert received == list(range(2000))
    await asyncio.sleep(0.01)
    assert os.read(reader, 1) == b""
    os.close(reader)


class Supervisor:
    """A peer in its loop, driven by hand."""

    def __init__(self, path: str) -> None:
        self.loop = Loop()
        self.path = path
        self.heard: list[Message] = []
        self.gone = 0
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        self.listener = listener
        self.peer = Peer(self.loop, listener, self._hear, self._count)

    def _hear(self, message: Message, fds: list[int]) -> None:
        self.heard.append(message)
        frames.close_all(fds)

    def _count(self) -> None:
        self.gone += 1

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(self.path)
        self.turn()
        return client

    def turn(self) -> None:
        """Let the loop run for a moment."""
        self.loop.running = True

        def stop() -> None:
            self.loop.running = False

        self.loop.later(0.01, stop)
        self.loop.run()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(str(tmp_path / "socket"))
    yield supervisor
    supervisor.listener.close()


def test_the_latest_daemon_wins(supervisor: Supervisor) -> None:
    assert not supervisor.peer.connected
    first = supervisor.connect()
    assert supervisor.peer.connected
    second = supervisor.connect()
    assert supervisor.gone == 1
    assert frames.receive(first) is None
    frames.send(second, {"op": "hello"})
    supervisor.turn()
    supervisor.peer.send({"event": "ready"})
    assert supervisor.heard == [{"op": "hello"}]
    assert frames.receive(second) == ({"event": "ready"}, [])
    second.close()
    supervisor.turn()
    assert (supervisor.gone, supervisor.peer.connected) == (2, False)
    supervisor.peer.send({"event": "nobody"})
    first.close()


def test_a_daemon_that_does_not_read_blocks_nobody(supervisor: Supervisor) -> None:
    client = supervisor.connect()
    for number in range(2000):
        supervisor.peer.send({"n": number, "text": "x" * 1000})
    client.settimeout(0.02)
    received = []
    while len(received) < 2000:
        try:
            message, _ = frames.receive(client) or ({}, [])
        except TimeoutError:
            supervisor.turn()
            continue
        received.append(message["n"])
    assert received == list(range(2000))
    client.close()
    supervisor.turn()
