"""Consoles: the capped log, viewers that do not read, a container that does not."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxpy.runtime.loop import Loop
from lxpy.runtime.terminal import BURST_BYTES, Spectator, Terminal, open_pair, resize


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "console.log"


@pytest.fixture
def terminal(log: Path) -> Iterator[Terminal]:
    terminal = Terminal(*open_pair(), str(log), 8192)
    yield terminal
    terminal.close(Loop().forget)


def test_output_goes_to_the_log(terminal: Terminal, log: Path) -> None:
    os.write(terminal.slave, b"hello\n")
    assert terminal.read(time.monotonic()) == (b"hello\r\n", False)
    assert log.read_bytes() == b"hello\r\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_log_keeps_the_newest(terminal: Terminal, log: Path) -> None:
    for number in range(5000):
        os.write(terminal.slave, b"line %d\n" % number)
        terminal.read(time.monotonic())
        assert log.stat().st_size <= 8192
    assert log.read_bytes().endswith(b"line 4999\r\n")


def test_a_log_that_cannot_be_had_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("victim")
    terminal = Terminal(*open_pair(), str(tmp_path / "link"), 8192)
    os.write(terminal.slave, b"x")
    assert terminal.read(time.monotonic())[0] == b"x"
    terminal.close(Loop().forget)
    assert not (tmp_path / "victim").exists()


def test_a_flood_makes_it_rest(terminal: Terminal) -> None:
    rests = []
    for _ in range(BURST_BYTES // 1000 + 10):
        os.write(terminal.slave, b"x" * 1000)
        rests.append(terminal.read(0.0)[1])
    assert not rests[0]
    assert rests[-1]
    os.write(terminal.slave, b"x")
    assert terminal.read(1.0)[1] is False


def test_typing_is_kept_until_the_container_reads(terminal: Terminal) -> None:
    line = b"x" * 100 + b"\n"
    written = all(terminal.write(line) for _ in range(1000))
    assert not written
    assert terminal.input


def test_sizes(terminal: Terminal) -> None:
    resize(terminal.master, 91, 37)
    assert os.get_terminal_size(terminal.slave) == (91, 37)


def test_a_viewer_that_does_not_read_loses_output_and_stalls_nobody() -> None:
    ours, theirs = socket.socketpair()
    spectator = Spectator(theirs.detach())
    for _ in range(100):
        spectator.offer(b"x" * 10_000)
    assert 0 < len(spectator.pending) <= 256 * 1024
    received = 0
    ours.setblocking(False)
    while spectator.pending:
        received += len(ours.recv(1 << 20))
        spectator.flush()
    assert received > 0
    spectator.sock.close()
    ours.close()
