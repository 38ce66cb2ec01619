"""What the API shows of instances, and how their config is changed."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change

WRITABLE = ("architecture", "config", "description", "devices", "ephemeral", "profiles")


def writable(daemon: Daemon, name: str) -> dict[str, Any]:
    found = daemon.api.get(f"/1.0/instances/{name}")
    return {key: found[key] for key in WRITABLE}


def etag(daemon: Daemon, name: str) -> str:
    return daemon.api.raw("GET", f"/1.0/instances/{name}")[1]["etag"]


def test_put_replaces(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False, config={"user.a": "1", "user.b": "2"}, description="old")
    body = writable(daemon, name)
    body["config"] = {k: v for k, v in body["config"].items() if k != "user.a"} | {"user.c": "3"}
    body["description"] = "new"
    status, _, data = daemon.api.raw("PUT", f"/1.0/instances/{name}", body)
    assert status == 202
    daemon.api.wait(json.loads(data)["metadata"])
    found = daemon.api.get(f"/1.0/instances/{name}")
    users = {k: v for k, v in found["config"].items() if k.startswith("user.")}
    assert users == {"user.b": "2", "user.c": "3"} and found["description"] == "new"


def test_patch_merges(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False, config={"user.a": "1", "user.b": "2"}, description="kept")
    change_ = {"config": {"user.a": "", "user.c": "3"}, "devices": {"none": {"type": "none"}}}
    status, _, _ = daemon.api.raw("PATCH", f"/1.0/instances/{name}", change_)
    assert status == 200
    found = daemon.api.get(f"/1.0/instances/{name}")
    users = {k: v for k, v in found["config"].items() if k.startswith("user.")}
    assert users == {"user.b": "2", "user.c": "3"} and found["description"] == "kept"
    assert found["devices"] == {"none": {"type": "none"}} and found["profiles"] == ["default"]


def test_etag_guards_against_lost_updates(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    old = etag(daemon, name)
    daemon.api.patch(f"/1.0/instances/{name}", {"config": {"user.k": "mine"}})
    assert etag(daemon, name) != old
    body = writable(daemon, name)
    body["config"]["user.k"] = "theirs"
    for method, sent in (("PUT", body), ("PATCH", {"config": {"user.k": "theirs"}})):
        with pytest.raises(ApiError, match="ETag") as refused:
            daemon.api.call(method, f"/1.0/instances/{name}", sent, {"If-Match": old})
        assert refused.value.status == 412
    assert daemon.api.get(f"/1.0/instances/{name}")["config"]["user.k"] == "mine"
    fresh = etag(daemon, name)
    daemon.api.call("PUT", f"/1.0/instances/{name}", body, {"If-Match": fresh})
    assert daemon.api.get(f"/1.0/instances/{name}")["config"]["user.k"] == "theirs"


def test_profiles_are_expanded(daemon: Daemon, launch: Launch) -> None:
    profile = daemon.name("p")
    config = {"user.k": "profile", "environment.FROM": "profile"}
    daemon.api.post("/1.0/profiles", {"name": profile, "config": config, "devices": {}})
    try:
        name = launch(profiles=["default", profile], config={"user.own": "1"})
        found = daemon.api.get(f"/1.0/instances/{name}")
        assert "user.k" not in found["config"] and found["expanded_config"]["user.k"] == "profile"
        assert daemon.out(name, "sh", "-c", "echo $FROM") == "profile"
        used = daemon.api.get(f"/1.0/profiles/{profile}")["used_by"]
        assert used == [f"/1.0/instances/{name}"]
        with pytest.raises(ApiError, match="in use"):
            daemon.api.delete(f"/1.0/profiles/{profile}")
        daemon.api.patch(f"/1.0/profiles/{profile}", {"config": {"user.k": "changed"}})
        found = daemon.api.get(f"/1.0/instances/{name}")
        assert found["expanded_config"]["user.k"] == "changed"
        daemon.delete(name)
    finally:
        daemon.api.delete(f"/1.0/profiles/{profile}")


def test_recursion(daemon: Daemon, launch: Launch) -> None:
    running, stopped = launch(), launch(start=False)
    urls = daemon.api.get("/1.0/instances")
    assert {f"/1.0/instances/{running}", f"/1.0/instances/{stopped}"} <= set(urls)
    objects = {one["name"]: one for one in daemon.api.get("/1.0/instances?recursion=1")}
    assert objects[running]["status"] == "Running" and objects[stopped]["status"] == "Stopped"
    assert "state" not in objects[running]
    full = {one["name"]: one for one in daemon.api.get("/1.0/instances?recursion=2")}
    assert full[running]["state"]["pid"] == daemon.init_pid(running)
    assert full[stopped]["state"]["pid"] == 0
    assert {"snapshots", "backups"} <= set(full[running])
    one = daemon.api.get(f"/1.0/instances/{running}?recursion=1")
    assert one["state"]["status"] == "Running"


def test_filter(daemon: Daemon, launch: Launch) -> None:
    running, stopped = launch(config={"user.k": "a b"}), launch(start=False)
    cases = {
        f"name eq {running}": {running},
        f"name eq {stopped} and status eq Running": set(),
        f"name ne {running} and status eq stopped": {stopped},
        'config.user.k eq "a b"': {running},
        f"name eq {running} or name eq {stopped}": {running, stopped},
        "": {running, stopped},
    }
    for text, expected in cases.items():
        found = daemon.api.get(f"/1.0/instances?recursion=1&filter={quote(text)}")
        assert {one["name"] for one in found} == expected, text
    urls = daemon.api.get(f"/1.0/instances?filter={quote(f'name eq {running}')}")
    assert urls == [f"/1.0/instances/{running}"]
    with pytest.raises(ApiError, match="(?i)filter"):
        daemon.api.get(f"/1.0/instances?filter={quote('name equals')}")


def test_projects_and_types(daemon: Daemon, launch: Launch) -> None:
    launch(start=False)
    assert daemon.api.get("/1.0/instances?instance-type=virtual-machine") == []
    assert len(daemon.api.get("/1.0/instances?instance-type=container")) == 1
    assert len(daemon.api.get("/1.0/instances?all-projects=true")) == 1
    assert daemon.api.get("/1.0/instances?project=none-such") == []
    assert daemon.api.get("/1.0/virtual-machines") == []


def test_containers_is_another_word_for_instances(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    assert daemon.api.get("/1.0/containers") == [f"/1.0/containers/{name}"]
    assert daemon.api.get(f"/1.0/containers/{name}")["name"] == name
    body = {"action": "start", "timeout": 30}
    daemon.api.put(f"/1.0/containers/{name}/state", body)
    assert daemon.api.get(f"/1.0/containers/{name}/state")["status"] == "Running"
    new = daemon.name()
    change(daemon, name, "stop")
    daemon.api.post(f"/1.0/containers/{name}", {"name": new})
    daemon.api.delete(f"/1.0/containers/{new}")


def test_every_reply_has_the_whole_envelope(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    keys = {"type", "status", "status_code", "operation", "error_code", "error", "metadata"}
    requests = (
        ("GET", f"/1.0/instances/{name}", None, 200),
        ("GET", "/1.0/instances/none-such", None, 404),
        ("PUT", f"/1.0/instances/{name}/state", {"action": "start", "timeout": 30}, 202),
        ("GET", "/1.0/none-such", None, 404),
    )
    for method, url, body, expected in requests:
        status, headers, data = daemon.api.raw(method, url, body)
        assert status == expected, url
        assert headers["content-type"].startswith("application/json") and data.endswith(b"\n")
        reply = json.loads(data)
        assert set(reply) == keys
        if reply["type"] == "async":
            assert reply["status_code"] == 100 and reply["operation"] == headers["location"]
            daemon.api.wait(reply["metadata"])


def test_bulk_state_change(daemon: Daemon, launch: Launch) -> None:
    names = [launch(start=False) for _ in range(3)]
    for action, status in (("start", "Running"), ("stop", "Stopped")):
        body = {"state": {"action": action, "timeout": 30, "force": action == "stop"}}
        daemon.api.put("/1.0/instances", body)
        assert [daemon.status(name) for name in names] == [status] * 3


def test_protection(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False, config={"security.protection.delete": "true"})
    with pytest.raises(ApiError, match="protected"):
        daemon.api.delete(f"/1.0/instances/{name}")
    daemon.api.patch(f"/1.0/instances/{name}", {"config": {"security.protection.delete": ""}})
    daemon.api.delete(f"/1.0/instances/{name}")
    assert name not in daemon.instances()
