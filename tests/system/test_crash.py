"""kill -9 of the daemon at random moments: what was under way is finished or undone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import change, create, import_image


def stopped(daemon: Daemon, name: str) -> None:
    create(daemon, "tiny", name)


def running(daemon: Daemon, name: str) -> None:
    create(daemon, "tiny", name)
    change(daemon, name, "start")


def launch(daemon: Daemon, name: str) -> None:
    running(daemon, name)


def stop(daemon: Daemon, name: str) -> None:
    change(daemon, name, "stop")


def delete(daemon: Daemon, name: str) -> None:
    daemon.api.delete(f"/1.0/instances/{name}")


def copy(daemon: Daemon, name: str) -> None:
    source = {"type": "copy", "source": name}
    daemon.api.post("/1.0/instances", {"name": f"{name}-copy", "source": source})


# What is done: preparation and action.
ACTIONS: dict[str, tuple[Callable[[Daemon, str], None] | None, Callable[[Daemon, str], None]]] = {
    "launch": (None, launch),
    "stop": (running, stop),
    "delete": (stopped, delete),
    "copy": (stopped, copy),
}
ROUNDS = 5


def killed_in_the_middle(daemon: Daemon, action: Callable[[], None], after_s: float) -> None:
    """Start the action, kill the daemon after a while, wait until the client has noticed."""

    def attempt() -> None:
        try:
            action()
        except (ApiError, OSError, ValueError, HTTPException):
            return  # its end is what is tested

    client = threading.Thread(target=attempt)
    client.start()
    time.sleep(after_s)
    daemon.kill()
    client.join(30)
    assert not client.is_alive()


def consistent(daemon: Daemon, names: list[str]) -> None:
    """Every instance that is known can be used; none is half there."""
    for name in names:
        if daemon.status(name) == "Running":
            assert daemon.out(name, "echo", "alive") == "alive"
        else:
            assert daemon.init_pid(name) == 0
            change(daemon, name, "start")
            assert daemon.out(name, "echo", "startable") == "startable"
        change(daemon, name, "stop")
        daemon.api.delete(f"/1.0/instances/{name}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ACTIONS)
def test_killed_during(kind: str, own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    prepare, act = ACTIONS[kind]
    # Once in peace: the image is unpacked, the bridge is there, and the time it takes is known.
    running(own_daemon, "first")
    own_daemon.delete("first")
    if prepare:
        prepare(own_daemon, "calm")
    begin = time.monotonic()
    act(own_daemon, "calm")
    took = time.monotonic() - begin
    for name in own_daemon.instances():
        own_daemon.lxpy("delete", "--force", name)
    before = leaks.take(own_daemon)
    chance = random.Random(kind)
    for number in range(ROUNDS):
        name = f"round{number}"
        if prepare:
            prepare(own_daemon, name)
        after_s = chance.uniform(0, took * 1.2)
        killed_in_the_middle(own_daemon, lambda name=name: act(own_daemon, name), after_s)
        own_daemon.start()
        consistent(own_daemon, own_daemon.instances())
        leaks.check(own_daemon, before, 10)


def test_host_reboot(own_daemon: Daemon, busybox_image: Path) -> None:
    """All run-time state is gone: what ran comes back, in the order of its priority."""
    import_image(own_daemon, busybox_image, "tiny")
    config = {"boot.autostart": "true", "boot.autostart.priority": "10"}
    create(own_daemon, "tiny", "first", config=config)
    create(own_daemon, "tiny", "was-running")
    create(own_daemon, "tiny", "was-stopped")
    create(own_daemon, "tiny", "never", config={"boot.autostart": "false"})
    for name in ("first", "was-running", "never"):
        change(own_daemon, name, "start")
    own_daemon.exec("was-running", "sh", "-c", "echo kept >/root/file; sync")
    own_daemon.power_cut()
    own_daemon.start()
    own_daemon.wait_status("first", "Running")
    own_daemon.wait_status("was-running", "Running")
    assert own_daemon.out("was-running", "cat", "/root/file") == "kept"
    assert own_daemon.status("was-stopped") == "Stopped"
    assert own_daemon.status("never") == "Stopped"
