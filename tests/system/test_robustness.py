"""Clients that send too much, too little, too slowly or not at all, and very many of them.

Whatever they do, the daemon stays as large as it was, answers everybody else at once, loses no
event, and has no connection left when they are gone.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.support import execution, processes
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch
from tests.support.processes import PATIENCE, wait_until
from tests.support.tls import free_port
from tests.support.websocket import WebSocket

MIB = 1 << 20
LISTENERS = 1000
COMMANDS = 200
#: what a daemon may grow by, whatever happens: buffers of its allocator included
GROWTH_BYTES = 64 * MIB


@contextmanager
def unharmed(daemon: Daemon, growth_bytes: int = GROWTH_BYTES) -> Iterator[None]:
    """Compare the daemon's size and descriptors before and after."""
    daemon.api.get("/1.0")
    size = processes.rss_bytes(daemon.pid)
    files = len(processes.descriptors(daemon.pid))
    yield
    grown = processes.rss_bytes(daemon.pid) - size
    assert grown < growth_bytes, f"{grown / MIB:.0f} MiB more"
    wait_until(
        lambda: len(processes.descriptors(daemon.pid)) <= files + 2, 15, "connections are left"
    )


def connection(daemon: Daemon) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.settimeout(30 * PATIENCE)
    found.connect(str(daemon.socket))
    return found


def answers(daemon: Daemon, within_s: float = 2) -> None:
    """The daemon still serves others at once."""
    begun = time.monotonic()
    assert daemon.api.get("/1.0")["auth"] == "trusted"
    assert time.monotonic() - begun < within_s * PATIENCE


@pytest.mark.parametrize("url", ["/1.0/profiles", "/1.0/instances"])
def test_bodies_of_a_hundred_megabytes(daemon: Daemon, url: str) -> None:
    part = b'"' + b"a" * (MIB - 1)
    head = f"POST {url} HTTP/1.1\r\nHost: lxd\r\nContent-Length: {100 * MIB}\r\n\r\n".encode()
    with unharmed(daemon), connection(daemon) as sending:
        sending.sendall(head)
        with suppress(ConnectionError):  # it need not listen to the end
            for _ in range(100):
                sending.sendall(part)
        reply = b""
        with suppress(ConnectionError):
            reply = sending.recv(4096)
        assert reply == b"" or reply.startswith(b"HTTP/1.1 400"), reply
        answers(daemon)


def test_a_file_of_a_hundred_megabytes(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    url = f"/1.0/instances/{name}/files?path=/root/large"
    with unharmed(daemon):
        assert daemon.api.raw("POST", url, bytes(100 * MIB))[0] == 200
        status, _, data = daemon.api.raw("GET", url)
        assert (status, len(data)) == (200, 100 * MIB)
    assert daemon.out(name, "stat", "-c", "%s", "/root/large") == str(100 * MIB)


def test_bodies_that_end_early(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    urls = [
        ("POST", "/1.0/profiles"), ("POST", "/1.0/instances"), ("POST", "/1.0/images"),
        ("PUT", f"/1.0/instances/{name}"), ("POST", f"/1.0/instances/{name}/files?path=/root/x"),
    ]  # fmt: skip
    before = daemon.api.get("/1.0/profiles"), daemon.api.get("/1.0/images")
    with unharmed(daemon):
        for method, url in urls * 10:
            kind = "application/octet-stream" if "images" in url else "application/json"
            head = f"{method} {url} HTTP/1.1\r\nHost: lxd\r\nContent-Type: {kind}\r\n"
            with connection(daemon) as sending:
                sending.sendall(f'{head}Content-Length: 5000\r\n\r\n{{"name": "cut'.encode())
        answers(daemon)
    assert (daemon.api.get("/1.0/profiles"), daemon.api.get("/1.0/images")) == before
    assert not list((daemon.directory / "images").glob("*part*"))


def test_clients_that_say_nothing(daemon: Daemon) -> None:
    """Neither half a head nor a body that never comes keeps anybody else waiting."""
    with unharmed(daemon), ExitStack() as opened:
        for number in range(200):
            silent = opened.enter_context(connection(daemon))
            if number % 2:
                silent.sendall(b"GET /1.0 HTTP/1.1\r\nHost: l")
            elif number % 4:
                silent.sendall(
                    b"POST /1.0/profiles HTTP/1.1\r\nHost: l\r\nContent-Length: 9\r\n\r\n{"
                )
        for _ in range(5):
            answers(daemon)


def test_a_listener_that_does_not_read(daemon: Daemon) -> None:
    """It is dropped at last; whoever reads gets each event, in order."""
    with unharmed(daemon), ExitStack() as opened:
        deaf = opened.enter_context(WebSocket(daemon.socket, "/1.0/events?type=lifecycle"))
        reading = opened.enter_context(WebSocket(daemon.socket, "/1.0/events?type=lifecycle"))
        for number in range(300):
            description = f"{number} " + "d" * 4000
            daemon.api.patch("/1.0/profiles/default", {"config": {"user.robust": description}})
            event = next(reading.objects())
            assert event["metadata"]["action"] == "profile-updated"
        daemon.api.patch("/1.0/profiles/default", {"config": {"user.robust": ""}})
        deaf.abort()


@pytest.mark.slow
def test_a_thousand_listeners(daemon: Daemon) -> None:
    with unharmed(daemon, 2 * GROWTH_BYTES), ExitStack() as opened:
        listeners = [
            opened.enter_context(WebSocket(daemon.socket, "/1.0/events?type=lifecycle"))
            for _ in range(LISTENERS)
        ]
        answers(daemon, 5)
        for number in range(3):
            daemon.api.post("/1.0/profiles", {"name": f"robust{number}"})
        try:
            for each in listeners:
                events = each.objects()
                told = [next(events)["metadata"]["source"] for _ in range(3)]
                assert told == [f"/1.0/profiles/robust{number}" for number in range(3)]
        finally:
            for number in range(3):
                daemon.api.delete(f"/1.0/profiles/robust{number}")


@pytest.mark.slow
def test_two_hundred_commands_at_once(daemon: Daemon, launch: Launch) -> None:
    name = launch()

    def run(number: int) -> str:
        done = execution.run(daemon.api, name, "sh", "-c", f"cat; echo {number}", stdin=b"in ")
        assert done.code == 0
        return done.stdout.decode()

    with unharmed(daemon), ThreadPoolExecutor(COMMANDS) as pool:
        assert list(pool.map(run, range(COMMANDS))) == [f"in {n}\n" for n in range(COMMANDS)]
    assert daemon.out(name, "sh", "-c", "ls /proc | grep -c '^[0-9]'").isdigit()


@pytest.mark.slow
def test_slow_heads_over_https(daemon: Daemon) -> None:
    """Who does not say within half a minute what is wanted is hung up on; others are served."""
    port = free_port()
    daemon.api.patch("/1.0", {"config": {"core.https_address": f"127.0.0.1:{port}"}})
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with ExitStack() as opened:
            slow = []
            for _ in range(50):
                plain = opened.enter_context(socket.create_connection(("127.0.0.1", port), 60))
                slow.append(opened.enter_context(context.wrap_socket(plain)))
            begun = time.monotonic()
            for each in slow:
                each.sendall(b"GET /1.0 HTTP/1.1\r\nHost: l")
            answers(daemon)
            for each in slow:
                each.settimeout(60)
                with suppress(ConnectionError, ssl.SSLError):
                    while each.recv(4096):
                        continue
            assert time.monotonic() - begun < 50 * PATIENCE
    finally:
        daemon.api.patch("/1.0", {"config": {"core.https_address": ""}})
