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
    pair.run("lxc", "move", f"here:{name}", "there:", "--mode", "relay", "--mode", "relay")
    assert name not in pair.here.instances()
    check_same(pair.there, name, digests)


def test_lxpy_copies_refreshes_and_moves(pair: Pair, launch: Launch) -> None:
    name, digests = prepared(pair.here, launch)
    before = pair.here.api.get(f"/1.0/instances/{name}")["config"]
    pair.run("lxpy", "copy", f"here:{name}", "there:copied")
    check_same(pair.there, "copied", digests)
    taken = pair.there.api.get("/1.0/instances/copied")["config"]
    for key in ("volatile.uuid", "volatile.eth0.hwaddr"):
        assert taken[key] != before[key], "a copy is not the original"

    pair.here.api.delete(f"/1.0/instances/{name}/snapshots/s0")
    fixtures.change(pair.here, name, "start")
    pair.here.exec(name, "sh", "-c", "echo newer >/data/a; rm /data/c")
    digests = [digests[1], digest(pair.here, name)]
    pair.here.api.post(f"/1.0/instances/{name}/snapshots", {"name": "s2"})
    pair.run("lxpy", "copy", "--refresh", f"here:{name}", "there:copied")
    fixtures.change(pair.here, name, "stop")
    listed = pair.there.api.get("/1.0/instances/copied/snapshots?recursion=1")
    assert [each["name"] for each in listed] == ["s1", "s2"]
    fixtures.change(pair.there, "copied", "start")
    assert digest(pair.there, "copied") == digests[1]
    fixtures.change(pair.there, "copied", "stop")

    pair.run("lxpy", "copy", f"here:{name}/s1", "there:ofsnapshot")
    fixtures.change(pair.there, "ofsnapshot", "start")
    assert digest(pair.there, "ofsnapshot") == digests[0]

    pair.run("lxpy", "move", f"here:{name}", "there:moved")
    assert name not in pair.here.instances()
    moved = pair.there.api.get("/1.0/instances/moved")["config"]
    for key in ("volatile.uuid", "volatile.eth0.hwaddr"):
        assert moved[key] == before[key], "what moves stays who it is"


def test_volumes_go_along(pair: Pair) -> None:
    volumes = "/1.0/storage-pools/default/volumes/custom"
    tree = pair.here.directory / "storage-pools/default/custom/v/files"
    pair.here.api.post(volumes, {"name": "v", "config": {"user.note": "kept"}})
    try:
        (tree / "file").write_text("one")
        pair.here.api.post(f"{volumes}/v/snapshots", {"name": "s0"})
        (tree / "file").write_text("two")
        pair.run("lxpy", "storage", "volume", "copy", "here:default/v", "there:default/w")
        (tree / "file").write_text("three")
        pair.here.api.post(f"{volumes}/v/snapshots", {"name": "s1"})
        words = ("copy", "--refresh", "here:default/v", "there:default/w")
        pair.run("lxpy", "storage", "volume", *words)
        pair.run("lxpy", "storage", "volume", "move", "here:default/v", "there:default/x")
    finally:
        left = [each["name"] for each in pair.here.api.get(f"{volumes}?recursion=1")]
        if "v" in left:
            pair.here.api.delete(f"{volumes}/v")
    there = pair.there.directory / "storage-pools/default/custom"
    try:
        for name in ("w", "x"):
            assert pair.there.api.get(f"{volumes}/{name}")["config"]["user.note"] == "kept"
            for snapshot, text in (("", "three"), ("s0", "one"), ("s1", "three")):
                if snapshot:
                    pair.there.api.put(f"{volumes}/{name}", {"restore": snapshot})
                assert (there / name / "files/file").read_text() == text
    finally:
        for name in ("w", "x"):
            pair.there.api.delete(f"{volumes}/{name}")
    assert left == []


def test_what_fails_leaves_nothing(pair: Pair, launch: Launch) -> None:
    """The leak check of both servers looks for the rest."""
    name = launch(start=False)
    done = pair.run("lxpy", "copy", f"here:{name}", "there:copy", "-s", "nopool", check=False)
    assert done.returncode != 0 and "nopool" in done.stderr
    done = pair.run("lxpy", "copy", f"here:{name}", "there:", "-p", "noprofile", check=False)
    assert done.returncode != 0 and "noprofile" in done.stderr
    done = pair.run("lxpy", "move", f"here:{name}", "there:", "--mode", "pull", check=False)
    assert done.returncode != 0 and "isn't listening on the network" in done.stderr
    assert pair.there.instances() == []
    assert name in pair.here.instances()


def test_running_instances_are_refused_or_copied_from_a_snapshot(
    pair: Pair, launch: Launch
) -> None:
    name = launch()
    done = pair.run("lxc", "copy", f"here:{name}", "there:", "--mode", "relay", check=False)
    assert "Unable to perform container live migration: memory goes along with" in done.stderr
    assert pair.here.status(name) == "Running" and pair.there.instances() == []
    pair.run("lxpy", "copy", f"here:{name}", "there:stopped")
    assert pair.here.status(name) == "Running"
    fixtures.change(pair.there, "stopped", "start")
