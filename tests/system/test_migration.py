"""Instances and volumes between two servers, by the protocol of LXD's own client."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import fixtures, leaks
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch

MAKE = """
mkdir -p /data/deep && cd /data
echo one >a && ln a b && ln -s a l && mkfifo p && chown 1000:1001 a && chmod 4755 b
dd if=/dev/zero of=sparse bs=1 count=1 seek=5000000 2>/dev/null
"""
DIGEST = """
cd /data && find . | sort | xargs -n1 stat -c '%n %F %a %u %g' && cat a
find . -type f | sort | xargs -n1 stat -c '%n %h %s %Y'
"""


class Pair:
    """Two servers and a client that knows them as "here" and "there"."""

    def __init__(self, here: Daemon, there: Daemon, conf: Path) -> None:
        self.here, self.there = here, there
        self.environment = {**here.environment, "LXD_CONF": str(conf), "LXPY_CONF": str(conf)}
        remotes = {
            name: {"addr": f"unix://{daemon.socket}", "public": False}
            for name, daemon in (("here", here), ("there", there))
        }
        conf.mkdir(exist_ok=True)
        (conf / "config.yml").write_text(
            yaml.safe_dump({"default-remote": "local", "remotes": remotes})
        )

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=120,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.there.tail()}"
        return done


@pytest.fixture(scope="module")
def other_daemon(work_directory: Path, commands: Path, busybox_image: Path) -> Iterator[Daemon]:
    """The second server."""
    daemon = Daemon(work_directory / "other", commands)
    try:
        daemon.start()
        fixtures.warm_up(daemon, work_directory / "warm-other.tar.gz")
        yield daemon
        daemon.remove()
    finally:
        daemon.destroy()


@pytest.fixture
def pair(daemon: Daemon, other_daemon: Daemon, work_directory: Path) -> Iterator[Pair]:
    if not other_daemon.running:
        other_daemon.start()
    before = leaks.take(other_daemon)
    yield Pair(daemon, other_daemon, work_directory / "pair.conf")
    if not other_daemon.running:
        other_daemon.start()
    for name in set(other_daemon.instances()) - before.instances:
        other_daemon.delete(name)
    leaks.check(other_daemon, before)


def digest(daemon: Daemon, name: str) -> str:
    """What an instance that runs has below /data."""
    return daemon.out(name, "sh", "-c", DIGEST)


def prepared(daemon: Daemon, launch: Launch) -> tuple[str, list[str]]:
    """A stopped instance with two snapshots; its name, and the digests of all three states."""
    name = launch(config={"user.note": "kept"})
    daemon.exec(name, "sh", "-c", MAKE)
    found = [digest(daemon, name)]
    daemon.api.post(f"/1.0/instances/{name}/snapshots", {"name": "s0"})
    daemon.exec(name, "sh", "-c", "cd /data && rm -r deep && echo two >>a && echo new >c")
    found.append(digest(daemon, name))
    daemon.api.post(f"/1.0/instances/{name}/snapshots", {"name": "s1"})
    daemon.exec(name, "sh", "-c", "echo last >/data/last")
    found.append(digest(daemon, name))
    fixtures.change(daemon, name, "stop")
    return name, found


def check_same(there: Daemon, name: str, digests: list[str]) -> None:
    """Start it in each of its states."""
    for snapshot, expected in zip((None, "s1", "s0"), reversed(digests), strict=True):
        if snapshot:
            there.api.put(f"/1.0/instances/{name}", {"restore": snapshot})
        fixtures.change(there, name, "start")
        assert digest(there, name) == expected, snapshot
        fixtures.change(there, name, "stop")


@pytest.mark.skipif(not fixtures.have_lxc(), reason="needs lxc")
def test_lxc_copies_and_moves_with_snapshots(pair: Pair, launch: Launch) -> None:
    name, digests = prepared(pair.here, launch)
    pair.run("lxc", "copy", f"here:{name}", "there:copied", "--mode", "relay")
    source = pair.here.api.get(f"/1.0/instances/{name}/snapshots?recursion=1")
    target = pair.there.api.get("/1.0/instances/copied/snapshots?recursion=1")
    assert [(s["name"], s["created_at"]) for s in source] == [
        (s["name"], s["created_at"]) for s in target
    ]
    assert pair.there.api.get("/1.0/instances/copied")["config"]["user.note"] == "kept"
    check_same(pair.there, "copied", digests)
    pair.there.delete("copied")
    pair.run("lxc", "move", f"here:{name}", "there:", "--mode", "relay")
    assert name not in pair.here.instances()
    check_same(pair.there, name, digests)
