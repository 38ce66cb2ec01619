"""The life of an instance through the REST API: created, started, stopped, copied, deleted."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change, create, import_image
from tests.support.processes import wait_until


def boots(daemon: Daemon, name: str) -> list[str]:
    """What the tiny image's init noted: "up" at its start, "down" at a clean stop."""
    return daemon.out(
        name, "cat", "/var/log/boots", check=False
    ).split()  # at first it is not there


def copy(daemon: Daemon, source: str, name: str | None = None, **fields: object) -> str:
    name = name or daemon.name()
    body = {"name": name, "source": {"type": "copy", "source": source}, **fields}
    daemon.api.post("/1.0/instances", body)
    return name


def test_created_is_stopped_and_started_runs(daemon: Daemon, tiny: str, launch: Launch) -> None:
    name = launch(start=False, description="first", config={"user.k": "v"})
    found = daemon.api.get(f"/1.0/instances/{name}")
    assert (found["status"], found["status_code"]) == ("Stopped", 102)
    assert found["description"] == "first" and found["config"]["user.k"] == "v"
    assert found["config"]["image.os"] == "Busybox" and found["profiles"] == ["default"]
    assert found["expanded_devices"]["root"]["path"] == "/"
    state = daemon.state(name)
    assert (state["pid"], state["processes"], state["network"]) == (0, 0, None)
    change(daemon, name, "start")
    state = daemon.state(name)
    assert (state["status"], state["status_code"]) == ("Running", 103)
    assert state["pid"] > 0 and state["processes"] > 0 and state["memory"]["usage"] > 0
    assert state["cpu"]["usage"] > 0 and {"lo", "eth0"} <= set(state["network"])
    assert daemon.api.get(f"/1.0/instances/{name}")["last_used_at"] > "2000"


