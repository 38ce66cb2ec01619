"""Conformance: clients made for LXD, unchanged, drive our daemon. Needs root.

With LXD_CONFORMANCE_DIR=/var/lib/lxd the same checks run against a real LXD, whose default profile
has a root disk and a network card with DHCP: what they ask for is what LXD does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixtures import (
    busybox_image,
    commands,
    shared_daemon,
    work_directory,
)
from tests.support.tls import free_port

__all__ = ["busybox_image", "commands", "shared_daemon", "work_directory"]


PRESEED = """
config: {{core.https_address: "127.0.0.1:{port}", images.auto_update_interval: "0"}}
storage_pools:
- {{name: default, driver: dir}}
- {{name: fast, driver: btrfs, config: {{size: 512MiB}}}}
profiles:
- name: default
  devices:
    root: {{type: disk, path: /, pool: default}}
"""


class Lxc:
    """LXD's own command line against one daemon."""

    def __init__(self, directory: Path, conf: Path) -> None:
        self.directory = directory
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LXD_", "LXPY_"))}
        self.environment = {**kept, "LXD_DIR": str(directory), "LXD_CONF": str(conf)}

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `lxc WORDS`; text in, text out; nothing is checked."""
        options = {"timeout": 60, "stdin": subprocess.DEVNULL} | options
        if "input" in options:
            del options["stdin"]
        argv = ["lxc", *(str(word) for word in words)]
        return subprocess.run(
            argv, env=self.environment, text=True, capture_output=True, check=False, **options
        )

    def __call__(self, *words: str | Path, **options: Any) -> str:
        """Run `lxc WORDS`, which must succeed; what it printed."""
        done = self.run(*words, **options)
        text = f"lxc {' '.join(map(str, words))}: exit {done.returncode}: {done.stderr.strip()}"
        assert done.returncode == 0, text
        return done.stdout

    def refused(self, *words: str | Path, **options: Any) -> str:
        """Run `lxc WORDS`, which must fail with a message; the message."""
        done = self.run(*words, **options)
        assert done.returncode != 0, f"lxc {' '.join(map(str, words))} succeeded: {done.stdout}"
        assert done.stderr.strip(), "it failed without a word"
        return done.stderr

    def query(self, url: str, *words: str) -> Any:
        """The metadata that `lxc query URL` prints."""
        text = self("query", *words, url)
        return json.loads(text) if text.strip() else None

    def status(self, name: str) -> str:
        """The instance's state as `lxc list` shows it."""
        return self("list", f"^{name}$", "-c", "s", "-f", "csv").strip()


class Lxd(Lxc):
    """A daemon and its client; `url` is where it listens, for whom `certificate` is its own."""

    def __init__(self, directory: Path, conf: Path, port: int) -> None:
        super().__init__(directory, conf)
        self.url = f"https://127.0.0.1:{port}"

    @property
    def certificate(self) -> str:
        return (self.directory / "server.crt").read_text()


@pytest.fixture(scope="session")
def lxd_directory(request: pytest.FixtureRequest) -> Path:
    """Where the daemon under test lives."""
    if other := os.environ.get("LXD_CONFORMANCE_DIR"):
        return Path(other)
    return Path(request.getfixturevalue("shared_daemon").directory)


@pytest.fixture(scope="session")
def lxc(lxd_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Lxc:
    """LXD's own client."""
    if not shutil.which("lxc"):
        pytest.skip("needs LXD's client (lxd-client)")
    return Lxc(lxd_directory, tmp_path_factory.mktemp("lxc"))


@pytest.fixture(scope="session")
def image(lxc: Lxc, busybox_image: Path) -> Iterator[str]:
    """The tiny image, imported by `lxc image import`; its alias."""
    lxc("image", "import", busybox_image, "--alias", "conformance")
    yield "conformance"
    lxc("image", "delete", "conformance")


@pytest.fixture
def instance(lxc: Lxc, image: str) -> Iterator[Callable[..., str]]:
    """Launch (or init) instances by `lxc`; deleted after the test."""
    names: list[str] = []

    def make(name: str, *words: str, verb: str = "launch") -> str:
        names.append(name)
        lxc(verb, image, name, *words)
        return name

    yield make
    for name in names:
        lxc.run("delete", "--force", name)


@pytest.fixture(scope="module")
def running(lxc: Lxc, image: str) -> Iterator[str]:
    """A running instance for tests that only look at it."""
    lxc("launch", image, "looked-at")
    yield "looked-at"
    lxc("delete", "--force", "looked-at")


@pytest.fixture(scope="session")
def lxd(work_directory: Path) -> Iterator[Lxd]:
    """A real LXD of its own, and its client."""
    if os.environ.get("LXD_CONFORMANCE_DIR"):
        pytest.skip("is about us and LXD")
    if os.geteuid() != 0 or not shutil.which("lxd") or not shutil.which("lxc"):
        pytest.skip("needs root and LXD itself (packages lxd, lxd-client)")
    directory, conf = work_directory / "lxd", work_directory / "lxd.conf"
    directory.mkdir(mode=0o711)
    conf.mkdir()
    lxd = Lxd(directory, conf, free_port())
    preseed = PRESEED.format(port=lxd.url.rpartition(":")[2])
    with (work_directory / "lxd.log").open("wb") as log:
        daemon = subprocess.Popen(
            ["lxd", "--group", "root"], env=lxd.environment, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        for command, text in ((["lxd", "waitready", "--timeout=60"], ""),
                              (["lxd", "init", "--preseed"], preseed)):  # fmt: skip
            subprocess.run(command, env=lxd.environment, input=text, text=True, check=True)
        yield lxd
    finally:
        subprocess.run(["lxd", "shutdown", "--timeout=20"], env=lxd.environment, check=False)
        if daemon.poll() is None:
            daemon.terminate()
        daemon.wait(30)
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        for target in reversed([line.split()[4] for line in mounts]):
            if Path(target).is_relative_to(directory):
                subprocess.run(["umount", "--lazy", target], check=False)
