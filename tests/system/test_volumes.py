"""Custom volumes in running instances: shared, resized, frozen for a snapshot, shown as devices."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lxpy.storage import loops
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change

VOLUMES = "/1.0/storage-pools/default/volumes/custom"


class Custom:
    """Makes volumes in the shared daemon; deleted after the test."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.names: list[str] = []

    def make(self, content: str = "filesystem", **config: str) -> str:
        name = self.daemon.name("v")
        body = {"name": name, "content_type": content, "config": config}
        self.daemon.api.post(VOLUMES, body)
        self.names.append(name)
        return name

    def copy(self, source: str, **wish: Any) -> str:
        name = self.daemon.name("v")
        body = {"name": name, "source": {"type": "copy", "name": source, **wish}}
        self.daemon.api.post(VOLUMES, body)
        self.names.append(name)
        return name

    def attach(self, name: str, instance: str, path: str = "/data", **options: str) -> None:
        disk = {"type": "disk", "pool": "default", "source": name, "path": path, **options}
        self.daemon.api.patch(f"/1.0/instances/{instance}", {"devices": {name: disk}})

    def detach(self, name: str, instance: str) -> None:
        found = self.daemon.api.get(f"/1.0/instances/{instance}")
        del found["devices"][name]
        self.daemon.api.put(f"/1.0/instances/{instance}", found)

    def disk(self, name: str) -> Path:
        """The file of a block volume."""
        return self.daemon.directory / "storage-pools/default/custom" / name / "root.img"


@pytest.fixture
def custom(daemon: Daemon) -> Iterator[Custom]:
    made = Custom(daemon)
    yield made
    if not daemon.running:
        daemon.start()
    for name in daemon.instances():
        daemon.delete(name)
    left = {url.rsplit("/", 1)[1] for url in daemon.api.get(VOLUMES)}
    for name in left.intersection(made.names):
        daemon.api.delete(f"{VOLUMES}/{name}")


