"""A lost database: what lies on the pools is found again, and what runs has not noticed."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import change, create, import_image
from tests.support.processes import wait_until


def lose_database(daemon: Daemon) -> None:
    """Take the database away, as a broken disk or a wrong command does."""
    daemon.kill()
    for path in daemon.directory.glob("lxpy.db*"):
        path.unlink()


def recorded(daemon: Daemon) -> None:
    """Wait until the records are up to date: an orderly end writes them."""
    daemon.restart()


def recover(daemon: Daemon, *words: str, check: bool = True) -> str:
    done = daemon.lxpy("recover", "--yes", *words, check=check)
    return f"{done.stdout}{done.stderr}"


def everything(daemon: Daemon) -> dict[str, Any]:
    """What clients see of all that should come back."""
    api = daemon.api
    found = {
        "instances": api.get("/1.0/instances?recursion=2"),
        "pools": api.get("/1.0/storage-pools?recursion=1"),
        "profiles": api.get("/1.0/profiles?recursion=1"),
        "networks": [each for each in api.get("/1.0/networks?recursion=1") if each["managed"]],
        "acls": api.get("/1.0/network-acls?recursion=1"),
        "images": api.get("/1.0/images?recursion=1"),
        "volumes": [
            each
            for each in api.get("/1.0/storage-pools/default/volumes?recursion=1")
            if each["type"] != "image"
        ],
        "config": api.get("/1.0")["config"],
    }
    for network in found["networks"]:
        path = f"/1.0/networks/{network['name']}/forwards?recursion=1"
        network["forwards"] = api.get(path)
    for instance in found["instances"]:
        del instance["state"], instance["last_used_at"]
    for image in found["images"]:
        del image["last_used_at"]
    return found


def filled(daemon: Daemon, image: Path) -> tuple[str, str]:
    """Have a running and a stopped instance with snapshots, a custom volume and a profile."""
    import_image(daemon, image, "tiny")
    api = daemon.api
    api.post("/1.0/profiles", {"name": "mine", "config": {"user.a": "1"}})
    api.patch("/1.0", {"config": {"user.x": "kept"}})
    running = create(daemon, "tiny", "runs", profiles=["default", "mine"])
    stopped = create(daemon, "tiny", "rests", config={"user.b": "2"}, description="at rest")
    change(daemon, running, "start")
    daemon.exec(running, "sh", "-c", "echo kept >/root/file")
    notes = {"config": {"user.d": "4"}, "description": "noted"}
    for name in (running, stopped):
        api.post(f"/1.0/instances/{name}/snapshots", {"name": "s0"})
        api.patch(f"/1.0/storage-pools/default/volumes/container/{name}", notes)
        api.post(f"/1.0/instances/{name}/snapshots", {"name": "s1"})
    volumes = "/1.0/storage-pools/default/volumes/custom"
    api.post(volumes, {"name": "disk", "type": "custom", "config": {"user.c": "3"}})
    api.post(f"{volumes}/disk/snapshots", {"name": "before"})
    network = api.get("/1.0/profiles/default")["devices"]["eth0"]["network"]
    rule = {"action": "allow", "source": "192.0.2.0/24", "state": "enabled"}
    api.post("/1.0/network-acls", {"name": "mine", "ingress": [rule]})
    api.post(f"/1.0/networks/{network}/forwards", {"listen_address": "198.51.100.1"})
    return running, stopped


def test_all_of_it_comes_back(own_daemon: Daemon, busybox_image: Path) -> None:
    running, stopped = filled(own_daemon, busybox_image)
    recorded(own_daemon)
    before, pid = everything(own_daemon), own_daemon.init_pid(running)
    address = own_daemon.address(running)
    lose_database(own_daemon)
    own_daemon.start()
    # Nothing is made or removed meanwhile.
    assert own_daemon.instances() == [] and processes.alive(pid)
    with pytest.raises(ApiError, match="lxpy recover") as refused:
        own_daemon.api.post("/1.0/profiles", {"name": "other"})
    assert refused.value.status == 503
    assert "was lost" in own_daemon.api.get("/1.0")["environment"]["lxpy_warnings"][0]
    own_daemon.restart()  # the next start has not forgotten
    said = recover(own_daemon)
    assert f'Instance "{running}" on pool "default", 2 snapshots' in said
    assert everything(own_daemon) == before
    assert own_daemon.init_pid(running) == pid
    assert own_daemon.address(running) == address
    assert own_daemon.out(running, "cat", "/root/file") == "kept"
    change(own_daemon, stopped, "start")
    assert own_daemon.out(stopped, "echo", "alive") == "alive"
    change(own_daemon, running, "restart", force=True)
    assert own_daemon.out(running, "cat", "/root/file") == "kept"
    assert "Nothing was found" in recover(own_daemon)
    own_daemon.api.put(f"/1.0/instances/{stopped}/state", {"action": "stop", "force": True})
    own_daemon.api.put(f"/1.0/instances/{stopped}", {"restore": "s0"})


def test_without_records(own_daemon: Daemon, busybox_image: Path) -> None:
    running, stopped = filled(own_daemon, busybox_image)
    change(own_daemon, running, "stop")
    lose_database(own_daemon)
    subprocess.run(
        f"rm -rf {own_daemon.directory}/records {own_daemon.directory}/storage-pools/*/records",
        shell=True,
        check=True,
    )
    own_daemon.start()
    said = recover(own_daemon, check=False)
    assert f'Instance "{running}" on pool "default", 2 snapshots: it has no record' in said
    assert own_daemon.instances() == []
    said = recover(own_daemon, "--bare")
    assert sorted(own_daemon.instances()) == [stopped, running]
    change(own_daemon, running, "start")
    assert own_daemon.out(running, "cat", "/root/file") == "kept"
    assert own_daemon.address(running)
    api = own_daemon.api
    snapshots = api.get("/1.0/instances/runs/snapshots?recursion=1")
    assert [each["name"] for each in snapshots] == ["s0", "s1"]
    url = "/1.0/storage-pools/default/volumes/custom/disk"
    assert api.get(url)["name"] == "disk"
    assert len(api.get(f"{url}/snapshots")) == 1


def test_starting_over(own_daemon: Daemon, busybox_image: Path) -> None:
    running, stopped = filled(own_daemon, busybox_image)
    recorded(own_daemon)
    lose_database(own_daemon)
    own_daemon.start()
    own_daemon.lxpy("recover", "--start-over", "--yes")
    assert own_daemon.instances() == []
    assert [each["name"] for each in own_daemon.api.get("/1.0/profiles?recursion=1")]
    # What was there is still there, and can be taken in later.
    recover(own_daemon)
    assert sorted(own_daemon.instances()) == [stopped, running]
    own_daemon.wait_status(running, "Running")


def test_one_instance_comes_back(own_daemon: Daemon, busybox_image: Path) -> None:
    """A row that was lost alone: the rest of the database counts."""
    import_image(own_daemon, busybox_image, "tiny")
    first, second = create(own_daemon, "tiny"), create(own_daemon, "tiny")
    ids = own_daemon.api.get(f"/1.0/instances/{first}")["config"]["volatile.idmap.next"]
    own_daemon.stop()
    with sqlite3.connect(own_daemon.directory / "lxpy.db") as database:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("DELETE FROM instances WHERE name = ?", (first,))
    database.close()
    own_daemon.start()
    third = create(own_daemon, "tiny")  # which gets the ids that are free now
    assert own_daemon.api.get(f"/1.0/instances/{third}")["config"]["volatile.idmap.next"] == ids
    time.sleep(3)
    assert f'Instance "{first}"' in recover(own_daemon)
    assert sorted(own_daemon.instances()) == sorted((first, second, third))
    for name in (first, third):
        change(own_daemon, name, "start")
        assert own_daemon.out(name, "echo", "alive") == "alive"
    maps = {
        own_daemon.api.get(f"/1.0/instances/{name}")["config"]["volatile.idmap.next"]
        for name in (first, second, third)
    }
    assert len(maps) == 3


@pytest.fixture
def other_disk(work_directory: Path) -> Iterator[Path]:
    path = work_directory / "other-disk"
    path.mkdir()
    yield path
    subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)


def test_a_pool_of_another_installation(
    own_daemon: Daemon, daemon: Daemon, tiny: str, busybox_image: Path, other_disk: Path
) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    own_daemon.lxpy("storage", "create", "aside", "dir", f"source={other_disk}")
    devices = {"root": {"type": "disk", "path": "/", "pool": "aside"}}
    name = create(own_daemon, "tiny", "moved", devices=devices)
    change(own_daemon, name, "start")
    own_daemon.exec(name, "sh", "-c", "echo kept >/root/file")
    network = own_daemon.api.get("/1.0/profiles/default")["devices"]["eth0"]["network"]
    own_daemon.shutdown()
    done = daemon.lxpy("recover", "--yes", "--pool", f"aside:dir:{other_disk}", check=False)
    # Its profile is another one here, by the same name: that one counts.
    assert network not in f"{done.stdout}{done.stderr}"
    assert daemon.status(name) == "Stopped"
    change(daemon, name, "start")
    assert daemon.out(name, "cat", "/root/file") == "kept"
    daemon.delete(name)
    for image in daemon.api.get("/1.0/storage-pools/aside")["used_by"]:
        assert "/images/" in image
    daemon.api.delete("/1.0/storage-pools/aside")
    assert list(other_disk.iterdir()) == []


def test_a_pool_in_a_file(own_daemon: Daemon, busybox_image: Path) -> None:
    """After a reboot nothing is mounted: the pool is found by its record."""
    import_image(own_daemon, busybox_image, "tiny")
    api = own_daemon.api
    api.post("/1.0/storage-pools", {"name": "big", "driver": "btrfs", "config": {"size": "1GiB"}})
    devices = {"root": {"type": "disk", "path": "/", "pool": "big", "size": "300MiB"}}
    name = create(own_daemon, "tiny", "c1", devices=devices)
    change(own_daemon, name, "start")
    own_daemon.exec(name, "sh", "-c", "echo kept >/root/file; sync")
    api.post(
        f"/1.0/instances/{name}/snapshots", {"name": "s0", "expires_at": "2040-01-01T00:00:00Z"}
    )
    disk = {"name": "raw", "type": "custom", "content_type": "block", "config": {"size": "16MiB"}}
    api.post("/1.0/storage-pools/big/volumes/custom", disk)
    pool, volume = "/1.0/storage-pools/big", "/1.0/storage-pools/big/volumes/custom/raw"
    recorded(own_daemon)
    before = api.get(f"/1.0/instances/{name}"), api.get(pool), api.get(volume)
    own_daemon.power_cut()
    for path in own_daemon.directory.glob("lxpy.db*"):
        path.unlink()
    own_daemon.start()
    said = recover(own_daemon)
    assert 'Storage pool "big" (btrfs)' in said and 'Volume "raw" on pool "big"' in said
    # It ran when the host went down, and does so again.
    own_daemon.wait_status(name, "Running")
    assert own_daemon.out(name, "cat", "/root/file") == "kept"
    after = api.get(f"/1.0/instances/{name}"), api.get(pool), api.get(volume)
    assert after[0]["devices"] == before[0]["devices"] and after[1:] == before[1:]
    assert api.get(f"/1.0/instances/{name}/snapshots/s0")["expires_at"][:4] == "2040"


def test_what_cannot_come_back(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    good, bad = create(own_daemon, "tiny", "good"), create(own_daemon, "tiny", "bad")
    recorded(own_daemon)
    lose_database(own_daemon)
    record = own_daemon.directory / "storage-pools/default/records/containers/bad.yaml"
    record.write_text(record.read_text().replace('"config"', '"config": 5, "other"', 1))
    own_daemon.start()
    said = recover(own_daemon, check=False)
    assert f"Record {record} cannot be used" in said
    assert own_daemon.instances() == [good]
    record.unlink()
    recover(own_daemon, "--bare")
    assert sorted(own_daemon.instances()) == [bad, good]


def test_records_follow(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    records = own_daemon.directory / "storage-pools/default/records/containers"
    name = create(own_daemon, "tiny", "one")
    wait_until(lambda: (records / "one.yaml").exists(), 10, "a record")
    own_daemon.api.post(f"/1.0/instances/{name}", {"name": "two"})
    wait_until(lambda: [each.name for each in records.iterdir()] == ["two.yaml"], 10, "its name")
    own_daemon.api.patch("/1.0/instances/two", {"config": {"user.a": "changed"}})
    wait_until(lambda: "changed" in (records / "two.yaml").read_text(), 10, "its config")
    own_daemon.api.patch("/1.0/instances/two", {"config": {"user.a": "again"}})
    own_daemon.kill()
    own_daemon.start()
    wait_until(lambda: "again" in (records / "two.yaml").read_text(), 10, "after a crash")
    own_daemon.delete("two")
    wait_until(lambda: not list(records.iterdir()), 10, "no record")
