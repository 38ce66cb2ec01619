"""Backups: kept by the daemon, and as streams; out, and in again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change

FILES = (
    "echo mine >/root/file; ln /root/file /root/other; chown 1000:1000 /root/file; "
    "mkfifo /root/pipe; ln -s /etc/passwd /root/link; chmod 4755 /root/file; "
    "dd if=/dev/urandom of=/root/data bs=1k count=300 2>/dev/null; truncate -s 50M /root/sparse"
)


def members(archive: Path) -> list[str]:
    done = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def index_of(archive: Path) -> dict[str, object]:
    command = ["tar", "-xOf", archive, "backup/index.yaml"]
    found = yaml.safe_load(subprocess.run(command, capture_output=True, check=True).stdout)
    assert isinstance(found, dict)
    return found


def export(daemon: Daemon, name: str, path: Path, query: str = "") -> Path:
    """Stream an export into a file."""
    status, _, data = daemon.api.raw("GET", f"/1.0/instances/{name}/export{query}")
    assert status == 200, data
    path.write_bytes(data)
    return path


def snapshot(daemon: Daemon, name: str, snapshot: str) -> None:
    daemon.api.post(f"/1.0/instances/{name}/snapshots", {"name": snapshot})


def snapshots_on_disk(daemon: Daemon, name: str) -> list[str]:
    place = daemon.directory / "storage-pools/default/containers-snapshots" / name
    return sorted(each.name for each in place.iterdir()) if place.exists() else []


def test_an_export_is_an_archive_that_tar_reads(
    daemon: Daemon, launch: Launch, tmp_path: Path
) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", FILES)
    snapshot(daemon, name, "s0")
    daemon.exec(name, "sh", "-c", "echo later >/root/later; mkdir /root/dir")
    archive = export(daemon, name, tmp_path / "a.tar.zst")
    found = members(archive)
    assert found[0] == "backup/index.yaml"
    assert found[-1] == "backup/checksums"
    assert "backup/snapshots/s0/rootfs/root/file" in found
    assert "backup/snapshots/s0/rootfs/root/later" not in found
    assert "backup/container/rootfs/root/later" in found
    assert {"backup/container/backup.yaml", "backup/container/metadata.yaml"} <= set(found)
    about = index_of(archive)
    assert (about["name"], about["snapshots"], about["type"]) == (name, ["s0"], "container")
    assert snapshots_on_disk(daemon, name) == ["s0"]
    alone = members(export(daemon, name, tmp_path / "b.tar", "?compression=none&instance-only=1"))
    assert not [each for each in alone if "snapshots" in each]


def test_the_daemon_keeps_backups(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    name = launch(start=False)
    url = f"/1.0/instances/{name}/backups"
    done = daemon.api.post(url, {"name": "", "compression_algorithm": "gzip"})
    assert done["resources"]["backups"] == ["/1.0/backups/backup0"]
    daemon.api.post(url, {"instance_only": True, "expires_at": "2020-01-01T00:00:00Z"})
    assert daemon.api.get(url) == [f"{url}/backup0", f"{url}/backup1"]
    found = daemon.api.get(f"{url}/backup1")
    assert (found["instance_only"], found["expires_at"][:4]) == (True, "2020")
    daemon.api.post(f"{url}/backup0", {"name": "weekly"})
    _, headers, data = daemon.api.raw("GET", f"{url}/weekly/export")
    assert int(headers["content-length"]) == daemon.api.get(f"{url}/weekly")["size"] == len(data)
    assert data.startswith(b"\x1f\x8b")
    for body, text in (
        ({"name": "weekly"}, "already exists"),
        ({"name": "a b"}, "Invalid backup name"),
        ({"compression_algorithm": "zip"}, "Invalid compression"),
        ({"optimized_storage": True}, "storage driver's own format"),
    ):
        with pytest.raises(ApiError, match=text):
            daemon.api.post(url, body)
    daemon.restart()  # what has expired goes
    assert f"{url}/weekly" in daemon.api.get(url)
    daemon.api.delete(f"{url}/weekly")
    with pytest.raises(ApiError, match="not found"):
        daemon.api.get(f"{url}/weekly")
    daemon.api.post(url, {"name": "last"})
    daemon.delete(name)
    assert not list((daemon.directory / "backups/instances").glob("*/*"))
