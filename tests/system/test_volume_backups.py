"""Backups of custom volumes: streams and kept files, out of one pool and into another."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch

VOLUMES = "/1.0/storage-pools/default/volumes/custom"
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def names(daemon: Daemon) -> Iterator[list[str]]:
    """Names of volumes that are deleted after the test."""
    made = [daemon.name("v") for _ in range(4)]
    yield made
    for name in daemon.instances():
        daemon.delete(name)
    left = {url.rsplit("/", 1)[1] for url in daemon.api.get(VOLUMES)}
    for name in left.intersection(made):
        daemon.api.delete(f"{VOLUMES}/{name}")


def place(daemon: Daemon, name: str) -> Path:
    return daemon.directory / "storage-pools/default/custom" / name


def stream(daemon: Daemon, name: str, query: str = "") -> bytes:
    status, _, data = daemon.api.raw("GET", f"{VOLUMES}/{name}/export{query}")
    assert status == 200, data
    return data


def receive(daemon: Daemon, name: str, data: bytes, pool: str = "default") -> Any:
    path = f"/1.0/storage-pools/{pool}/volumes/custom"
    return daemon.api.call("POST", path, data, {**OCTETS, "X-LXD-name": name})


def members(data: bytes) -> list[str]:
    done = subprocess.run(["tar", "-t", "--zstd"], input=data, capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def test_a_stream(daemon: Daemon, launch: Launch, names: list[str]) -> None:
    """Of a volume in use: owners, links, attributes and snapshots come back."""
    name, copy, alone, _ = names
    instance = launch()
    daemon.api.post(VOLUMES, {"name": name, "config": {"user.x": "1"}, "description": "text"})
    shown = {"type": "disk", "pool": "default", "source": name, "path": "/data"}
    daemon.api.patch(f"/1.0/instances/{instance}", {"devices": {"data": shown}})
    script = "cd /data; echo one > a; ln a b; chown 12:34 a; ln -s /x l; mkdir -p d/e; chmod 1777 d"
    daemon.exec(instance, "sh", "-c", script)
    os.setxattr(place(daemon, name) / "files/a", "user.key", b"value")
    daemon.api.post(f"{VOLUMES}/{name}/snapshots", {"name": "s"})
    daemon.exec(instance, "sh", "-c", "echo two > /data/a")
    data = stream(daemon, name, "?compression=zstd")
    found = members(data)
    assert found[0] == "backup/index.yaml" and found[-1] == "backup/checksums"
    assert "backup/volume-snapshots/s/a" in found and "backup/volume/a" in found
    receive(daemon, copy, data)
    files = place(daemon, copy) / "files"
    assert (files / "a").read_text() == "two\n" and (files / "b").samefile(files / "a")
    assert ((files / "a").stat().st_uid, (files / "a").stat().st_gid) == (12, 34)
    assert os.getxattr(files / "a", "user.key") == b"value"
    assert os.readlink(files / "l") == "/x" and (files / "d").stat().st_mode & 0o7777 == 0o1777
    shown = daemon.api.get(f"{VOLUMES}/{copy}")
    assert (shown["config"], shown["description"]) == ({"user.x": "1"}, "text")
    daemon.api.put(f"{VOLUMES}/{copy}", {"restore": "s"})
    assert (place(daemon, copy) / "files/a").read_text() == "one\n"
    receive(daemon, alone, stream(daemon, name, "?compression=none&volume-only=1"))
    assert daemon.api.get(f"{VOLUMES}/{alone}/snapshots") == []
    # Nothing of the export is left in the original.
    assert [each["name"] for each in daemon.api.get(f"{VOLUMES}/{name}/snapshots?recursion=1")] == [
        "s"
    ]
    snapshots = daemon.directory / "storage-pools/default/custom-snapshots" / name
    assert [each.name for each in snapshots.iterdir()] == ["s"]


def test_broken_archives_leave_nothing(daemon: Daemon, names: list[str]) -> None:
    name, copy, *_ = names
    daemon.api.post(VOLUMES, {"name": name})
    (place(daemon, name) / "files/big").write_bytes(os.urandom(1 << 20))
    data = stream(daemon, name, "?compression=none")
    altered = bytearray(data)
    altered[len(data) // 2] ^= 1
    for each in (data[: len(data) // 2], bytes(altered), b"x" * 1024):
        with pytest.raises(ApiError, match=r"(?i)backup"):
            receive(daemon, copy, each)
    with pytest.raises(ApiError, match="already exists"):
        receive(daemon, name, data)
    assert [url.rsplit("/", 1)[1] for url in daemon.api.get(VOLUMES)] == [name]
    assert not place(daemon, copy).exists()


def test_a_block_volume(daemon: Daemon, names: list[str]) -> None:
    name, copy, *_ = names
    body = {"name": name, "content_type": "block", "config": {"size": "64MiB"}}
    daemon.api.post(VOLUMES, body)
    with (place(daemon, name) / "root.img").open("r+b") as disk:
        disk.seek(32 << 20)
        disk.write(b"in the middle")
    daemon.api.post(f"{VOLUMES}/{name}/snapshots", {})
    data = stream(daemon, name, "?compression=zstd")
    assert {"backup/volume.img", "backup/volume-snapshots/snap0.img"} <= set(members(data))
    assert len(data) < 1 << 20
    receive(daemon, copy, data)
    copied = place(daemon, copy) / "root.img"
    assert copied.read_bytes() == (place(daemon, name) / "root.img").read_bytes()
    assert copied.stat().st_blocks < 10_000
    found = daemon.api.get(f"{VOLUMES}/{copy}")
    assert (found["content_type"], found["config"]) == ("block", {"size": "64MiB"})


def test_kept_backups(daemon: Daemon, names: list[str]) -> None:
    api, (name, copy, *_) = daemon.api, names
    api.post(VOLUMES, {"name": name})
    backups = f"{VOLUMES}/{name}/backups"
    done = api.post(backups, {"volume_only": True, "compression_algorithm": "gzip"})
    assert done["resources"]["backups"] == ["/1.0/backups/backup0"]
    api.post(backups, {"name": "other"})
    with pytest.raises(ApiError, match='Backup "other" already exists'):
        api.post(backups, {"name": "other"})
    api.post(f"{backups}/other", {"name": "renamed"})
    found = api.get(f"{backups}?recursion=1")
    assert [(each["name"], each["volume_only"]) for each in found] == [
        ("backup0", True), ("renamed", False),
    ]  # fmt: skip
    status, _, data = api.raw("GET", f"{backups}/backup0/export")
    assert status == 200 and data[:2] == b"\x1f\x8b" and found[0]["size"] == len(data)
    receive(daemon, copy, data)
    api.delete(f"{backups}/backup0")
    with pytest.raises(ApiError, match='volume backup not found: "backup0"'):
        api.get(f"{backups}/backup0")
    # The last one goes with its volume.
    api.delete(f"{VOLUMES}/{name}")
    assert not list((daemon.directory / "backups").glob("volumes/*"))
