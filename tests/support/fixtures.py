"""Fixtures of the tests that need a real daemon; imported by their conftest modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images import busybox, distributions
from tests.support import leaks
from tests.support.daemon import Daemon, install_commands

Launch = Callable[..., str]


def why_not() -> str:
    """Why the real thing can't be tested here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in ("nft", "dnsmasq", "ip") if not shutil.which(tool)]
    if not busybox.BUSYBOX.exists():
        missing.append("busybox-static")
    return f"needs {', '.join(missing)}" if missing else ""


@pytest.fixture(scope="session")
def work_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the installations are: below /var/tmp, as /tmp may be a tmpfs; a short path."""
    path = Path(tempfile.mkdtemp(prefix="lxpy-tests-", dir="/var/tmp"))
    path.chmod(0o711)
    yield path
    if os.environ.get("LXPY_TESTS_KEEP") != "1":
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def commands(work_directory: Path) -> Path:
    """A directory with lxpy, lxpyd and lxpy-supervisor of this source tree."""
    if reason := why_not():
        pytest.skip(reason)
    return install_commands(work_directory / "bin")


@pytest.fixture(scope="session")
def shared_daemon(work_directory: Path, commands: Path) -> Iterator[Daemon]:
    """The daemon of most tests."""
    daemon = Daemon(work_directory / "shared", commands)
    try:
        warm_up(daemon.start(), work_directory / "warm.tar.gz")
        yield daemon
        daemon.remove()
    finally:
        daemon.destroy()


def warm_up(daemon: Daemon, image: Path) -> None:
    """Run an instance once: the bridge, its dnsmasq and lxcfs come on first use and stay."""
    fingerprint = import_image(daemon, busybox.build(image, "warm"), "warm")
    name = create(daemon, "warm")
    change(daemon, name, "start")
    daemon.address(name)
    daemon.delete(name)
    daemon.api.delete(f"/1.0/images/{fingerprint}")


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The shared daemon, which a test leaves as it was: no test goes on after a leak."""
    if not shared_daemon.running:
        shared_daemon.start()
    before = leaks.take(shared_daemon)
    yield shared_daemon
    if not shared_daemon.running:
        shared_daemon.start()
    for name in set(shared_daemon.instances()) - before.instances:
        shared_daemon.delete(name)
    leaks.check(shared_daemon, before)


@pytest.fixture
def own_daemon(
    work_directory: Path, commands: Path, request: pytest.FixtureRequest
) -> Iterator[Daemon]:
    """A daemon for one test, to be killed and restarted at will; takes a second."""
    number = request.node.name.replace("[", "-").replace("]", "")[-40:]
    daemon = Daemon(work_directory / f"own-{number}", commands)
    try:
        yield daemon.start()
        daemon.remove()
    finally:
        daemon.destroy()


@pytest.fixture(scope="session")
def busybox_image(work_directory: Path, commands: Path) -> Path:
    """A unified image of a megabyte that boots in no time."""
    return busybox.build(work_directory / "busybox.tar.gz")


@pytest.fixture(scope="session")
def shared_tiny(shared_daemon: Daemon, busybox_image: Path) -> str:
    """Import the tiny image once; its alias."""
    import_image(shared_daemon, busybox_image, "tiny")
    return "tiny"


@pytest.fixture
def tiny(shared_tiny: str, daemon: Daemon) -> str:
    """Alias of the tiny image in the shared daemon."""
    return shared_tiny


@pytest.fixture(scope="session")
def shared_debian13(shared_daemon: Daemon) -> str:
    """Build (once, ever) and import Debian 13; its alias."""
    return distributions.provide(shared_daemon, "debian/13")


@pytest.fixture(scope="session")
def shared_debian12(shared_daemon: Daemon) -> str:
    """Build (once, ever) and import Debian 12; its alias."""
    return distributions.provide(shared_daemon, "debian/12")


@pytest.fixture
def debian13(shared_debian13: str, daemon: Daemon) -> str:
    """Alias of a full Debian 13 in the shared daemon."""
    return shared_debian13


@pytest.fixture
def debian12(shared_debian12: str, daemon: Daemon) -> str:
    """Alias of a full Debian 12 in the shared daemon."""
    return shared_debian12


def import_image(daemon: Daemon, image: Path, alias: str) -> str:
    """Upload a unified image and name it; its fingerprint."""
    done = daemon.api.call(
        "POST",
        "/1.0/images",
        image.read_bytes(),
        {"Content-Type": "application/octet-stream", "X-LXD-filename": image.name},
    )
    fingerprint = str(done["metadata"]["fingerprint"])
    daemon.api.post("/1.0/images/aliases", {"name": alias, "target": fingerprint})
    return fingerprint


def create(daemon: Daemon, image: str, name: str | None = None, **fields: Any) -> str:
    """Create an instance (fields: config, devices, profiles, ephemeral); its name."""
    name = name or daemon.name()
    source = {"type": "image", "alias": image}
    daemon.api.post("/1.0/instances", {"name": name, "source": source, **fields})
    return name


def change(daemon: Daemon, name: str, action: str, **fields: Any) -> None:
    """Start, stop, restart, freeze or unfreeze an instance."""
    body = {"action": action, "timeout": 30, "force": action == "stop", **fields}
    daemon.api.put(f"/1.0/instances/{name}/state", body)


@pytest.fixture
def launch(daemon: Daemon, tiny: str) -> Iterator[Launch]:
    """Create and start instances, by default of the tiny image; deleted after the test."""
    names: list[str] = []

    def make(image: str = tiny, *, start: bool = True, **fields: Any) -> str:
        names.append(create(daemon, image, **fields))
        if start:
            change(daemon, names[-1], "start")
        return names[-1]

    yield make
    left = set(daemon.instances()) if daemon.running else set()
    for name in left.intersection(names):
        daemon.delete(name)


def have_lxc() -> bool:
    """Whether LXD's own client is here."""
    return shutil.which("lxc") is not None and "lxc version" not in (
        subprocess.run(["lxc", "--version"], capture_output=True, text=True).stderr
    )
