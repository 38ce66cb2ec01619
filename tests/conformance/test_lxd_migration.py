"""Instances and volumes between lxpyd and a real LXD 5.0.2, by LXD's own client, in each mode."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc, Lxd
from tests.support.daemon import Daemon

MAKE = """
mkdir -p /data/deep && cd /data && echo one >a && ln -s a l && mkfifo p && mknod n c 1 3
chown 1000:1001 a && chmod 4755 a && dd if=/dev/zero of=sparse bs=1 count=1 seek=5000000 2>/dev/null
"""
CHANGE = "cd /data && rm -r deep && echo two >>a && echo new >c"
DIGEST = """
cd data && find . | sort | xargs -n1 stat -c '%n %F %a %u %g' && cat a
find . -type f | sort | xargs -n1 stat -c '%n %h %s %Y'
"""
#: storage pools of both that have streams of their own
FAST = "fast"


@pytest.fixture
def remotes(lxc: Lxc, lxd: Lxd) -> Iterator[None]:
    """The other server is known as "other:"."""
    lxd("config", "set", "core.trust_password", "secret")
    lxc("remote", "add", "other", lxd.url, "--accept-certificate", "--password", "secret")
    yield
    for name in lxd("list", "-c", "n", "-f", "csv").split():
        lxd("delete", name)
    lxc("remote", "remove", "other")


@pytest.fixture
def prepared(lxc: Lxc, instance: Callable[..., str]) -> tuple[str, list[str]]:
    """A stopped instance of ours with two snapshots, and what it had below /data in each state."""
    name = instance("travels", "-c", "user.note=kept")
    lxc("exec", name, "--", "sh", "-c", MAKE)
    found = [lxc("exec", name, "--cwd", "/", "--", "sh", "-c", DIGEST)]
    lxc("snapshot", name, "s0")
    lxc("exec", name, "--", "sh", "-c", CHANGE)
    found.append(lxc("exec", name, "--cwd", "/", "--", "sh", "-c", DIGEST))
    lxc("snapshot", name, "s1")
    lxc("exec", name, "--", "sh", "-c", "echo last >/data/last")
    found.append(lxc("exec", name, "--cwd", "/", "--", "sh", "-c", DIGEST))
    lxc("stop", "--force", name)
    return name, found


def digest(tree: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", DIGEST], cwd=tree, capture_output=True, text=True, check=True
    )
    return done.stdout


def check_there(lxd: Lxd, name: str, digests: list[str], pool: str = "default") -> None:
    root = lxd.directory / "storage-pools" / pool
    found = [digest(root / f"containers-snapshots/{name}/{each}/rootfs") for each in ("s0", "s1")]
    assert [*found, digest(root / f"containers/{name}/rootfs")] == digests
    listed = lxd.query(f"/1.0/instances/{name}/snapshots?recursion=1")
    assert [each["name"] for each in listed] == ["s0", "s1"]
    assert lxd.query(f"/1.0/instances/{name}")["config"]["user.note"] == "kept"


def check_here(lxc: Lxc, name: str, digests: list[str]) -> None:
    for snapshot, expected in zip(("", "s1", "s0"), reversed(digests), strict=True):
        if snapshot:
            lxc("restore", name, snapshot)
        lxc("start", name)
        assert lxc("exec", name, "--cwd", "/", "--", "sh", "-c", DIGEST) == expected, snapshot
        lxc("stop", "--force", name)


@pytest.mark.usefixtures("remotes")
@pytest.mark.parametrize("out", ["push", "relay"])
@pytest.mark.parametrize("back", ["pull", "relay"])
def test_there_and_back(
    lxc: Lxc, lxd: Lxd, prepared: tuple[str, list[str]], out: str, back: str
) -> None:
    name, digests = prepared
    lxc("copy", name, "other:there", "--mode", out, "--no-profiles", "-s", "default")
    check_there(lxd, "there", digests)
    lxc("delete", name)
    lxc("move", "other:there", name, "--mode", back)
    assert lxd("list", "-c", "n", "-f", "csv") == ""
    assert lxc.query(f"/1.0/instances/{name}")["config"]["user.note"] == "kept"
    check_here(lxc, name, digests)


@pytest.mark.usefixtures("remotes")
def test_refreshed_in_both_directions(
    lxc: Lxc, lxd: Lxd, prepared: tuple[str, list[str]], instance: Callable[..., str]
) -> None:
    name, digests = prepared
    lxc("delete", f"{name}/s0")
    lxc("copy", name, "other:there", "--mode", "push", "--no-profiles", "-s", "default")
    lxc("start", name)
    lxc("exec", name, "--", "sh", "-c", "echo newest >/data/newest && rm /data/c")
    expected = lxc("exec", name, "--cwd", "/", "--", "sh", "-c", DIGEST)
    lxc("stop", "--force", name)
    lxc("snapshot", name, "s2")
    lxc("copy", name, "other:there", "--mode", "push", "--refresh")
    root = lxd.directory / "storage-pools/default"
    assert digest(root / "containers/there/rootfs") == expected
    assert digest(root / "containers-snapshots/there/s2/rootfs") == expected
    assert digest(root / "containers-snapshots/there/s1/rootfs") == digests[1]

    (root / "containers/there/rootfs/data/byhand").write_text("there\n")
    lxd("snapshot", "there", "s3")
    lxd("delete", "there/s2")
    lxc("copy", "other:there", name, "--refresh")
    listed = lxc.query(f"/1.0/instances/{name}/snapshots?recursion=1")
    assert [each["name"] for each in listed] == ["s1", "s3"]
    lxc("start", name)
    assert lxc("exec", name, "cat", "/data/byhand") == "there\n"


@pytest.mark.usefixtures("remotes")
def test_streams_between_btrfs_pools(lxc: Lxc, lxd: Lxd, prepared: tuple[str, list[str]]) -> None:
    name, digests = prepared
    if not shutil.which("btrfs"):
        pytest.skip("needs btrfs-progs")
    lxc("storage", "create", FAST, "btrfs", "size=512MiB")
    try:
        lxc("copy", name, "fast", "-s", FAST)
        lxc("copy", "fast", "other:there", "--mode", "push", "--no-profiles", "-s", FAST)
        check_there(lxd, "there", digests, FAST)
        lxc("delete", "fast")
        lxc("copy", "other:there", "fast", "-s", FAST)
        lxc("profile", "assign", "fast", "default")
        check_here(lxc, "fast", digests)
    finally:
        lxc.run("delete", "--force", "fast")
        lxc("storage", "delete", FAST)


@pytest.mark.usefixtures("remotes")
def test_volumes(lxc: Lxc, lxd: Lxd, shared_daemon: Daemon) -> None:
    lxc("storage", "volume", "create", "default", "v", "user.note=kept")
    files = shared_daemon.directory / "storage-pools/default/custom/v/files"
    made = ["v"]
    try:
        for number in range(2):
            (files / "file").write_text("x" * number)
            lxc("storage", "volume", "snapshot", "default", "v", f"s{number}")
        (files / "file").write_text("last\n")
        lxc("storage", "volume", "copy", "default/v", "other:default/w", "--mode", "push")
        for path, text in (
            ("custom/default_w", "last\n"),
            ("custom-snapshots/default_w/s0", ""),
            ("custom-snapshots/default_w/s1", "x"),
        ):
            there = lxd.directory / "storage-pools/default" / path
            assert (there / "file").read_text() == text
        lxc("storage", "volume", "move", "other:default/w", "default/x")
        made.append("x")
        assert (files.parents[1] / "x/files/file").read_text() == "last\n"
        lxc("storage", "volume", "restore", "default", "x", "s0")
        assert (files.parents[1] / "x/files/file").read_text() == ""
    finally:
        for name in made:
            lxc("storage", "volume", "delete", "default", name)


@pytest.mark.usefixtures("remotes")
def test_who_cannot_come_is_told(lxc: Lxc, lxd: Lxd, instance: Callable[..., str]) -> None:
    name = instance("stays")
    text = lxc.refused("copy", name, "other:", "--mode", "push", "--no-profiles", "-s", "default")
    assert "Unable to perform container live migration" in text
    lxc("stop", "--force", name)
    text = lxc.refused("copy", name, "other:there", "--mode", "push", "-p", "none-such")
    assert "none-such" in text
    assert lxd("list", "-c", "n", "-f", "csv") == ""
    assert lxc.status(name) == "STOPPED"
