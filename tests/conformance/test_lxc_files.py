"""LXD's client: files pushed, pulled, edited and deleted, in running and in stopped instances."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc

Make = Callable[..., str]


@pytest.fixture(scope="module", params=["running", "stopped"])
def name(request: pytest.FixtureRequest, lxc: Lxc, image: str) -> Iterator[str]:
    """An instance for all tests of one kind; each works in paths of its own."""
    found = f"files-{request.param}"
    lxc("launch" if request.param == "running" else "init", image, found)
    yield found
    lxc("delete", "--force", found)


def test_push_and_pull(lxc: Lxc, name: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_text("text\n")
    source.chmod(0o640)
    os.chown(source, 12, 34)
    lxc("file", "push", source, f"{name}/root/one")
    lxc("file", "pull", f"{name}/root/one", back)
    assert back.read_text() == "text\n"
    assert back.stat().st_mode & 0o7777 == 0o640
    lxc("file", "pull", f"{name}/root/one", tmp_path / "below/" / "x", "-p")
    assert (tmp_path / "below/x").read_text() == "text\n"
    assert lxc("file", "pull", f"{name}/root/one", "-") == "text\n"


def test_owner_and_permissions(lxc: Lxc, name: str, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x")
    lxc("file", "push", "--uid=5", "--gid=6", "--mode=600", tmp_path / "s", f"{name}/root/owned")
    lxc("file", "pull", f"{name}/root/owned", tmp_path / "t")
    assert (tmp_path / "t").stat().st_mode & 0o7777 == 0o600


def test_stdin(lxc: Lxc, name: str) -> None:
    lxc("file", "push", "-", f"{name}/root/stdin", input="from stdin\n")
    assert lxc("file", "pull", f"{name}/root/stdin", "-") == "from stdin\n"


def test_missing_directories(lxc: Lxc, name: str, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x")
    assert "not found" in lxc.refused("file", "push", tmp_path / "s", f"{name}/a/b/c").lower()
    lxc("file", "push", "-p", tmp_path / "s", f"{name}/a/b/c")
    lxc("file", "push", tmp_path / "s", f"{name}/a/b/")
    assert lxc("file", "pull", f"{name}/a/b/s", "-") == "x"


def test_trees(lxc: Lxc, name: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub/empty").mkdir(parents=True)
    (tree / "sub/file").write_text("deep")
    (tree / "link").symlink_to("/etc/hostname")
    lxc("file", "push", "-r", "-p", tree, f"{name}/srv/up")
    lxc("file", "pull", "-r", f"{name}/srv/up/tree", tmp_path / "down")
    down = tmp_path / "down/tree"
    assert (down / "sub/file").read_text() == "deep"
    assert (down / "sub/empty").is_dir()
    assert os.readlink(down / "link") == "/etc/hostname"
    assert "recursive" in lxc.refused("file", "pull", f"{name}/srv/up", tmp_path / "other")


def test_edit(lxc: Lxc, name: str, tmp_path: Path) -> None:
    lxc("file", "push", "-", f"{name}/root/edited", input="before")
    lxc("file", "edit", f"{name}/root/edited", input="after")
    assert lxc("file", "pull", f"{name}/root/edited", "-") == "after"


def test_delete(lxc: Lxc, name: str) -> None:
    lxc("file", "push", "-p", "-", f"{name}/gone/file", input="x")
    assert "directory not empty" in lxc.refused("file", "delete", f"{name}/gone").lower()
    lxc("file", "delete", f"{name}/gone/file", f"{name}/gone")
    assert "not found" in lxc.refused("file", "delete", f"{name}/gone").lower()


def test_a_hundred_megabytes(lxc: Lxc, name: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(1 << 20) * 100)
    lxc("file", "push", source, f"{name}/root/big")
    lxc("file", "pull", f"{name}/root/big", back)
    assert subprocess.run(["cmp", source, back], check=False).returncode == 0
    lxc("file", "delete", f"{name}/root/big")


def test_refused(lxc: Lxc, name: str, tmp_path: Path) -> None:
    assert "not found" in lxc.refused("file", "pull", f"{name}/no/such", "-").lower()
    assert lxc.refused("file", "pull", "no-such-instance/etc/passwd", "-")
    assert lxc.refused("file", "pull", name, "-")


def test_mount(lxc: Lxc, name: str, tmp_path: Path) -> None:
    if not shutil.which("sshfs"):
        pytest.skip("needs sshfs")
    place = tmp_path / "place"
    place.mkdir()
    program = subprocess.Popen(
        ["lxc", "file", "mount", f"{name}/", place], env=lxc.environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(100):
            if place.is_mount():
                break
            time.sleep(0.1)
        (place / "root/mounted").write_text("through sshfs")
        assert lxc("file", "pull", f"{name}/root/mounted", "-") == "through sshfs"
    finally:
        subprocess.run(["umount", "--lazy", place], check=False)
        program.terminate()
        program.wait(10)
