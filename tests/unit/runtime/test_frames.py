"""Messages and their descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from lxpy.runtime import frames

Pair = tuple[Any, Any]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = frames.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_borders_are_kept(pair: Pair) -> None:
    for number in range(3):
        frames.send(pair[0], {"id": number, "text": "ä"})
    assert [frames.receive(pair[1]) for _ in range(3)] == [
        ({"id": number, "text": "ä"}, []) for number in range(3)
    ]


def test_descriptors_travel_along(pair: Pair) -> None:
    reader, writer = os.pipe()
    frames.send(pair[0], {"op": "exec"}, [writer, reader])
    os.close(writer)
    message, fds = frames.receive(pair[1]) or ({}, [])
    assert message == {"op": "exec"}
    os.write(fds[0], b"through")
    assert os.read(reader, 10) == b"through"
    assert not any(os.get_inheritable(fd) for fd in fds)
    frames.close_all([reader, *fds])


def test_long_messages_take_another_way(pair: Pair) -> None:
    before = len(os.listdir("/proc/self/fd"))
    reader, writer = os.pipe()
    message = {"op": "start", "files": ["x" * 100_000] * 30}
    frames.send(pair[0], message, [reader, writer])
    received, fds = frames.receive(pair[1]) or ({}, [])
    assert received == message
    assert len(fds) == 2
    frames.close_all([reader, writer, *fds])
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_end_of_the_connection(pair: Pair) -> None:
    pair[0].close()
    assert frames.receive(pair[1]) is None
