"""Instances move between pools and projects, with their snapshots and all that is in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import leaks
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change

SHARING = {"features.images": "false", "features.profiles": "false"}


@pytest.fixture(params=["dir", "btrfs"])
def pool(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[str]:
    name = daemon.name()
    config = {"size": "1GiB"} if request.param == "btrfs" else {}
    body = {"name": name, "driver": request.param, "config": config}
    daemon.api.post("/1.0/storage-pools", body)
    yield name
    for url in daemon.api.get("/1.0/instances"):
        if daemon.api.get(url)["expanded_devices"]["root"]["pool"] == name:
            daemon.api.delete(url)
    daemon.api.delete(f"/1.0/storage-pools/{name}")


@pytest.fixture
def project(daemon: Daemon) -> Iterator[str]:
    name = daemon.name()
    daemon.api.post("/1.0/projects", {"name": name, "config": SHARING})
    yield name
    for url in daemon.api.get(f"/1.0/instances?project={name}"):
        daemon.api.delete(url)
    daemon.api.delete(f"/1.0/projects/{name}")


@pytest.fixture
def filled(daemon: Daemon, launch: Launch) -> str:
    """Make a stopped instance with "old" in snapshot s0 and "new" now."""
    name = launch(config={"user.mark": "kept"})
    daemon.exec(name, "sh", "-c", "echo old >/root/data")
    daemon.api.post(f"/1.0/instances/{name}/snapshots", {"name": "s0"})
    daemon.exec(name, "sh", "-c", "echo new >/root/data")
    change(daemon, name, "stop", force=True)
    return name


def move(daemon: Daemon, instance: str, source: str = "default", **fields: Any) -> None:
    body = {"name": instance, "migration": True, **fields}
    daemon.api.post(f"/1.0/instances/{instance}?project={source}", body)


def data(daemon: Daemon, name: str, project: str = "default", snapshot: str = "") -> bytes:
    url = f"/1.0/instances/{name}" + f"/snapshots/{snapshot}" * bool(snapshot)
    status, _, body = daemon.api.raw("GET", f"{url}/files?path=/root/data&project={project}")
    assert status == 200, body
    return body


def used_by(daemon: Daemon, pool: str) -> list[str]:
    return daemon.api.get(f"/1.0/storage-pools/{pool}")["used_by"]  # type: ignore[no-any-return]


def goes(daemon: Daemon, name: str, project: str = "default") -> None:
    """It is whole, starts, and goes back to its snapshot."""
    assert data(daemon, name, project) == b"new\n"
    assert data(daemon, name, project, "s0") == b"old\n"
    url = f"/1.0/instances/{name}?project={project}"
    assert daemon.api.get(url)["config"]["user.mark"] == "kept"
    state = f"/1.0/instances/{name}/state?project={project}"
    daemon.api.put(state, {"action": "start", "timeout": 10})
    daemon.api.put(state, {"action": "stop", "force": True, "timeout": 10})
    daemon.api.put(url, {"restore": "s0"})
    assert data(daemon, name, project) == b"old\n"


def test_to_another_pool_and_back(daemon: Daemon, filled: str, pool: str) -> None:
    addresses = daemon.api.get(f"/1.0/instances/{filled}")["config"]["volatile.eth0.hwaddr"]
    move(daemon, filled, pool=pool)
    shown = daemon.api.get(f"/1.0/instances/{filled}")
    assert shown["devices"]["root"]["pool"] == pool
    assert shown["config"]["volatile.eth0.hwaddr"] == addresses
    assert f"/1.0/instances/{filled}" in used_by(daemon, pool)
    move(daemon, filled, pool="default")
    assert not any("instances" in url for url in used_by(daemon, pool))
    move(daemon, filled, pool=pool)
    goes(daemon, filled)


def test_to_another_project(daemon: Daemon, filled: str, project: str) -> None:
    move(daemon, filled, project=project, name="other")
    assert daemon.api.raw("GET", f"/1.0/instances/{filled}")[0] == 404
    move(daemon, "other", project, project="default", name=filled)
    assert daemon.api.get(f"/1.0/instances?project={project}") == []
    assert data(daemon, filled, snapshot="s0") == b"old\n"
    move(daemon, filled, project=project)
    goes(daemon, filled, project)


def test_to_both(daemon: Daemon, filled: str, project: str, pool: str) -> None:
    move(daemon, filled, project=project, pool=pool)
    goes(daemon, filled, project)
    daemon.api.delete(f"/1.0/instances/{filled}?project={project}")


def test_without_snapshots(daemon: Daemon, filled: str, pool: str) -> None:
    move(daemon, filled, pool=pool, instance_only=True)
    assert daemon.api.get(f"/1.0/instances/{filled}/snapshots") == []
    assert data(daemon, filled) == b"new\n"


def test_cli(daemon: Daemon, filled: str, project: str, pool: str) -> None:
    daemon.lxpy("move", filled, "--target-project", project)
    assert data(daemon, filled, project) == b"new\n"
    daemon.lxpy("move", filled, "--project", project, "--target-project", "default")
    daemon.lxpy("move", filled, "--storage", pool)
    assert daemon.api.get(f"/1.0/instances/{filled}")["devices"]["root"]["pool"] == pool


def refused(daemon: Daemon, text: str, instance: str, **fields: Any) -> None:
    before = daemon.api.get(f"/1.0/instances/{instance}")
    with pytest.raises(ApiError, match=text):
        move(daemon, instance, **fields)
    assert daemon.api.get(f"/1.0/instances/{instance}") == before


def test_refused(daemon: Daemon, filled: str, project: str) -> None:
    before = leaks.take(daemon)
    refused(daemon, "Storage pool not found", filled, pool="nowhere")
    refused(daemon, "Project not found", filled, project="nowhere")
    change(daemon, filled, "start")
    refused(daemon, "must be stopped to be moved", filled, project=project)
    refused(daemon, "Renaming of running", filled, name="else", migration=False)
    change(daemon, filled, "stop", force=True)
    limits = {"config": {**SHARING, "limits.instances": "0"}}
    daemon.api.patch(f"/1.0/projects/{project}", limits)
    refused(daemon, "maximum number of instances", filled, project=project)
    daemon.api.patch(f"/1.0/projects/{project}", {"config": {"limits.instances": ""}})
    leaks.check(daemon, before, 10)
    source = {"type": "copy", "source": filled, "project": "default"}
    body = {"name": filled, "source": source}
    daemon.api.post(f"/1.0/instances?project={project}", body)
    refused(daemon, "already in use", filled, project=project)


def test_a_profile_that_is_not_there(daemon: Daemon, filled: str, project: str) -> None:
    daemon.api.patch(f"/1.0/projects/{project}", {"config": {"features.profiles": "true"}})
    daemon.api.post("/1.0/profiles", {"name": "only-here", "config": {}})
    profiles = {"profiles": ["default", "only-here"]}
    daemon.api.patch(f"/1.0/instances/{filled}", profiles)
    refused(daemon, "only-here", filled, project=project)
    daemon.api.patch(f"/1.0/instances/{filled}", {"profiles": ["default"]})
    daemon.api.delete("/1.0/profiles/only-here")
    move(daemon, filled, project=project)  # with its root disk, which the profile there has not
    assert data(daemon, filled, project) == b"new\n"
