"""Snapshots mounted on the host: what is seen, what is in use, what outlives the daemon."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch

LIST = "/1.0/lxpy/snapshot-mounts"


@pytest.fixture
def place(work_directory: Path) -> Iterator[Path]:
    """An empty directory."""
    path = work_directory / "place"
    path.mkdir()
    yield path
    while os.path.ismount(path):
        subprocess.run(["umount", "--lazy", path], check=True)
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture
def name(launch: Launch, daemon: Daemon) -> str:
    """An instance with a snapshot of files that are gone by now."""
    found = launch()
    daemon.exec(found, "sh", "-c", "echo then > /root/note; chown 12:13 /root/note")
    daemon.api.post(f"/1.0/instances/{found}/snapshots", {"name": "s"})
    daemon.exec(found, "sh", "-c", "rm /root/note")
    return found


def test_mounted(daemon: Daemon, name: str, place: Path) -> None:
    daemon.lxpy("snapshot", "mount", name, "s", place)
    assert (place / "root/note").read_text() == "then\n"
    assert (place / "root/note").stat().st_uid == 12
    with pytest.raises(OSError, match="Read-only"):
        (place / "new").touch()
    assert os.statvfs(place).f_flag & (os.ST_NOSUID | os.ST_NODEV) == os.ST_NOSUID | os.ST_NODEV
    (one,) = json.loads(daemon.lxpy("snapshot", "mount", "--format=json").stdout)
    assert (one["instance"], one["snapshot"], one["directory"]) == (name, "s", str(place))
    with pytest.raises(ApiError, match="in use"):
        daemon.api.delete(f"/1.0/instances/{name}/snapshots/s")
    daemon.lxpy("snapshot", "umount", place)
    assert not os.path.ismount(place) and daemon.api.get(LIST) == []
    assert not (daemon.directory / "snapshot-mounts.json").exists()
    daemon.api.delete(f"/1.0/instances/{name}/snapshots/s")


def test_somebody_works_in_it(daemon: Daemon, name: str, place: Path) -> None:
    daemon.lxpy("snapshot", "mount", name, "s", place)
    with (place / "root/note").open():
        done = daemon.lxpy("snapshot", "umount", place, check=False)
        assert done.returncode == 1 and "cannot be unmounted" in done.stderr
    daemon.lxpy("snapshot", "umount", place)
    done = daemon.lxpy("snapshot", "umount", place, check=False)
    assert "No snapshot is mounted" in done.stderr


def test_refused(daemon: Daemon, name: str, place: Path) -> None:
    url = f"/1.0/instances/{name}/snapshots/s/mount"
    (place / "file").touch()
    for directory, text in (
        ("relative", "absolute path"),
        (str(place), "not empty"),
        (str(place / "missing"), "make it first"),
        (str(place / "file"), "Not a directory"),
        ("/proc", "mounted on"),
    ):
        with pytest.raises(ApiError, match=f"400.*{text}"):
            daemon.api.post(url, {"directory": directory})
    (place / "file").unlink()
    with pytest.raises(ApiError, match='404: Snapshot "t"'):
        daemon.api.post(url.replace("/s/", "/t/"), {"directory": str(place)})
    done = daemon.lxpy("snapshot", "mount", name, check=False)
    assert "Invalid number of arguments" in done.stderr
    assert daemon.api.get(LIST) == []


def test_it_outlives_the_daemon(daemon: Daemon, name: str, place: Path) -> None:
    daemon.lxpy("snapshot", "mount", name, "s", place)
    daemon.kill()
    daemon.start()
    assert (place / "root/note").read_text() == "then\n"
    assert [each["directory"] for each in daemon.api.get(LIST)] == [str(place)]
    with pytest.raises(ApiError, match="in use"):
        daemon.api.delete(f"/1.0/instances/{name}/snapshots/s")
    daemon.lxpy("snapshot", "umount", place)
    daemon.lxpy("snapshot", "mount", name, "s", place)
    daemon.stop()
    subprocess.run(["umount", place], check=True)  # as a reboot does
    daemon.start()
    assert daemon.api.get(LIST) == []
    daemon.api.delete(f"/1.0/instances/{name}/snapshots/s")


def test_a_shutdown_takes_it_away(own_daemon: Daemon, busybox_image: Path, place: Path) -> None:
    own_daemon.lxpy("image", "import", busybox_image, "--alias", "tiny")
    own_daemon.lxpy("init", "tiny", "c1")
    own_daemon.lxpy("snapshot", "c1", "s")
    own_daemon.lxpy("snapshot", "mount", "c1", "s", place)
    with (place / "etc/passwd").open():
        own_daemon.shutdown()
    assert not os.path.ismount(place)
