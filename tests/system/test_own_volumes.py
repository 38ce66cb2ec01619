"""Images and backups in custom volumes: moved there and back, through crashes; nothing is lost."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.images import busybox
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import change, create, import_image

IMAGES, BACKUPS = "storage.images_volume", "storage.backups_volume"


def configure(daemon: Daemon, **values: str) -> None:
    config = {f"storage.{key}_volume": value for key, value in values.items()}
    daemon.api.call("PATCH", "/1.0", {"config": config})


@pytest.fixture
def daemon(own_daemon: Daemon, tmp_path: Path) -> Daemon:
    """A daemon with an image, an instance with a backup, and two volumes."""
    import_image(own_daemon, busybox.build(tmp_path / "tiny.tar.gz", "moved"), "tiny")
    create(own_daemon, "tiny", "c1")
    own_daemon.api.post("/1.0/instances/c1/backups", {"name": "b1"})
    own_daemon.lxpy("storage", "volume", "create", "default", "one")
    own_daemon.lxpy("storage", "volume", "create", "default", "two", "size=64MiB")  # is mounted
    return own_daemon


def holds(daemon: Daemon) -> None:
    """Everything is there, and more can be added."""
    name = daemon.name("n")
    create(daemon, "tiny", name)
    daemon.delete(name)
    _, _, data = daemon.api.raw("GET", "/1.0/instances/c1/backups/b1/export")
    assert len(data) > 1000
    daemon.api.post("/1.0/instances/c1/backups", {"name": name})
    daemon.api.call("DELETE", f"/1.0/instances/c1/backups/{name}")
    assert not [each for each in daemon.directory.iterdir() if each.name.endswith((".old", ".new"))]


def test_there_and_back(daemon: Daemon, tmp_path: Path) -> None:
    configure(daemon, images="default/one", backups="default/one")
    for name in ("images", "backups"):
        link = daemon.directory / name
        assert link.is_symlink() and link.exists() and "one" in str(link.readlink())
    holds(daemon)
    url = "/1.0/storage-pools/default/volumes/custom/one"
    assert daemon.api.get(url)["used_by"] == ["/1.0"]
    with pytest.raises(ApiError, match="The storage volume is still in use"):
        daemon.api.call("DELETE", url)
    with pytest.raises(ApiError, match="in use"):
        daemon.api.post(url, {"name": "other"})
    daemon.restart()
    holds(daemon)
    configure(daemon, images="default/two")  # from one to another
    assert "two" in str((daemon.directory / "images").readlink())
    holds(daemon)
    daemon.shutdown()  # nothing stays mounted
    daemon.start()
    holds(daemon)
    configure(daemon, images="", backups="")
    for name in ("images", "backups"):
        assert (daemon.directory / name).is_dir() and not (daemon.directory / name).is_symlink()
    holds(daemon)
    daemon.api.call("DELETE", url)


def test_what_is_refused(daemon: Daemon) -> None:
    daemon.lxpy("storage", "volume", "create", "default", "block", "--type", "block", "size=1MiB")
    for value, text in (
        ("nope", "Invalid syntax for volume, must be <pool>/<volume>"),
        ("nope/x", 'Unable to load storage pool "nope": Storage pool not found'),
        ("default/x", 'Failed loading storage volume "default/x" in "default" project'),
        ("default/block", "is not filesystem content type"),
    ):
        with pytest.raises(ApiError, match=f'400: Failed validation of "{IMAGES}": .*{text}'):
            configure(daemon, images=value)
    assert not (daemon.directory / "images").is_symlink()
    # All or nothing: the second cannot be had.
    daemon.lxpy("storage", "volume", "create", "default", "small", "size=32MiB")
    filler = daemon.directory / "images/filler"
    filler.write_bytes(bytes(40 << 20))
    with pytest.raises(ApiError, match="Cannot move .*No space left"):
        configure(daemon, backups="default/one", images="default/small")
    filler.unlink()
    config = daemon.api.get("/1.0")["config"]
    assert IMAGES not in config and BACKUPS not in config
    for name in ("images", "backups"):
        assert not (daemon.directory / name).is_symlink()
    holds(daemon)


def test_crashes(daemon: Daemon) -> None:
    """The states in which a daemon that is killed leaves the files: the next one mends them."""
    root = daemon.directory
    images = root / "images"
    # Set, but not moved yet; with a part of a copy.
    configure(daemon, images="default/one")
    target = images.readlink()
    daemon.kill()
    images.unlink()
    shutil.copytree(target, images)
    shutil.copytree(target, target.with_name(f"{target.name}.part"))
    daemon.start()
    assert images.is_symlink()
    holds(daemon)
    # Between the two names of a move there.
    daemon.kill()
    images.unlink()
    shutil.move(target, root / ".images.old")
    daemon.start()
    assert images.is_symlink() and not (root / ".images.old").exists()
    holds(daemon)
    # Between the two names of a move back.
    daemon.kill()
    shutil.copytree(target, root / ".images.new")
    images.unlink()
    daemon.start()
    holds(daemon)
    # In the middle of a move, whenever that is.
    configure(daemon, images="")
    for delay_s in (0.25, 0.35):
        with subprocess.Popen(
            [daemon.commands / "lxpy", "config", "set", f"{IMAGES}=default/two"],
            env=daemon.environment, stderr=subprocess.DEVNULL,
        ):  # fmt: skip
            time.sleep(delay_s)
            daemon.kill()
        daemon.start()
        holds(daemon)
        configure(daemon, images="")
    configure(daemon, images="default/two")


def test_a_volume_that_is_away(daemon: Daemon) -> None:
    """The daemon comes up, and forgets nothing."""
    configure(daemon, images="default/one", backups="default/one")
    volume = (daemon.directory / "images").readlink().parent
    daemon.stop()
    volume.rename(volume.with_name("away"))
    daemon.start()
    assert daemon.api.get("/1.0/images") and daemon.api.get("/1.0/instances/c1/backups")
    change(daemon, "c1", "start")  # its image is unpacked already
    daemon.stop()
    volume.with_name("away").rename(volume)
    daemon.start()
    holds(daemon)
