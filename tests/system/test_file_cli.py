"""`lxpy file`: single files, trees in one request, standard streams, what is refused."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.fixtures import Launch


@pytest.fixture(params=["running", "stopped"])
def name(request: pytest.FixtureRequest, launch: Launch) -> str:
    return launch(start=request.param == "running")


def refused(daemon: Daemon, *words: str | Path) -> str:
    done = daemon.lxpy(*words, check=False)
    assert done.returncode == 1
    return done.stderr


def test_push_and_pull(daemon: Daemon, name: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_text("text\n")
    source.chmod(0o640)
    daemon.lxpy("file", "push", source, f"{name}/root/")
    daemon.lxpy("file", "pull", f"{name}/root/source", back)
    assert back.read_text() == "text\n"
    assert stat.S_IMODE(back.stat().st_mode) == 0o640
    back.unlink()
    daemon.lxpy("file", "pull", f"{name}/root/source", f"{name}/etc/passwd", tmp_path / "many")
    assert (tmp_path / "many/source").read_text() == "text\n"
    assert (tmp_path / "many/passwd").exists()
    daemon.lxpy("file", "push", "-", f"{name}/root/in", input="typed")
    assert daemon.lxpy("file", "pull", f"{name}/root/in", "-").stdout == "typed"
    daemon.lxpy("file", "push", "-p", "--uid", "7", "--mode", "600", source, f"{name}/new/one/two")
    headers = daemon.api.raw("HEAD", f"/1.0/instances/{name}/files?path=/new/one/two")[1]
    assert (headers["x-lxd-uid"], headers["x-lxd-mode"]) == ("7", "0600")


def test_links(daemon: Daemon, name: str, tmp_path: Path) -> None:
    daemon.lxpy("file", "create", "--type=symlink", f"{name}/root/l", "../etc/passwd")
    daemon.lxpy("file", "create", "--type=symlink", f"{name}/root/ll", "l")
    daemon.lxpy("file", "pull", f"{name}/root/l", tmp_path / "l")
    assert os.readlink(tmp_path / "l") == "/etc/passwd"
    assert daemon.lxpy("file", "pull", f"{name}/root/ll", "-").stdout.startswith("root:")


def test_create_and_delete(daemon: Daemon, name: str) -> None:
    daemon.lxpy("file", "create", "-p", f"{name}/srv/a/b/")
    daemon.lxpy("file", "create", "--mode=600", f"{name}/srv/a/file")
    assert "--force" in refused(daemon, "file", "create", f"{name}/srv/a/file")
    daemon.lxpy("file", "push", "-", f"{name}/srv/a/file", input="x")
    daemon.lxpy("file", "create", "-f", f"{name}/srv/a/file")
    assert daemon.lxpy("file", "pull", f"{name}/srv/a/file", "-").stdout == ""
    assert "directory not empty" in refused(daemon, "file", "delete", f"{name}/srv/a")
    daemon.lxpy("file", "delete", f"{name}/srv/a/file", f"{name}/srv/a/b", f"{name}/srv/a")
    assert "Not Found" in refused(daemon, "file", "delete", f"{name}/srv/a")
    daemon.lxpy("file", "delete", "--force", f"{name}/srv/a")


def test_trees(daemon: Daemon, name: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub/empty").mkdir(parents=True)
    (tree / "sub").chmod(0o700)
    (tree / "sub/run").write_text("#!/bin/sh\n")
    (tree / "sub/run").chmod(0o755)
    os.chown(tree / "sub/run", 33, 44)
    os.link(tree / "sub/run", tree / "again")
    os.setxattr(tree / "sub/run", "user.note", b"x")
    (tree / "link").symlink_to("sub/run")
    (tree / "big").write_bytes(os.urandom(3 << 20))
    (tree / ("long" * 40)).write_text("long name")
    daemon.lxpy("file", "push", "-r", "-p", tree, f"{name}/srv/up")
    daemon.lxpy("file", "push", "-r", tree, f"{name}/srv/up")
    headers = daemon.api.raw("HEAD", f"/1.0/instances/{name}/files?path=/srv/up/tree/sub/run")[1]
    assert (headers["x-lxd-uid"], headers["x-lxd-gid"]) == ("33", "44")
    daemon.lxpy("file", "pull", "-r", f"{name}/srv/up/tree", tmp_path / "down")
    assert subprocess.run(["diff", "-r", tree, tmp_path / "down/tree"], check=False).returncode == 0
    down = tmp_path / "down/tree"
    assert os.readlink(down / "link") == "sub/run"
    assert (down / "again").samefile(down / "sub/run")
    assert stat.S_IMODE((down / "sub").stat().st_mode) == 0o700
    daemon.lxpy("file", "pull", "-r", f"{name}/srv/up/tree", tmp_path / "down")
    assert "--recursive" in refused(daemon, "file", "pull", f"{name}/srv", tmp_path)
    assert "--recursive" in refused(daemon, "file", "push", tree, f"{name}/srv/up")


def test_a_thousand_files(daemon: Daemon, name: str, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(1000):
        (many / str(number)).write_text("x" * 100)
    began = time.monotonic()
    daemon.lxpy("file", "push", "-r", many, f"{name}/root/")
    daemon.lxpy("file", "pull", "-r", f"{name}/root/many", tmp_path / "back")
    assert time.monotonic() - began < 15
    assert len(os.listdir(tmp_path / "back/many")) == 1000


def test_a_local_link_is_not_written_through(daemon: Daemon, name: str, tmp_path: Path) -> None:
    daemon.lxpy("file", "create", "-p", f"{name}/srv/d/e/f")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "down/d").mkdir(parents=True)
    (tmp_path / "down/d/e").symlink_to(tmp_path / "elsewhere")
    assert "no directory" in refused(
        daemon, "file", "pull", "-r", f"{name}/srv/d", tmp_path / "down"
    )
    assert not os.listdir(tmp_path / "elsewhere")


def test_edit(daemon: Daemon, name: str, tmp_path: Path) -> None:
    daemon.lxpy("file", "create", "--mode=640", f"{name}/root/e")
    daemon.lxpy("file", "edit", f"{name}/root/e", input="from stdin")
    assert daemon.lxpy("file", "pull", f"{name}/root/e", "-").stdout == "from stdin"
    headers = daemon.api.raw("HEAD", f"/1.0/instances/{name}/files?path=/root/e")[1]
    assert headers["x-lxd-mode"] == "0640"


def test_a_snapshot(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    daemon.lxpy("file", "push", "-", f"{name}/root/note", input="then")
    daemon.api.post(f"/1.0/instances/{name}/snapshots", {"name": "s"})
    daemon.lxpy("file", "push", "-", f"{name}/root/note", input="now")
    assert daemon.lxpy("file", "pull", f"{name}@s/root/note", "-").stdout == "then"
    assert "read-only" in refused(daemon, "file", "delete", f"{name}@s/root/note")
    assert "InstanceSnapshot not found" in refused(
        daemon, "file", "pull", f"{name}@t/root/note", "-"
    )


def test_refused(daemon: Daemon, name: str, tmp_path: Path) -> None:
    assert "Invalid source" in refused(daemon, "file", "pull", name, "-")
    assert "Invalid target" in refused(daemon, "file", "push", "/etc/hosts", name)
    assert "Invalid number of arguments" in refused(daemon, "file", "pull", f"{name}/etc/passwd")
    assert "No such file" in refused(daemon, "file", "push", tmp_path / "no", f"{name}/root/")
    assert "Invalid mode" in refused(
        daemon, "file", "push", "--mode=9", "/etc/hosts", f"{name}/root/"
    )
    os.mkfifo(tmp_path / "pipe")
    assert "supported file type" in refused(
        daemon, "file", "push", "-r", tmp_path / "pipe", f"{name}/root/"
    )