def test_shared_by_running_instances(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    """Both see the same owners, whatever ids each has on the host."""
    isolated = {"security.idmap.isolated": "true"}
    one, two = launch(config=isolated), launch(config=isolated)
    name = custom.make()
    custom.attach(name, one)
    custom.attach(name, two, "/srv/deep/er", readonly="true")
    daemon.exec(one, "sh", "-c", "echo text > /data/file; chown 12:34 /data/file")
    assert daemon.out(two, "stat", "-c", "%u:%g", "/srv/deep/er/file") == "12:34"
    assert daemon.out(two, "cat", "/srv/deep/er/file") == "text"
    assert daemon.exec(two, "touch", "/srv/deep/er/x", check=False).returncode
    used_by = daemon.api.get(f"{VOLUMES}/{name}")["used_by"]
    assert used_by == [f"/1.0/instances/{each}" for each in sorted((one, two))]
    custom.attach(name, two, "/elsewhere")  # it moves, and may be written to
    assert daemon.out(two, "ls", "-A", "/srv/deep/er") == ""
    daemon.exec(two, "sh", "-c", "echo more > /elsewhere/file")
    assert daemon.out(one, "cat", "/data/file") == "more"
    # A restart of the daemon changes nothing: the volume is still in use.
    daemon.restart()
    with pytest.raises(ApiError, match="still in use"):
        daemon.api.delete(f"{VOLUMES}/{name}")
    change(daemon, two, "restart", force=True)
    assert daemon.out(two, "cat", "/elsewhere/file") == "more"


def test_a_name_that_devices_follow(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    """An instance that is stopped and a profile show a volume by its new name; none that runs."""
    name, new, instance = custom.make(), custom.make(), launch()
    daemon.api.delete(f"{VOLUMES}/{new}")
    custom.attach(name, instance)
    shown = {"type": "disk", "pool": "default", "source": name, "path": "/data"}
    daemon.api.post("/1.0/profiles", {"name": "follows", "devices": {"data": shown}})
    with pytest.raises(ApiError, match=f"while running instances use the volume: stop {instance}"):
        daemon.api.post(f"{VOLUMES}/{name}", {"name": new})
    daemon.exec(instance, "touch", "/data/file")
    change(daemon, instance, "stop", force=True)
    daemon.api.post(f"{VOLUMES}/{name}", {"name": new})
    used_by = [f"/1.0/instances/{instance}", "/1.0/profiles/follows"]
    assert daemon.api.get(f"{VOLUMES}/{new}")["used_by"] == used_by
    assert daemon.api.get("/1.0/profiles/follows")["devices"]["data"] == {**shown, "source": new}
    change(daemon, instance, "start")
    assert daemon.out(instance, "ls", "/data") == "file"
    daemon.api.delete("/1.0/profiles/follows")


def test_sizes_below_the_smallest(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    name, disk, instance = custom.make(size="1MiB"), custom.make("block", size="1MiB"), launch()
    custom.attach(name, instance)
    assert daemon.out(instance, "sh", "-c", "echo text >/data/file; cat /data/file") == "text"
    assert custom.disk(disk).stat().st_size == 1 << 20


def test_ids_of_the_host(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    name, instance = custom.make(**{"security.unmapped": "true"}), launch()
    custom.attach(name, instance)
    assert daemon.out(instance, "stat", "-c", "%u", "/data") == "65534"
    with pytest.raises(ApiError, match='"security.unmapped" cannot be changed while running'):
        daemon.api.patch(f"{VOLUMES}/{name}", {"config": {"security.unmapped": ""}})


def test_resized_while_in_use(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    name, instance = custom.make(size="300MiB"), launch()
    custom.attach(name, instance)

    def blocks() -> int:
        return int(daemon.out(instance, "stat", "-f", "-c", "%b", "/data")) * int(
            daemon.out(instance, "stat", "-f", "-c", "%S", "/data")
        )

    assert 250 << 20 < blocks() <= 300 << 20
    daemon.api.patch(f"{VOLUMES}/{name}", {"config": {"size": "500MiB"}})
    assert 450 << 20 < blocks() <= 500 << 20
    usage = daemon.api.get(f"{VOLUMES}/{name}/state")["usage"]
    assert 450 << 20 < usage["total"] <= 500 << 20 and usage["used"] < 100 << 20
    full = daemon.exec(instance, "dd", "if=/dev/zero", "of=/data/x", "bs=1M", check=False)
    assert "No space left" in full.stderr
    with pytest.raises(ApiError, match=r"(?i)cannot shrink"):
        daemon.api.patch(f"{VOLUMES}/{name}", {"config": {"size": "300MiB"}})
    assert daemon.api.get(f"{VOLUMES}/{name}")["config"] == {"size": "500MiB"}
    daemon.exec(instance, "rm", "/data/x")


def test_snapshots_of_a_volume_in_use(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    api, name, one, two = daemon.api, custom.make(), launch(), launch()
    custom.attach(name, one)
    custom.attach(name, two)
    # Two writers: in a snapshot the second file is never ahead of the first.
    put = "echo $i > /data/new; mv /data/new /data/"
    loop = f"i=0; while :; do i=$((i+1)); {put}a; {put}b; done"
    daemon.exec(one, "sh", "-c", f"({loop}) >/dev/null 2>&1 &")
    for _ in range(3):
        api.post(f"{VOLUMES}/{name}/snapshots", {})
    assert daemon.status(one) == daemon.status(two) == "Running"
    found = api.get(f"{VOLUMES}/{name}/snapshots?recursion=1")
    assert [each["name"] for each in found] == ["snap0", "snap1", "snap2"]
    copy = custom.copy(f"{name}/snap1")
    custom.attach(copy, two, "/then")
    first, second = daemon.out(two, "cat", "/then/a", "/then/b").split()
    assert int(first) - int(second) in (0, 1)
    with pytest.raises(ApiError, match=f"while running instances use the volume: stop {one}, "):
        api.put(f"{VOLUMES}/{name}", {"restore": "snap0"})
    daemon.delete(one)
    custom.detach(name, two)
    now = custom.disk(name).with_name("files")
    api.put(f"{VOLUMES}/{name}", {"restore": "snap1"})
    assert (now / "a").read_text().strip() == first
    listed = api.get("/1.0/storage-pools/default/volumes?recursion=1&filter=")
    assert {f"{name}/snap0", f"{name}/snap2", copy} <= {each["name"] for each in listed}
    urls = api.get(f"{VOLUMES}")
    assert f"{VOLUMES}/{name}/snapshots/snap0" in urls


def test_a_block_volume(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    api, name, one, two = daemon.api, custom.make("block", size="64MiB"), launch(), launch()
    with pytest.raises(ApiError, match=f'set path to one below "/dev/", such as "/dev/{name}"'):
        custom.attach(name, one)
    custom.attach(name, one, "/dev/db/disk")
    daemon.exec(one, "sh", "-c", "echo written > /dev/db/disk")
    assert len(loops.devices(custom.disk(name))) == 1
    with pytest.raises(ApiError, match="two that write to one disk destroy what is on it"):
        custom.attach(name, two, "/dev/db")
    # What is in the page cache of the device is in the snapshot.
    api.post(f"{VOLUMES}/{name}/snapshots", {"name": "s"})
    copy = custom.copy(f"{name}/s")
    assert custom.disk(copy).read_bytes().startswith(b"written\n")
    custom.attach(copy, two, "/dev/copy", readonly="true")
    assert daemon.out(two, "head", "-n1", "/dev/copy") == "written"
    assert daemon.exec(two, "sh", "-c", "echo x > /dev/copy", check=False).returncode
    # Larger while it is in use; the same device after a restart of the daemon.
    api.patch(f"{VOLUMES}/{name}", {"config": {"size": "96MiB"}})
    size = ["sh", "-c", "wc -c < /dev/db/disk"]
    assert daemon.out(one, *size) == str(96 << 20)
    before = loops.devices(custom.disk(name))
    daemon.kill()
    daemon.start()
    assert loops.devices(custom.disk(name)) == before
    daemon.exec(one, "sh", "-c", "echo again > /dev/db/disk")
    custom.detach(name, one)
    assert daemon.exec(one, "test", "-e", "/dev/db/disk", check=False).returncode
    assert not loops.devices(custom.disk(name))
    daemon.delete(two)
    assert not loops.devices(custom.disk(copy))
    api.put(f"{VOLUMES}/{name}", {"restore": "s"})
    assert custom.disk(name).read_bytes().startswith(b"written\n")
    assert custom.disk(name).stat().st_size == 96 << 20


def test_who_writes_to_a_disk(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    """One at a time, beside any number of readers, unless it is shared on purpose."""
    name, one, two = custom.make("block", size="32MiB"), launch(), launch()
    custom.attach(name, one, "/dev/x", readonly="true")
    custom.attach(name, two, "/dev/x")
    with pytest.raises(ApiError, match=f"in use by {two}: two that write"):
        custom.attach(name, one, "/dev/x")
    custom.attach(name, two, "/dev/x", readonly="true")
    custom.attach(name, one, "/dev/x")
    daemon.restart()
    with pytest.raises(ApiError, match=f"in use by {one}: two that write"):
        custom.attach(name, two, "/dev/x")
    daemon.api.patch(f"{VOLUMES}/{name}", {"config": {"security.shared": "true"}})
    custom.attach(name, two, "/dev/x")
    daemon.exec(one, "sh", "-c", "echo shared > /dev/x")
    assert daemon.out(two, "head", "-n1", "/dev/x") == "shared"
    with pytest.raises(ApiError, match="before security.shared is unset"):
        daemon.api.put(f"{VOLUMES}/{name}", {"config": {"size": "32MiB"}})
    daemon.delete(two)
    daemon.api.put(f"{VOLUMES}/{name}", {"config": {"size": "32MiB"}})


def test_devices_that_a_crash_has_left(custom: Custom, daemon: Daemon) -> None:
    name = custom.make("block", size="64MiB")
    daemon.kill()
    loops.attach(custom.disk(name))
    daemon.start()
    assert not loops.devices(custom.disk(name))


def test_an_iso_image(custom: Custom, daemon: Daemon, launch: Launch, work_directory: Path) -> None:
    source, image = work_directory / "iso", work_directory / "image.iso"
    source.mkdir()
    (source / "file.txt").write_text("on the disc\n")
    subprocess.run(["genisoimage", "-quiet", "-R", "-o", image, source], check=True)
    name = daemon.name("v")
    custom.names.append(name)
    headers = {
        "Content-Type": "application/octet-stream", "X-LXD-name": name, "X-LXD-type": "iso",
    }  # fmt: skip
    daemon.api.call("POST", VOLUMES, image.read_bytes(), headers)
    found = daemon.api.get(f"{VOLUMES}/{name}")
    assert found["content_type"] == "iso"
    assert found["config"] == {"size": str(image.stat().st_size)}
    instance = launch()
    custom.attach(name, instance, "/dev/cdrom")
    assert daemon.out(instance, "grep", "-c", "on the disc", "/dev/cdrom") == "1"
    assert daemon.exec(instance, "sh", "-c", "echo x > /dev/cdrom", check=False).returncode
    custom.detach(name, instance)
    if "\tiso9660\n" in Path("/proc/filesystems").read_text():
        custom.attach(name, instance, "/media")
        assert daemon.out(instance, "cat", "/media/file.txt") == "on the disc"
        custom.detach(name, instance)
    else:
        with pytest.raises(ApiError, match='set path to one below "/dev/" to show it as a device'):
            custom.attach(name, instance, "/media")
    assert not loops.devices(custom.disk(name))
    assert not (daemon.directory / "mounts").exists()


def test_volumes_that_are_missing(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    instance = launch(start=False)
    with pytest.raises(ApiError, match='Missing source path "default/none" for disk "none"'):
        custom.attach("none", instance)
    custom.attach("none", instance, required="false")
    change(daemon, instance, "start")
    assert daemon.exec(instance, "test", "-e", "/data", check=False).returncode


def test_a_failed_attachment_leaves_nothing(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    name, instance = custom.make("block", size="64MiB"), launch()
    with pytest.raises(ApiError, match="Failed to start device"):
        custom.attach(name, instance, "/dev/null")
    assert not loops.devices(custom.disk(name))
    assert daemon.api.get(f"{VOLUMES}/{name}")["used_by"] == []
    daemon.api.delete(f"{VOLUMES}/{name}")


def test_between_pools(custom: Custom, daemon: Daemon, launch: Launch) -> None:
    api, instance = daemon.api, launch()
    api.post("/1.0/storage-pools", {"name": "second", "driver": "btrfs", "config": {}})
    there = "/1.0/storage-pools/second/volumes/custom"
    try:
        name, disk = custom.make(), custom.make("block", size="64MiB")
        custom.attach(name, instance)
        script = "echo one > /data/file; chown 5:6 /data/file; mkdir /data/folder; ln -s x /data/l"
        daemon.exec(instance, "sh", "-c", script)
        api.post(f"{VOLUMES}/{name}/snapshots", {"name": "s"})
        daemon.exec(instance, "sh", "-c", "echo two > /data/file")
        for each in (name, disk):
            source = {"type": "copy", "name": each, "pool": "default"}
            api.post(f"{there}?target=none", {"name": each, "source": source})
        with pytest.raises(ApiError, match="still in use"):
            api.post(f"{VOLUMES}/{name}", {"name": "moved", "pool": "second"})
        custom.detach(name, instance)
        api.post(f"{VOLUMES}/{name}", {"name": "moved", "pool": "second"})
        assert not custom.disk(name).parent.exists()
        for each in (name, "moved"):
            shown = {"type": "disk", "pool": "second", "source": each, "path": "/other"}
            api.patch(f"/1.0/instances/{instance}", {"devices": {"other": shown}})
            look = ["sh", "-c", "cd /other; cat file; stat -c %u:%g file; readlink l; ls"]
            assert daemon.out(instance, *look).split() == [
                "two", "5:6", "x", "file", "folder", "l",
            ]  # fmt: skip
            assert [e["name"] for e in api.get(f"{there}/{each}/snapshots?recursion=1")] == ["s"]
        daemon.delete(instance)
        api.put(f"{there}/moved", {"restore": "s"})
        api.post(f"{there}/moved", {"name": name, "pool": "default"})
        assert (custom.disk(name).with_name("files") / "file").read_text() == "one\n"
    finally:
        daemon.delete(instance)
        for url in api.get("/1.0/storage-pools/second/volumes/custom"):
            if "/snapshots/" not in url:
                api.delete(url)
        api.delete("/1.0/storage-pools/second")
        assert not (daemon.directory / "disks").exists()  # it goes with its last file


def test_what_cannot_be_done(daemon: Daemon, launch: Launch) -> None:
    api, instance = daemon.api, launch(start=False)
    container = f"/1.0/storage-pools/default/volumes/container/{instance}"
    assert api.get(f"{container}/state") == {"usage": None}
    api.post(f"/1.0/instances/{instance}/snapshots", {"name": "s"})
    volumes = api.get("/1.0/storage-pools/default/volumes/container?recursion=1")
    assert {instance, f"{instance}/s"} <= {each["name"] for each in volumes}
    image = next(url for url in api.get("/1.0/storage-pools/default/volumes/image"))
    api.get(f"{image}/state")
    with pytest.raises(ApiError, match='type "image" cannot be'):
        api.post(image, {"name": "other"})
    found = api.get(container)
    api.put(container, {"config": found["config"], "description": ""})
    with pytest.raises(ApiError, match='Instance volume "size" property cannot be changed'):
        api.put(container, {"config": {"size": "1GiB"}})
    with pytest.raises(ApiError, match='"snapshots.schedule" property .* set it on the instance'):
        api.patch(container, {"config": {"snapshots.schedule": "@daily"}})
    for method, path in (("GET", "buckets"), ("POST", "buckets"), ("GET", "buckets/b/keys")):
        status, _, reply = api.raw(method, f"/1.0/storage-pools/default/{path}", {})
        assert status == 501 and b"does not support buckets: run an S3 server" in reply
