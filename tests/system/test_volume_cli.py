"""`lxpy storage volume`, as users type it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.fixtures import Launch


class Volumes:
    """Calls `lxpy storage volume`; what it creates is deleted after the test."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def __call__(self, verb: str, *words: str, **options: Any) -> str:
        return self.daemon.lxpy("storage", "volume", verb, *words, **options).stdout

    def refused(self, verb: str, *words: str) -> str:
        done = self.daemon.lxpy("storage", "volume", verb, *words, check=False)
        assert done.returncode == 1, done.stdout
        return done.stderr

    def names(self) -> list[str]:
        shown = self("list", "default", "-c", "n", "-f", "csv", "type=custom")
        return shown.split()


@pytest.fixture
def volumes(daemon: Daemon) -> Iterator[Volumes]:
    made = Volumes(daemon)
    yield made
    for name in daemon.instances():
        daemon.delete(name)
    for name in made.names():
        if "/" not in name:
            made("delete", "default", name)


def test_a_life(volumes: Volumes) -> None:
    assert "Storage volume v created" in volumes("create", "default", "v", "user.x=1")
    volumes("set", "default", "v", "user.y=2")
    volumes("unset", "default", "v", "user.x")
    assert volumes("get", "default", "v", "user.y").strip() == "2"
    shown = volumes("show", "default", "v")
    assert "content_type: filesystem" in shown and "user.x" not in shown
    volumes("edit", "default", "v", input=shown.replace('description: ""', "description: text"))
    volumes("snapshot", "default", "v")
    volumes("snapshot", "default", "v", "s", "--no-expiry")
    volumes("snapshot", "default", "v", "s", "--reuse")
    assert "already in use" in volumes.refused("snapshot", "default", "v", "s")
    info = volumes("info", "default", "v")
    assert "Description: text" in info and "snap0" in info and "EXPIRES AT" in info
    volumes("rename", "default", "v/snap0", "v/first")
    volumes("edit", "default", "v/first", input="description: oldest\n")
    assert "oldest" in volumes("show", "default", "v/first")
    assert "snapshots stay with their volume" in volumes.refused(
        "rename", "default", "v/first", "w/first"
    )
    volumes("restore", "default", "v", "first")
    volumes("rename", "default", "v", "w")
    assert volumes.names() == ["w", "w/first", "w/s"]
    listed = volumes("list", "default", "-c", "tncuU", "-f", "csv", "w")
    assert listed.splitlines()[:2] == [
        "custom,w,filesystem,0,", "custom (snapshot),w/first,filesystem,0,",
    ]  # fmt: skip
    volumes("delete", "default", "w/first")
    assert "deleted" in volumes("delete", "default", "w")
    assert "not found" in volumes.refused("show", "default", "w")


def test_copies(volumes: Volumes) -> None:
    volumes("create", "default", "v", "--type=block", "size=32MiB", "--description", "a disk")
    volumes("snapshot", "default", "v", "s")
    volumes("copy", "default/v", "default/w")
    volumes("copy", "default/v/s", "default/x", "--volume-only")
    volumes("copy", "default/v", "default/w", "--refresh")
    volumes("move", "default/x", "default/y")
    assert volumes.names() == ["v", "v/s", "w", "w/s", "y"]
    assert "description: a disk" in volumes("show", "default", "y")
    assert "Total: 32.00MiB" in volumes("info", "default", "y")
    assert "<pool>/<volume>" in volumes.refused("copy", "v", "default/z")
    for verb in ("copy", "move"):
        refused = volumes.refused(verb, "default/y", "default/z", "--target-project=none")
        assert "project" in refused.lower()
        refused = volumes.refused(verb, "default/y", "default/z", "--destination-target=none")
        assert "must be a cluster" in refused
    shown = volumes.daemon.lxpy("storage", "show", "default", "--resources").stdout
    assert "inodes:" in shown


def test_attached_to_instances(volumes: Volumes, daemon: Daemon, launch: Launch) -> None:
    name = launch()
    volumes("create", "default", "v")
    volumes("create", "default", "disk", "--type=block", "size=32MiB")
    assert 'Say where volume "v" is to be seen' in volumes.refused("attach", "default", "v", name)
    volumes("attach", "default", "v", name, "/srv/v")
    volumes("attach", "default", "v", name, "again", "/srv/again")
    volumes("attach", "default", "disk", name)
    daemon.exec(name, "sh", "-c", "echo x > /srv/v/f; cat /srv/again/f; test -b /dev/disk")
    assert "specify the device name" in volumes.refused("detach", "default", "v", name)
    volumes("detach", "default", "v", name, "v")
    volumes("detach", "default", "v", name)
    volumes("detach", "default", "disk", name)
    assert "No device found" in volumes.refused("detach", "default", "v", name)
    daemon.lxpy("profile", "create", "p")
    volumes("attach-profile", "default", "v", "p", "/srv/p")
    assert "still in use" in volumes.refused("delete", "default", "v")
    volumes("detach-profile", "default", "v", "p")
    daemon.lxpy("profile", "delete", "p")


def test_backups(volumes: Volumes, tmp_path: Path) -> None:
    volumes("create", "default", "v", "user.x=1")
    volumes("snapshot", "default", "v", "s")
    archive = tmp_path / "v.tar.zst"
    assert "exported successfully" in volumes("export", "default", "v", str(archive))
    assert archive.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    volumes("import", "default", str(archive), "w")
    volumes("export", "default", "v", str(tmp_path), "--volume-only", "--compression=gzip")
    with (tmp_path / "v.tar.gz").open("rb") as opened:
        volumes("import", "default", "-", "x", stdin=opened)
    assert volumes.names() == ["v", "v/s", "w", "w/s", "x"]
    assert volumes("get", "default", "x", "user.x").strip() == "1"
    assert "already exists" in volumes.refused("import", "default", str(archive))
    iso = tmp_path / "image.iso"
    iso.write_bytes(b"x" * 4096)
    assert "requires a volume name" in volumes.refused("import", "default", str(iso))
    volumes("import", "default", str(iso), "disc")
    assert "content_type: iso" in volumes("show", "default", "disc")
