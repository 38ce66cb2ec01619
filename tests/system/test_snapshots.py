"""Snapshots of instances: made while they run, restored, copied; what a client sees of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change

NEVER = "0001-01-01T00:00:00Z"


def take(daemon: Daemon, name: str, snapshot: str = "", **fields: Any) -> str:
    """Make a snapshot and return its name."""
    body = {"name": snapshot, "stateful": False, "expires_at": None, **fields}
    done = daemon.api.post(f"/1.0/instances/{name}/snapshots", body)
    return str(done["resources"]["instances_snapshots"][0]).rpartition("/")[2]


def snapshots(daemon: Daemon, name: str) -> list[str]:
    found = daemon.api.get(f"/1.0/instances/{name}/snapshots")
    prefix = f"/1.0/instances/{name}/snapshots/"
    return [url.removeprefix(prefix) for url in found]


def on_disk(daemon: Daemon, name: str, pool: str = "default") -> list[str]:
    place = daemon.directory / "storage-pools" / pool / "containers-snapshots" / name
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


@pytest.fixture(params=["dir", "btrfs"])
def pool(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[str]:
    """A pool of each driver that needs no host of its own; deleted after the test."""
    if request.param == "dir":
        yield "default"
        return
    if not shutil.which("mkfs.btrfs"):
        pytest.skip("needs btrfs-progs")
    wish = {"name": "other", "driver": "btrfs", "config": {"size": "512MiB"}}
    daemon.api.post("/1.0/storage-pools", wish)
    yield "other"
    for name in daemon.instances():
        daemon.delete(name)
    daemon.api.delete("/1.0/storage-pools/other")
    assert not (daemon.directory / "disks").exists()  # it goes with its last file


def on(pool: str) -> dict[str, dict[str, str]]:
    """Return the devices of an instance on a pool."""
    return {"root": {"type": "disk", "path": "/", "pool": pool}}


def write(daemon: Daemon, name: str, text: str) -> None:
    daemon.exec(name, "sh", "-c", f"echo {text} > /root/file")


def test_the_life_of_a_snapshot(daemon: Daemon, launch: Launch) -> None:
    api = daemon.api
    name = launch(config={"snapshots.expiry": "1H", "user.k": "v"})
    assert [take(daemon, name) for _ in range(2)] == ["snap0", "snap1"]
    take(daemon, name, "mine", expires_at=NEVER)
    assert (
        snapshots(daemon, name) == ["snap0", "snap1", "mine"] and daemon.status(name) == "Running"
    )
    path = f"/1.0/instances/{name}/snapshots"
    found = api.get(f"{path}/snap0")
    assert found["name"] == "snap0" and found["config"]["user.k"] == "v"
    assert found["expanded_devices"]["root"]["path"] == "/" and found["profiles"] == ["default"]
    assert found["stateful"] is False and found["expires_at"] > found["created_at"]
    assert 0 < found["lxpy"]["frozen_ms"] < 5000 and found["lxpy"]["scheduled"] is False
    assert api.get(f"{path}/mine")["expires_at"] == NEVER
    assert [each["name"] for each in api.get(f"{path}?recursion=1")] == ["snap0", "snap1", "mine"]
    assert api.get(f"/1.0/containers/{name}/snapshots")[0].startswith("/1.0/containers/")
    full = api.get(f"/1.0/instances/{name}?recursion=1")
    assert [each["name"] for each in full["snapshots"]] == ["snap0", "snap1", "mine"]

    status, headers, _ = api.raw("GET", f"{path}/mine")
    end = {"expires_at": "2040-01-02T03:04:05Z"}
    status, _, reply = api.raw("PUT", f"{path}/mine", end, {"If-Match": "wrong"})
    assert status == 412
    status, _, reply = api.raw("PUT", f"{path}/mine", end, {"If-Match": headers["etag"]})
    assert status == 202
    api.wait(json.loads(reply)["metadata"])
    assert api.get(f"{path}/mine")["expires_at"] == end["expires_at"]
    assert api.raw("GET", f"{path}/mine")[1]["etag"] != headers["etag"]
    status, _, reply = api.raw("PATCH", f"{path}/mine", {"expires_at": None})
    assert status == 202
    api.wait(json.loads(reply)["metadata"])
    assert api.get(f"{path}/mine")["expires_at"] == NEVER

    with pytest.raises(ApiError, match="409.*already in use"):
        api.post(f"{path}/mine", {"name": "snap0"})
    api.post(f"{path}/mine", {"name": "yours"})
    assert snapshots(daemon, name) == ["snap0", "snap1", "yours"] == sorted(on_disk(daemon, name))
    api.delete(f"{path}/snap1")
    assert snapshots(daemon, name) == ["snap0", "yours"] == on_disk(daemon, name)
    assert take(daemon, name) == "snap1", "the number after the highest that is left"
    daemon.restart()
    assert snapshots(daemon, name) == ["snap0", "yours", "snap1"]
    daemon.delete(name)
    assert on_disk(daemon, name) == []


def test_refusals(daemon: Daemon, launch: Launch) -> None:
    api, name = daemon.api, launch(start=False)
    path = f"/1.0/instances/{name}/snapshots"
    for wish, text in [
        ({"name": "a/b"}, '400: Invalid snapshot name: Cannot contain "/"'),
        ({"name": "two words"}, "400: Invalid snapshot name"),
        ({"name": "s", "stateful": True}, "400: Unable to create a stateful snapshot"),
    ]:
        with pytest.raises(ApiError, match=text):
            api.post(path, wish)
    with pytest.raises(ApiError, match="404: Instance not found"):
        api.post("/1.0/instances/none/snapshots", {"name": "s"})
    with pytest.raises(ApiError, match='404: Failed to fetch snapshot "s" of instance'):
        api.get(f"{path}/s")
    take(daemon, name, "s")
    operation = api.post(path, {"name": "s"}, wait=False)
    with pytest.raises(ApiError, match='snapshot record "s": .* already exists'):
        api.wait(operation)
    with pytest.raises(ApiError, match=f"Snapshot {name}/none does not exist"):
        api.put(f"/1.0/instances/{name}", {"restore": "none"})
    with pytest.raises(ApiError, match="400: .*no state of processes"):
        api.put(f"/1.0/instances/{name}", {"restore": "s", "stateful": True})
    assert snapshots(daemon, name) == ["s"] == on_disk(daemon, name)


def test_restore_a_running_instance(daemon: Daemon, launch: Launch, pool: str) -> None:
    api, name = daemon.api, launch(config={"user.k": "one"}, devices=on(pool))
    write(daemon, name, "one")
    take(daemon, name, "s1")
    write(daemon, name, "two")
    device = {**on(pool), "x": {"type": "disk", "source": "/var/tmp", "path": "/mnt"}}
    api.patch(f"/1.0/instances/{name}", {"config": {"user.k": "two"}, "devices": device})
    take(daemon, name, "s2")
    before, pid = api.get(f"/1.0/instances/{name}"), daemon.init_pid(name)
    api.put(f"/1.0/instances/{name}", {"restore": "s1"})
    after = api.get(f"/1.0/instances/{name}")
    assert daemon.out(name, "cat", "/root/file") == "one"
    assert after["status"] == "Running" and daemon.init_pid(name) != pid
    assert after["config"]["user.k"] == "one" and after["devices"] == on(pool)
    for key in ("volatile.uuid", "volatile.eth0.hwaddr", "volatile.idmap.base"):
        assert after["config"][key] == before["config"][key]
    assert after["config"]["volatile.last_state.power"] == "RUNNING"
    api.put(f"/1.0/instances/{name}", {"restore": "s2"})
    assert daemon.out(name, "cat", "/root/file") == "two"
    assert daemon.out(name, "mount").count(" /mnt ") == 1
    assert snapshots(daemon, name) == ["s1", "s2"], "the newer one stayed"
    listed = api.get(f"/1.0/instances/{name}/snapshots?recursion=1")
    known = {pool == "other"}  # what it takes, btrfs can tell
    assert {each["size"] >= 0 for each in listed} == known
    assert {api.get(f"/1.0/instances/{name}/snapshots/s1")["size"] >= 0} == known


def test_restore_what_is_stopped_or_frozen(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    write(daemon, name, "one")
    change(daemon, name, "freeze")
    take(daemon, name, "s1")
    assert daemon.status(name) == "Frozen", "who froze it thaws it"
    change(daemon, name, "unfreeze")
    write(daemon, name, "two")
    change(daemon, name, "stop")
    take(daemon, name, "s2")
    daemon.api.put(f"/1.0/instances/{name}", {"restore": "s1"})
    assert daemon.status(name) == "Stopped"
    change(daemon, name, "start")
    assert daemon.out(name, "cat", "/root/file") == "one"


def test_a_restoration_that_cannot_be(daemon: Daemon, launch: Launch) -> None:
    """Its profile is gone: said before anything is stopped or changed."""
    api = daemon.api
    api.post("/1.0/profiles", {"name": "passing"})
    name = launch(profiles=["default", "passing"])
    take(daemon, name, "s1")
    api.patch(f"/1.0/instances/{name}", {"profiles": ["default"]})
    api.delete("/1.0/profiles/passing")
    pid = daemon.init_pid(name)
    with pytest.raises(ApiError, match='Requested profile "passing" doesn\'t exist'):
        api.put(f"/1.0/instances/{name}", {"restore": "s1"})
    assert daemon.init_pid(name) == pid


def test_snapshots_follow_a_renamed_instance(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    write(daemon, name, "one")
    take(daemon, name, "s1")
    change(daemon, name, "stop")
    new = daemon.name()
    daemon.api.post(f"/1.0/instances/{name}", {"name": new})
    try:
        assert snapshots(daemon, new) == ["s1"] == on_disk(daemon, new)
        daemon.api.put(f"/1.0/instances/{new}", {"restore": "s1"})
        change(daemon, new, "start")
        assert daemon.out(new, "cat", "/root/file") == "one"
    finally:
        daemon.delete(new)


def copy(daemon: Daemon, source: str, name: str, **fields: Any) -> None:
    body = {"name": name, "source": {"type": "copy", "source": source, **fields}}
    daemon.api.post("/1.0/instances", body)


@pytest.mark.parametrize("target_pool", ["default", "second"])
def test_copies(daemon: Daemon, launch: Launch, pool: str, target_pool: str) -> None:
    api, name = daemon.api, launch(devices=on(pool))
    for text in ("one", "two"):
        write(daemon, name, text)
        take(daemon, name, text)
    write(daemon, name, "three")
    names = [daemon.name() for _ in range(3)]
    if target_pool == "second":
        api.post("/1.0/storage-pools", {"name": "second", "driver": "dir"})
    devices = on(pool if target_pool == "default" else target_pool)
    try:
        whole, alone, of_one = names
        for target, fields in [
            (whole, {"source": name}),
            (alone, {"source": name, "instance_only": True}),
            (of_one, {"source": f"{name}/one"}),
        ]:
            api.post(
                "/1.0/instances",
                {"name": target, "source": {"type": "copy", **fields}, "devices": devices},
            )
        assert snapshots(daemon, whole) == ["one", "two"]
        assert snapshots(daemon, alone) == snapshots(daemon, of_one) == []
        for target, text in [(whole, "three"), (alone, "three"), (of_one, "one")]:
            change(daemon, target, "start")
            assert daemon.out(target, "cat", "/root/file") == text
        own = api.get(f"/1.0/instances/{whole}")["config"]
        created = [api.get(f"/1.0/instances/{each}/snapshots/one") for each in (name, whole)]
        assert created[0]["created_at"] == created[1]["created_at"]
        api.put(f"/1.0/instances/{whole}", {"restore": "one"})
        assert daemon.out(whole, "cat", "/root/file") == "one"
        config = api.get(f"/1.0/instances/{whole}")["config"]
        for key in ("volatile.eth0.hwaddr", "volatile.uuid"):
            assert config[key] == own[key] != api.get(f"/1.0/instances/{name}")["config"][key]
    finally:
        for each in names:
            daemon.delete(each)
        if target_pool == "second":
            api.delete("/1.0/storage-pools/second")


def test_a_copy_is_refreshed(daemon: Daemon, launch: Launch, pool: str) -> None:
    api, name, target = daemon.api, launch(devices=on(pool)), daemon.name()
    write(daemon, name, "one")
    for snapshot in ("s1", "s2"):
        take(daemon, name, snapshot)
    copy(daemon, name, target, refresh=True)
    try:
        take(daemon, target, "extra")
        write(daemon, name, "two")
        take(daemon, name, "s3")
        for snapshot in ("s1", "s2"):
            api.delete(f"/1.0/instances/{name}/snapshots/{snapshot}")
        take(daemon, name, "s2")
        write(daemon, name, "three")
        own = api.get(f"/1.0/instances/{target}")["config"]
        copy(daemon, name, target, refresh=True)
        assert snapshots(daemon, target) == ["s3", "s2"]
        assert on_disk(daemon, target, pool) == ["s2", "s3"]
        assert api.get(f"/1.0/instances/{target}")["config"] == own
        change(daemon, target, "start")
        assert daemon.out(target, "cat", "/root/file") == "three"
        with pytest.raises(ApiError, match="Cannot refresh a running instance"):
            copy(daemon, name, target, refresh=True)
        api.put(f"/1.0/instances/{target}", {"restore": "s2"})
        assert daemon.out(target, "cat", "/root/file") == "two"
    finally:
        daemon.delete(target)


def test_events(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    name = launch(start=False)
    with open(tmp_path / "events", "w") as file:
        words = [daemon.commands / "lxpy", "monitor", "--type", "lifecycle", "--format", "json"]
        monitor = subprocess.Popen(words, env=daemon.environment, stdout=file)
    try:
        processes.wait_until(lambda: bool(_probe(daemon, name, tmp_path / "events")), 10)
        path = f"/1.0/instances/{name}"
        take(daemon, name, "s1")
        daemon.api.post(f"{path}/snapshots/s1", {"name": "s2"})
        daemon.api.put(f"{path}/snapshots/s2", {"expires_at": NEVER})
        daemon.api.put(path, {"restore": "s2"})
        daemon.api.delete(f"{path}/snapshots/s2")
        processes.wait_until(
            lambda: "snapshot-deleted" in (tmp_path / "events").read_text(), 10, "events"
        )
    finally:
        monitor.terminate()
        monitor.wait(10)
    lines = (tmp_path / "events").read_text().splitlines()
    found = [json.loads(line)["metadata"] for line in lines if name in line]
    heard = [
        (each["action"], each["source"].removeprefix(path), each.get("context"))
        for each in found
        if each["action"] != "instance-updated"
    ]
    assert heard == [
        ("instance-snapshot-created", "/snapshots/s1", None),
        ("instance-snapshot-renamed", "/snapshots/s2", {"old_name": "s1"}),
        ("instance-snapshot-updated", "/snapshots/s2", None),
        ("instance-restored", "", {"snapshot": f"{name}/s2"}),
        ("instance-snapshot-deleted", "/snapshots/s2", None),
    ]


def _probe(daemon: Daemon, name: str, file: Path) -> str:
    """Have something happen; what the monitor has heard."""
    daemon.api.patch(f"/1.0/instances/{name}", {"description": "probe"})
    return file.read_text()


@pytest.mark.timeout(180)
def test_schedules(daemon: Daemon, launch: Launch) -> None:
    """Before each start and every minute; the oldest scheduled ones go, the expired ones too."""
    config = {
        "snapshots.schedule": "@startup, * * * * *",
        "snapshots.keep": "2",
        "snapshots.pattern": 'auto-{{ creation_date|date:"2006" }}-%d',
    }
    name = launch(config=config)
    stopped = launch(start=False, config={"snapshots.schedule": "* * * * *"})
    wanted = {"snapshots.schedule": "* * * * *", "snapshots.schedule.stopped": "true"}
    stopped_too = launch(start=False, config=wanted)
    change(daemon, name, "restart", force=True)
    year = time.strftime("%Y")
    assert snapshots(daemon, name) == [f"auto-{year}-0", f"auto-{year}-1"]
    found = daemon.api.get(f"/1.0/instances/{name}/snapshots?recursion=1")
    assert all(each["lxpy"] == {"scheduled": True, "frozen_ms": None} for each in found)
    take(daemon, name, "by-hand")
    take(daemon, name, "old", expires_at="2020-01-01T00:00:00Z")
    left = [f"auto-{year}-1", "by-hand", f"auto-{year}-2"]
    processes.wait_until(lambda: snapshots(daemon, name) == left, 70, str(snapshots(daemon, name)))
    assert on_disk(daemon, name) == sorted(left)
    processes.wait_until(lambda: snapshots(daemon, stopped_too) == ["snap0"], 10)
    assert snapshots(daemon, stopped) == []


def test_differences(daemon: Daemon, launch: Launch, pool: str) -> None:
    api, name = daemon.api, launch(devices=on(pool))
    daemon.exec(name, "sh", "-c", "mkdir /root/d; echo 1 > /root/d/kept; echo 1 > /root/changed")
    take(daemon, name, "s1")
    assert changes(daemon, name, "s1", "s1") == {}
    script = "rm -r /root/d; echo long > /root/changed; printf x > \"/root/$(printf 'a\\033b')\""
    daemon.exec(name, "sh", "-c", script)
    take(daemon, name, "s2")
    daemon.exec(name, "sh", "-c", "chmod 600 /etc/passwd; ln -s x /root/link")
    wanted = {
        "/root/a\\x1bb": "added file",
        "/root/changed": "modified file size,mtime",
        "/root/d": "removed directory",
        "/root/d/kept": "removed file",
    }
    assert below_root(changes(daemon, name, "s1", "s2")) == wanted
    running = changes(daemon, name, "s1", "")
    assert below_root(running) == wanted | {"/root/link": "added symlink"}
    assert running["/etc/passwd"] == "modified file mode"
    assert below_root(changes(daemon, name, "s2", "s1"))["/root/d"] == "added directory"
    change(daemon, name, "stop")
    assert changes(daemon, name, "s1", "") == running
    found = api.get(f"/1.0/instances/{name}/snapshots/s1/diff?to=s2")
    assert (found["base"], found["to"], found["truncated"]) == ("s1", "s2", False)
    assert found["removed"] == 2
    for query in ("none/diff", "s1/diff?to=none"):
        with pytest.raises(ApiError, match="404: .*InstanceSnapshot not found"):
            api.get(f"/1.0/instances/{name}/snapshots/{query}")


def changes(daemon: Daemon, name: str, base: str, to: str) -> dict[str, str]:
    found = daemon.api.get(f"/1.0/instances/{name}/snapshots/{base}/diff?to={to}")["changes"]
    return {
        each["path"]: f"{each['what']} {each['type']} {','.join(each['how'])}".strip()
        for each in found
    }


def below_root(found: dict[str, str]) -> dict[str, str]:
    return {path: text for path, text in found.items() if path.startswith("/root/")}
