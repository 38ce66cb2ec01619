"""kill -9 of the daemon in every storage operation: it is done or undone, and works when repeated.

LXPY_CRASH_POINTS says how often each is interrupted, at random moments; LXPY_CRASH_SEED chooses
others.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.api import ApiError
from tests.support.bench import VOLUMES, Bench
from tests.support.daemon import Daemon
from tests.support.fixtures import change, import_image
from tests.support.interrupted import (
    ARCHIVES,
    ON_OTHERS,
    OPERATIONS,
    VOLUME_ARCHIVES,
    Operation,
    archive,
)
from tests.support.processes import wait_until
from tests.system.test_crash import killed_in_the_middle

POINTS = int(os.environ.get("LXPY_CRASH_POINTS", "2"))
GROUNDS = {"dir": {}, "btrfs": {"size": "2GiB"}}
ALL = OPERATIONS | ON_OTHERS


@pytest.fixture(scope="module", params=GROUNDS)
def bench(
    request: pytest.FixtureRequest, work_directory: Path, commands: Path, busybox_image: Path
) -> Iterator[Bench]:
    """A pool with something on it, and an instance that runs."""
    daemon = Daemon(work_directory / f"crash-{request.param}", commands)
    try:
        daemon.start()
        import_image(daemon, busybox_image, "tiny")
        made = Bench(daemon, request.param, GROUNDS[request.param])
        made.fill()
        made.create("live")
        change(daemon, "live", "start")
        ARCHIVES[daemon.directory] = archive(made)
        VOLUME_ARCHIVES[daemon.directory] = archive(made, f"{VOLUMES}/disk")
        yield made
        daemon.remove()
    finally:
        daemon.destroy()


@pytest.mark.timeout(60 + 30 * POINTS)
@pytest.mark.parametrize("kind", ALL)
def test_killed_during(kind: str, bench: Bench) -> None:
    operation, daemon = ALL[kind], bench.daemon
    took = in_peace(bench, operation)
    before, opened = leaks.take(daemon), bench.open_on_host()
    chance = random.Random(f"{kind} {POINTS} {os.environ.get('LXPY_CRASH_SEED', '')}")
    for number in range(POINTS):
        name = f"r{number}"
        operation.prepare(bench, name)
        after_s = chance.uniform(0, took * 1.1)
        killed_in_the_middle(daemon, lambda name=name: operation.act(bench, name), after_s)
        daemon.start()
        note = f"{kind} killed after {after_s:.4f} s of {took:.4f}"
        try:
            bench.check()
            if not operation.is_done(bench, name):
                operation.act(bench, name)
                assert operation.is_done(bench, name) or kind == "export"
            bench.check()
            bench.clear()
            wait_until(lambda: bench.open_on_host() == opened, 10, "nothing left open")
            leaks.check(daemon, before, 10)
        except (AssertionError, ApiError, OSError) as error:
            left = f"{bench.open_on_host() ^ opened}"
            raise AssertionError(f"{note}: {error}\n{left}\n{daemon.tail(15)}") from error


def in_peace(bench: Bench, operation: Operation) -> float:
    """Do it once undisturbed; how long it took."""
    operation.prepare(bench, "calm")
    begin = time.monotonic()
    try:
        operation.act(bench, "calm")
    except ApiError as error:
        if "NotSupported" in str(error) or "no quotas" in error.text:
            pytest.skip(error.text)
        raise
    took = time.monotonic() - begin
    operation.is_done(bench, "calm")
    bench.clear()
    return took
