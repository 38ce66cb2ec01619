"""Fixtures of the matrix: those of the system tests, and the page that is written at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.checkpoint import report, setups
from tests.checkpoint.guests import GUESTS
from tests.checkpoint.setups import SETUPS
from tests.support.daemon import Daemon
from tests.support.fixtures import (
    busybox_image,
    commands,
    daemon,
    launch,
    shared_daemon,
    shared_tiny,
    tiny,
    work_directory,
)

__all__ = [
    "busybox_image",
    "commands",
    "daemon",
    "launch",
    "shared_daemon",
    "shared_tiny",
    "tiny",
    "work_directory",
]


@pytest.fixture(scope="session", autouse=True)
def page() -> Iterator[None]:
    """Write what is known then into the documentation."""
    yield
    report.write_page([guest.title for guest in GUESTS], [setup.title for setup in SETUPS])


@pytest.fixture(scope="session", autouse=True)
def volumes(shared_daemon: Daemon) -> None:
    """Make what the set-up with disks shows; it goes with the daemon."""
    setups.provide(shared_daemon)
