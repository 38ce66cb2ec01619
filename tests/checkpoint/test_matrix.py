"""Every guest in every set-up: stopped and started, rolled back, doubled, with its memory.

`make checkpoint-matrix` runs all, `make checkpoint-matrix K=debian` some; what was found before is
kept. A cell that fails is told in docs/checkpoint-support.md, and fails the run.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lxpy.services.memory.criu import PREFIX
from tests.checkpoint import guests, report
from tests.checkpoint.guests import GUESTS, Facts, Guest
from tests.checkpoint.setups import SETUPS, Setup
from tests.checkpoint.worker import Worker, serve
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not os.path.exists(f"{PREFIX}/bin/criu"), reason="needs CRIU (packaging/criu.sh)"
    ),
]
_CELLS = [
    pytest.param(guest, setup, id=f"{guest.title}-{setup.title}".lower().replace(" ", "_"))
    for guest in GUESTS
    for setup in SETUPS
    if setup.suits(guest)
]
_provided: dict[str, str] = {"tiny": ""}


class Trial:
    """One instance of a guest in a set-up, and what it is put through."""

    def __init__(
        self, daemon: Daemon, guest: Guest, setup: Setup, name: str, peer: str, cell: report.Cell
    ) -> None:
        self.daemon = daemon
        self.guest = guest
        self.setup = setup
        self.name = name
        self.peer = peer
        self.cell = cell
        self.worker = Worker.begin(daemon, name, daemon.address(peer))
        setup.prepare(daemon, name)
        self.facts = Facts.of(guest, daemon, name)

    def well(self, name: str) -> None:
        """Check all that is the same in the instance and in its twin."""
        daemon = self.daemon
        self.worker.counts(daemon, name)
        self.setup.check(daemon, name)
        guests.network_works(daemon, name, self.peer)
        guests.console_works(daemon, name, asks=self.guest.asks)
        self.guest.serves(daemon, name)
        daemon.exec(name, "test", "-S", "/dev/.lxc/notify")
        guests.nothing_spins(daemon, name)

    def as_before(self) -> None:
        """Check that it is as it was, connection and all."""
        self.worker.answers(self.daemon, self.name)
        self.well(self.name)
        assert Facts.of(self.guest, self.daemon, self.name) == self.facts

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.cell["seconds"][step] = round(time.monotonic() - begin, 2)

    def stop_and_start(self) -> None:
        with self.setup.during(self.daemon, self.name), self.timed("stop --stateful"):
            self.daemon.lxpy("stop", self.name, "--stateful")
        with self.timed("start"):
            self.daemon.lxpy("start", self.name)
        self.as_before()

    def snapshot_and_restore(self) -> None:
        self.daemon.exec(self.name, "sh", "-c", "echo before >/root/file")
        with self.setup.during(self.daemon, self.name):
            with self.timed("snapshot --stateful"):
                self.daemon.lxpy("snapshot", self.name, "s1", "--stateful")
            then = self.worker.counts(self.daemon, self.name)
        for _ in range(2):
            self.daemon.exec(self.name, "sh", "-c", "echo after >/root/file")
            with self.timed("restore"):
                self.daemon.lxpy("restore", self.name, "s1", "--stateful")
            assert self.worker.counts(self.daemon, self.name) <= then + 50
            assert self.daemon.out(self.name, "cat", "/root/file") == "before"
        self.as_before()
        self.daemon.lxpy("delete", f"{self.name}/s1")

    def fork(self) -> None:
        twin = self.daemon.name("twin")
        with self.setup.during(self.daemon, self.name):
            try:
                with self.timed("fork"):
                    self.daemon.lxpy("fork", self.name, twin)
                assert self.daemon.out(twin, "hostname") == twin
                self.daemon.address(twin)
                assert not guests.addresses(self.daemon, twin) & _moving(self.facts)
                self.well(twin)
            finally:
                self.daemon.delete(twin)
        self.as_before()


def _moving(facts: Facts) -> set[str]:
    """Addresses that a twin has for itself: those that were given by DHCP."""
    return {address for address in facts.addresses if address.startswith("eth0 ")}


@pytest.mark.parametrize(("guest", "setup"), _CELLS)
def test_cell(daemon: Daemon, launch: Launch, guest: Guest, setup: Setup) -> None:
    cell = report.new_cell()
    try:
        image = _image(daemon, guest)
    except AssertionError as error:
        cell["untried"] = re.sub(r"https?://\S+/| \(.*", "", _brief(error))
        report.keep(guest.title, setup.title, cell)
        pytest.skip(f"no image: {_brief(error)}")
    peer = launch()
    serve(daemon, peer)
    name = launch(image, config=setup.config, devices=setup.devices(daemon))
    guest.boot(daemon, name)
    trial = Trial(daemon, guest, setup, name, peer, cell)
    if reason := setup.refused(guest):
        cell["refused"] = _refused(daemon, name, reason)
        trial.as_before()
    else:
        operations: tuple[Callable[[], None], ...] = (
            trial.snapshot_and_restore, trial.stop_and_start, trial.fork,
        )  # fmt: skip
        for title, operation in zip(report.OPERATIONS, operations, strict=True):
            cell["failures"][title] = _why_not(operation)
            if daemon.status(name) != "Running":
                break
    report.keep(guest.title, setup.title, cell)
    assert not any(cell["failures"].values()), cell["failures"]


def _image(daemon: Daemon, guest: Guest) -> str:
    """Have the image of a guest once. Raises AssertionError, the second time at once."""
    if guest.alias not in _provided:
        try:
            guest.provide(daemon)
            _provided[guest.alias] = ""
        except AssertionError as error:
            _provided[guest.alias] = str(error)
    if problem := _provided[guest.alias]:
        raise AssertionError(problem)
    return guest.alias


def _refused(daemon: Daemon, name: str, words: str) -> str:
    """Check that it is told before, and that a stop leaves it as it is; the reason given."""
    checked = daemon.lxpy("checkpoint", "--check", name, check=False)
    assert checked.returncode == 1 and words in checked.stdout, checked.stdout
    done = daemon.lxpy("stop", name, "--stateful", check=False)
    assert done.returncode != 0 and "cannot be saved" in done.stderr, done.stderr
    return f"a process {words}"


def _why_not(operation: Callable[[], None]) -> str:
    try:
        operation()
    except AssertionError as error:
        return _brief(error)
    return ""


def _brief(error: AssertionError) -> str:
    """The error in a line, without the command that has it."""
    lines = [line for line in str(error).rpartition(": Error: ")[2].splitlines() if line.strip()]
    return lines[0][:300] if lines else "an assertion without words"
