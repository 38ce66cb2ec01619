"""What is written on the volumes of instances, and goes along with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch

VOLUMES = "/1.0/storage-pools/default/volumes/container"


def on(daemon: Daemon, volume: str) -> tuple[str | None, str]:
    """The option user.x of a volume (INSTANCE or INSTANCE/SNAPSHOT), and its description."""
    found = daemon.api.get(f"{VOLUMES}/{volume.replace('/', '/snapshots/')}")
    return found["config"].get("user.x"), found["description"]


def write(daemon: Daemon, name: str, value: str) -> None:
    body = {"config": {"user.x": value}, "description": f"about {value}"}
    daemon.api.patch(f"{VOLUMES}/{name}", body)


@pytest.fixture
def written(daemon: Daemon, launch: Launch) -> str:
    """A stopped instance with something else on its volume than on that of its snapshot."""
    name = launch(start=False)
    write(daemon, name, "then")
    daemon.api.post(f"/1.0/instances/{name}/snapshots", {"name": "s0"})
    write(daemon, name, "now")
    return name


def check(daemon: Daemon, name: str) -> None:
    assert on(daemon, name) == ("now", "about now")
    assert on(daemon, f"{name}/s0") == ("then", "about then")


def test_snapshot_and_restore(daemon: Daemon, written: str) -> None:
    check(daemon, written)
    listed = daemon.api.get(f"{VOLUMES}?recursion=1")
    (found,) = [each for each in listed if each["name"] == f"{written}/s0"]
    assert found["config"]["user.x"] == "then" and found["description"] == "about then"
    daemon.api.put(f"/1.0/instances/{written}", {"restore": "s0"})
    assert on(daemon, written) == ("then", "about then")
    snapshot = f"{VOLUMES}/{written}/snapshots/s0"
    (shown,) = daemon.api.get(f"{VOLUMES}/{written}/snapshots?recursion=1")
    assert shown == daemon.api.get(snapshot)
    daemon.api.put(snapshot, {"description": "other", "expires_at": shown["expires_at"]})
    assert on(daemon, f"{written}/s0") == ("then", "other")
    with pytest.raises(ApiError, match="ends with the snapshot of the instance"):
        daemon.api.patch(snapshot, {"expires_at": "2099-01-01T00:00:00Z"})
    with pytest.raises(ApiError, match="404"):
        daemon.api.get(f"{VOLUMES}/{written}/snapshots/none")


def test_replaced_or_removed(daemon: Daemon, written: str) -> None:
    path = f"{VOLUMES}/{written}"
    etag = daemon.api.raw("GET", path)[1]["etag"]
    daemon.api.put(path, {"config": {"user.y": "1"}})
    assert daemon.api.get(path)["config"] == {"user.y": "1"} and on(daemon, written)[1] == ""
    status, _, _ = daemon.api.raw("PUT", path, {}, {"If-Match": etag})
    assert status == 412
    daemon.api.put(path, {})
    assert daemon.api.get(path)["config"] == {}


def test_survives_the_daemon(daemon: Daemon, written: str) -> None:
    daemon.restart()
    check(daemon, written)


def test_copied_and_refreshed(daemon: Daemon, written: str) -> None:
    copy = daemon.name()
    source: dict[str, Any] = {"type": "copy", "source": written}
    daemon.api.post("/1.0/instances", {"name": copy, "source": source})
    check(daemon, copy)
    write(daemon, copy, "mine")
    daemon.api.post(f"/1.0/instances/{written}/snapshots", {"name": "s1"})
    daemon.api.post("/1.0/instances", {"name": copy, "source": source | {"refresh": True}})
    assert on(daemon, f"{copy}/s1") == ("now", "about now")
    assert on(daemon, copy) == ("mine", "about mine")
    daemon.delete(copy)


def test_exported_and_imported(daemon: Daemon, written: str, tmp_path: Path) -> None:
    daemon.lxpy("export", written, tmp_path / "a.tar.zst")
    daemon.delete(written)
    daemon.lxpy("import", tmp_path / "a.tar.zst")
    check(daemon, written)
