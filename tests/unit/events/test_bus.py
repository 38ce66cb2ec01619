"""Events reach those who want them, in order, and slow listeners are closed instead of misled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lxpy.api.events import Requestor
from lxpy.events import bus as bus_module
from lxpy.events.bus import Bus, Listener
from lxpy.events.lifecycle import Lifecycle, requestor, url


async def waiting(bus: Bus, listener: Listener) -> list[dict[str, Any]]:
    """Everything sent so far; the listener is closed."""
    found = []
    bus.publish("operation", {"last": True})
    async for data in listener:
        event = json.loads(data)
        if event["metadata"] == {"last": True}:
            break
        found.append(event)
    listener.close()
    return found


async def test_types_and_projects() -> None:
    bus = Bus()
    mine = bus.listen(["operation"], "web")
    everything = bus.listen(["operation", "lifecycle"], None)
    bus.publish("operation", {"n": 1}, "web")
    bus.publish("operation", {"n": 2}, "other")
    bus.publish("lifecycle", {"n": 3}, "web")
    bus.publish("operation", {"n": 4})
    assert [e["metadata"]["n"] for e in await waiting(bus, mine)] == [1, 4]
    found = await waiting(bus, everything)
    assert [e["metadata"]["n"] for e in found] == [1, 2, 3, 4]
    assert found[0]["project"] == "web" and "project" not in found[3]
    assert found[0]["location"] == "none" and found[0]["timestamp"].endswith("Z")


async def test_a_listener_that_sleeps_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "_WAITING_EVENTS", 3)
    bus = Bus()
    listener = bus.listen(["operation"], None)
    for number in range(4):
        bus.publish("operation", {"n": number})
    assert [data async for data in listener] == []


async def test_closing_ends_the_iteration() -> None:
    bus = Bus()
    listener = bus.listen(["operation"], None)
    bus.close()
    assert [data async for data in listener] == []


async def test_lifecycle() -> None:
    bus = Bus()
    listener = bus.listen(["lifecycle"], None)
    lifecycle = Lifecycle(bus)
    token = requestor.set(Requestor(username="root", protocol="unix", address="@"))
    lifecycle.emit("instance-created", "/1.0/instances/c1", "web", {"type": "container"})
    requestor.reset(token)
    lifecycle.emit("config-updated", "/1.0")
    listener_events = []
    async for data in listener:
        listener_events.append(json.loads(data)["metadata"])
        if len(listener_events) == 2:
            break
    listener.close()
    assert listener_events[0] == {
        "action": "instance-created",
        "source": "/1.0/instances/c1?project=web",
        "context": {"type": "container"},
        "requestor": {"username": "root", "protocol": "unix", "address": "@"},
    }
    assert listener_events[1] == {"action": "config-updated", "source": "/1.0"}


def test_url() -> None:
    assert url("/1.0/x") == "/1.0/x"
    assert url("/1.0/x", "a b") == "/1.0/x?project=a%20b"
