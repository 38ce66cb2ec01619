"""The supervisor's loop."""

from __future__ import annotations

import os

import pytest

from lxpy.runtime.loop import Loop


def test_timers_and_descriptors() -> None:
    loop, seen = Loop(), []
    reader, writer = os.pipe()

    def ready(_: int) -> None:
        seen.append(os.read(reader, 10))
        loop.forget(reader)
        loop.forget(reader)
        loop.later(0.01, stop)

    def stop() -> None:
        seen.append(b"stop")
        loop.running = False

    loop.watch(reader, ready)
    loop.later(0.02, lambda: os.write(writer, b"second"))
    loop.later(0.0, lambda: seen.append(b"first"))
    loop.run()
    assert seen == [b"first", b"second", b"stop"]
    os.close(reader)
    os.close(writer)


def test_an_error_concerns_one_callback(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop()

    def stop() -> None:
        loop.running = False

    loop.later(0.0, lambda: [][0])
    loop.later(0.001, stop)
    loop.run()
    assert "IndexError" in capsys.readouterr().err


def test_what_another_callback_has_forgotten_is_not_called() -> None:
    loop, called = Loop(), []
    pairs = [os.pipe() for _ in range(2)]
    readers = [reader for reader, _ in pairs]

    def ready(_: int) -> None:
        called.append(1)
        for reader in readers:
            loop.forget(reader)
        loop.running = False

    for reader, writer in pairs:
        os.write(writer, b"x")
        loop.watch(reader, ready)
    loop.run()
    assert called == [1]
    for reader, writer in pairs:
        os.close(reader)
        os.close(writer)