def test_templates_of_the_image(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    assert daemon.out(name, "hostname") == name
    assert daemon.out(name, "cat", "/etc/hostname") == name
    assert f"127.0.1.1\t{name}" in daemon.out(name, "cat", "/etc/hosts")
    assert daemon.out(name, "stat", "-c", "%u:%g", "/etc/hosts") == "0:0"


def test_stop_clean_and_forced(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    wait_until(lambda: boots(daemon, name) == ["up"], 10, "the first boot")
    change(daemon, name, "stop", force=False, timeout=20)
    assert daemon.status(name) == "Stopped"
    change(daemon, name, "start")
    wait_until(lambda: boots(daemon, name) == ["up", "down", "up"], 10, "the second boot")
    pid = daemon.init_pid(name)
    change(daemon, name, "stop")
    assert daemon.status(name) == "Stopped" and not processes.alive(pid)
    change(daemon, name, "start")
    wait_until(lambda: boots(daemon, name) == ["up", "down", "up", "up"], 10, "the third boot")


def test_clean_stop_that_takes_too_long(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    slow = "sed -i 's/^::shutdown:.*/::shutdown:\\/bin\\/sleep 600/' /etc/inittab; kill -HUP 1"
    wait_until(lambda: boots(daemon, name) == ["up"], 10, "boot")
    daemon.exec(name, "sh", "-c", slow)
    with pytest.raises(ApiError):
        change(daemon, name, "stop", force=False, timeout=1)
    assert daemon.status(name) == "Running"
    change(daemon, name, "stop")
    assert daemon.status(name) == "Stopped"


@pytest.mark.parametrize("force", [False, True])
def test_restart(daemon: Daemon, launch: Launch, force: bool) -> None:
    name = launch()
    wait_until(lambda: boots(daemon, name) == ["up"], 10, "boot")
    first, card = daemon.init_pid(name), daemon.state(name)["network"]["eth0"]["hwaddr"]
    change(daemon, name, "restart", force=force, timeout=20)
    assert daemon.init_pid(name) not in (0, first)
    assert daemon.state(name)["network"]["eth0"]["hwaddr"] == card
    expected = ["up", "up"] if force else ["up", "down", "up"]
    wait_until(lambda: boots(daemon, name) == expected, 10, str(expected))


def test_pause_and_resume(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", "(while :; do echo >>/root/ticks; done) >/dev/null 2>&1 &")

    def ticks() -> int:
        target = f"/proc/{daemon.init_pid(name)}/root/root/ticks"
        return os.stat(target).st_size if os.path.exists(target) else 0

    wait_until(ticks, 5, "the first tick")
    change(daemon, name, "freeze")
    assert daemon.state(name)["status_code"] == 110 and daemon.status(name) == "Frozen"
    seen = ticks()
    with pytest.raises(ApiError, match="(?i)frozen") as refused:
        daemon.api.post(f"/1.0/instances/{name}/exec", {"command": ["true"]})
    assert refused.value.status == 400
    assert ticks() == seen
    change(daemon, name, "unfreeze")
    wait_until(lambda: ticks() > seen, 5, "more ticks")
    assert daemon.status(name) == "Running"
    change(daemon, name, "freeze")
    change(daemon, name, "stop", force=False)  # by its own init, which goes on for that
    assert daemon.status(name) == "Stopped"
    change(daemon, name, "start")
    change(daemon, name, "freeze")
    change(daemon, name, "stop")
    assert daemon.status(name) == "Stopped"
    with pytest.raises(ApiError, match="already in use"):
        daemon.api.post(f"/1.0/instances/{name}", {"name": name})


def test_actions_that_do_not_fit_the_state(daemon: Daemon, launch: Launch) -> None:
    running, stopped = launch(), launch(start=False)
    cases = {
        (running, "start"): "already running",
        (stopped, "stop"): "already stopped",
        (stopped, "freeze"): "isn't running",
    }
    for (name, action), text in cases.items():
        with pytest.raises(ApiError, match=text):
            change(daemon, name, action)
    for url in (f"/1.0/instances/{running}", f"/1.0/instances/{running}?project=default"):
        with pytest.raises(ApiError, match="running"):
            daemon.api.delete(url)
    with pytest.raises(ApiError, match="(?i)action") as refused:
        change(daemon, running, "explode")
    assert refused.value.status == 400
    with pytest.raises(ApiError, match="running"):
        daemon.api.post(f"/1.0/instances/{running}", {"name": daemon.name()})
    with pytest.raises(ApiError, match="not running") as refused:
        daemon.api.post(f"/1.0/instances/{stopped}/exec", {"command": ["true"]})
    assert refused.value.status == 400


def test_rename(daemon: Daemon, launch: Launch) -> None:
    name, new, other = launch(), daemon.name(), launch(start=False)
    daemon.exec(name, "sh", "-c", "echo kept >/root/file")
    change(daemon, name, "stop")
    with pytest.raises(ApiError, match="in use"):
        daemon.api.post(f"/1.0/instances/{name}", {"name": other})
    daemon.api.post(f"/1.0/instances/{name}", {"name": new})
    assert name not in daemon.instances()
    change(daemon, new, "start")
    assert daemon.out(new, "cat", "/root/file") == "kept"
    assert daemon.out(new, "cat", "/proc/sys/kernel/hostname") in (name, new)


def test_copy_is_independent(daemon: Daemon, launch: Launch) -> None:
    source = launch(config={"user.k": "v", "limits.processes": "200"}, description="model")
    daemon.exec(source, "sh", "-c", "echo one >/root/file; chown 1000:1000 /root/file; rm -r /opt")
    change(daemon, source, "stop")
    name = copy(daemon, source)
    found = daemon.api.get(f"/1.0/instances/{name}")
    assert found["config"]["user.k"] == "v" and found["config"]["limits.processes"] == "200"
    for one in (source, name):
        change(daemon, one, "start")
    assert daemon.out(name, "hostname") == name
    assert daemon.out(name, "cat", "/root/file") == "one"
    assert daemon.out(name, "stat", "-c", "%u:%g", "/root/file") == "1000:1000"
    assert daemon.exec(name, "test", "-e", "/opt", check=False).returncode == 1
    daemon.exec(name, "sh", "-c", "echo two >/root/file")
    assert daemon.out(source, "cat", "/root/file") == "one"
    cards = {daemon.state(one)["network"]["eth0"]["hwaddr"] for one in (source, name)}
    assert len(cards) == 2
    maps = {daemon.out(one, "cat", "/proc/self/uid_map").split()[1] for one in (source, name)}
    assert len(maps) == 2
    change(daemon, source, "stop")
    daemon.api.delete(f"/1.0/instances/{source}")
    assert daemon.out(name, "cat", "/root/file") == "two"


def test_ephemeral(daemon: Daemon, launch: Launch) -> None:
    name = launch(ephemeral=True)
    assert daemon.api.get(f"/1.0/instances/{name}")["ephemeral"] is True
    change(daemon, name, "restart", force=True)
    assert daemon.status(name) == "Running"
    change(daemon, name, "stop")
    wait_until(lambda: name not in daemon.instances(), 10, "its end")
    other = launch(ephemeral=True)
    daemon.exec(other, "sh", "-c", "poweroff >/dev/null 2>&1 &")
    wait_until(lambda: other not in daemon.instances(), 20, "its end")


def test_reboot_inside(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    first = daemon.init_pid(name)
    daemon.exec(name, "sh", "-c", "reboot >/dev/null 2>&1 &")
    wait_until(lambda: daemon.init_pid(name) not in (0, first), 20, "another init")
    assert daemon.status(name) == "Running"
    assert boots(daemon, name)[:2] == ["up", "down"]
    assert daemon.address(name)


def test_poweroff_inside(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", "poweroff >/dev/null 2>&1 &")
    daemon.wait_status(name, "Stopped")
    url = f"/1.0/instances/{name}"
    wait_until(
        lambda: daemon.api.get(url)["config"]["volatile.last_state.power"] == "STOPPED",
        5,
        "power state written",
    )
    change(daemon, name, "start")
    assert daemon.status(name) == "Running"


def test_killed_init(daemon: Daemon, launch: Launch) -> None:
    """It is stopped, and `info` says why."""
    name = launch()
    os.kill(daemon.init_pid(name), signal.SIGKILL)
    daemon.wait_status(name, "Stopped")

    def told() -> str:
        return daemon.lxpy("info", name).stdout

    wait_until(lambda: re.search(r"(?i)kill|signal 9", told()), 5, f"a reason in\n{told()}", 0.2)
    change(daemon, name, "start")
    assert daemon.out(name, "echo", "fine") == "fine"


def test_data_survives(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    name = create(own_daemon, "tiny")
    change(own_daemon, name, "start")
    own_daemon.exec(name, "sh", "-c", "echo kept >/root/file; echo new >/etc/new; rm /etc/hosts")
    for again in (lambda: None, own_daemon.restart):
        change(own_daemon, name, "stop")
        again()
        change(own_daemon, name, "start")
        assert own_daemon.out(name, "cat", "/root/file", "/etc/new") == "kept\nnew"
        assert own_daemon.exec(name, "test", "-e", "/etc/hosts", check=False).returncode == 1


def test_name_is_made_up(daemon: Daemon, tiny: str) -> None:
    body = {"source": {"type": "image", "alias": tiny}}
    done = daemon.api.post("/1.0/instances", body)
    (url,) = done["resources"]["instances"]
    name = url.rsplit("/", 1)[1]
    assert re.fullmatch(r"[a-z]+-[a-z]+(-\d+)?", name)
    daemon.api.delete(url)
