"""Operations and events: listed, waited for, cancelled; events come in order and complete."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import execution
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.support.websocket import WebSocket

FINAL = 200


def listen(daemon: Daemon, kinds: str = "operation,lifecycle", query: str = "") -> WebSocket:
    return WebSocket(Path(daemon.socket), f"/1.0/events?type={kinds}{query}")


def collect(socket: WebSocket, timeout_s: float = 1) -> list[dict[str, Any]]:
    """All events until none has come for a while."""
    return list(socket.objects(timeout_s))


@pytest.fixture
def sleeping(daemon: Daemon, launch: Launch) -> Iterator[dict[str, Any]]:
    """An operation that goes on: a command that sleeps."""
    name = launch()
    with execution.start(daemon.api, name, "sleep", "600") as command:
        yield daemon.api.get(f"/1.0/operations/{command.id}")
    daemon.delete(name)


def test_object_and_list(daemon: Daemon, sleeping: dict[str, Any]) -> None:
    assert sleeping["status"] == "Running" and sleeping["status_code"] == 103
    assert sleeping["class"] == "websocket" and sleeping["location"] == "none"
    assert sleeping["err"] == "" and sleeping["created_at"][:2] == "20"
    (url,) = sleeping["resources"]["instances"]
    assert url.startswith("/1.0/instances/")
    listed = daemon.api.get("/1.0/operations")
    assert f"/1.0/operations/{sleeping['id']}" in listed["running"]
    objects = daemon.api.get("/1.0/operations?recursion=1")["running"]
    assert sleeping["id"] in [one["id"] for one in objects]


def test_wait(daemon: Daemon, sleeping: dict[str, Any]) -> None:
    url = f"/1.0/operations/{sleeping['id']}/wait"
    begin = time.monotonic()
    early = daemon.api.get(f"{url}?timeout=1")
    assert 0.9 < time.monotonic() - begin < 3 and early["status"] == "Running"
    found: list[dict[str, Any]] = []
    waiter = threading.Thread(target=lambda: found.append(daemon.api.get(f"{url}?timeout=-1")))
    waiter.start()
    name = sleeping["resources"]["instances"][0].rsplit("/", 1)[1]
    change(daemon, name, "stop")
    waiter.join(10)
    assert found and found[0]["status_code"] >= FINAL


def test_ended_operations_stay_for_a_while(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    body = {"action": "start", "timeout": 30}
    done = daemon.api.put(f"/1.0/instances/{name}/state", body)
    url = f"/1.0/operations/{done['id']}"
    assert daemon.api.get(url)["status"] == "Success"
    assert daemon.api.get(f"{url}/wait?timeout=5")["status"] == "Success"
    with pytest.raises(ApiError, match="(?i)only running|can't be cancelled"):
        daemon.api.delete(url)
    time.sleep(6)
    with pytest.raises(ApiError) as gone:
        daemon.api.get(url)
    assert gone.value.status == 404


def test_unknown_operation(daemon: Daemon) -> None:
    tails = ("GET", ""), ("GET", "/wait"), ("GET", "/websocket?secret=x"), ("DELETE", "")
    for method, tail in tails:
        with pytest.raises(ApiError) as refused:
            url = f"/1.0/operations/6e8d0c0a-0000-4000-8000-000000000000{tail}"
            daemon.api.call(method, url)
        assert refused.value.status == 404


def test_failure_is_told(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    body = {"action": "start", "timeout": 30}
    begun = daemon.api.put(f"/1.0/instances/{name}/state", body, wait=False)
    ended = daemon.api.get(f"/1.0/operations/{begun['id']}/wait")
    assert ended["status"] == "Failure" and ended["status_code"] == 400
    assert "already running" in ended["err"]


def test_events_of_an_operation(daemon: Daemon, launch: Launch) -> None:
    """It is running, then there is exactly one final event, which carries everything."""
    name = launch(start=False)
    with listen(daemon, "operation") as socket:
        body = {"action": "start", "timeout": 30}
        done = daemon.api.put(f"/1.0/instances/{name}/state", body)
        events = [e["metadata"] for e in collect(socket) if e["metadata"]["id"] == done["id"]]
    codes = [event["status_code"] for event in events]
    assert 103 in codes[:-1] and codes[-1] == FINAL and codes.count(FINAL) == 1
    assert set(codes) <= {105, 103, FINAL}
    assert events[-1]["description"] == "Starting instance" and events[-1]["err"] == ""


def test_exit_code_is_in_the_final_event(daemon: Daemon, launch: Launch) -> None:
    """LXD's client reads it there and nowhere else."""
    name = launch()
    with listen(daemon, "operation") as socket:
        done = execution.run(daemon.api, name, "sh", "-c", "exit 9")
        events = [e["metadata"] for e in collect(socket)]
    final = [e for e in events if e["id"] == done.operation["id"] and e["status_code"] >= FINAL]
    assert [event["metadata"]["return"] for event in final] == [9]


def test_lifecycle(daemon: Daemon, tiny: str) -> None:
    name, new = daemon.name(), daemon.name()
    with listen(daemon, "lifecycle") as socket:
        source = {"type": "image", "alias": tiny}
        daemon.api.post("/1.0/instances", {"name": name, "source": source})
        daemon.api.patch(f"/1.0/instances/{name}", {"config": {"user.k": "v"}})
        for action in ("start", "freeze", "unfreeze", "stop"):
            change(daemon, name, action)
        daemon.api.post(f"/1.0/instances/{name}", {"name": new})
        daemon.api.delete(f"/1.0/instances/{new}")
        events = [e for e in collect(socket) if e["metadata"]["action"].startswith("instance-")]
    actions = [event["metadata"]["action"] for event in events]
    expected = ["created", "updated", "started", "paused", "resumed", "stopped", "renamed"]
    assert actions == [f"instance-{word}" for word in [*expected, "deleted"]]
    assert events[0]["metadata"]["source"] == f"/1.0/instances/{name}"
    assert events[-1]["metadata"]["source"] == f"/1.0/instances/{new}"
    assert all(event["type"] == "lifecycle" and event["project"] == "default" for event in events)
    times = [event["timestamp"] for event in events]
    assert times == sorted(times)


def test_types_are_filtered(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    with listen(daemon, "lifecycle") as some, listen(daemon, query="&all-projects=true") as every:
        change(daemon, name, "start")
        kinds = [{event["type"] for event in collect(each)} for each in (some, every)]
    assert kinds == [{"lifecycle"}, {"lifecycle", "operation"}]
    for url in ("/1.0/events?type=rubbish", "/1.0/events"):
        status, _, _ = daemon.api.raw("GET", url)
        assert status >= 400


def test_a_listener_that_sleeps_holds_nobody_up(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    with listen(daemon) as sleeper, listen(daemon, "operation") as reader:
        for _ in range(20):
            execution.record(daemon.api, name, "true")
        events = collect(reader)
        assert len({event["metadata"]["id"] for event in events}) >= 20
        assert sleeper.receive() is not None
