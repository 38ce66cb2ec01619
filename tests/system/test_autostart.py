"""What comes up with the daemon: by priority, with delays, together within one priority."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support import processes
from tests.support.daemon import Daemon
from tests.support.fixtures import change, create, import_image


def prepare(daemon: Daemon, image: Path, **configs: dict[str, str]) -> None:
    """Create stopped instances by name, none of which ran before."""
    import_image(daemon, image, "tiny")
    for name, config in configs.items():
        values = {f"boot.autostart{key}": value for key, value in config.items()}
        create(daemon, "tiny", name, config=values)


def started_at(daemon: Daemon, name: str) -> float:
    """When PID 1 of an instance began, in seconds since the host's boot."""
    daemon.wait_status(name, "Running", 30)
    stat = Path(f"/proc/{daemon.init_pid(name)}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19]) / 100


def test_priority_and_delay(own_daemon: Daemon, busybox_image: Path) -> None:
    on = {"": "true"}
    prepare(
        own_daemon,
        busybox_image,
        last=on,
        first={**on, ".priority": "20", ".delay": "2"},
        second={**on, ".priority": "10"},
        off={"": "false"},
        unset={},
    )
    own_daemon.restart()
    times = [started_at(own_daemon, name) for name in ("first", "second", "last")]
    assert times == sorted(times)
    assert times[1] - times[0] >= 1.9
    assert own_daemon.status("off") == own_daemon.status("unset") == "Stopped"


def test_one_priority_starts_together(own_daemon: Daemon, busybox_image: Path) -> None:
    """A delay holds up the next priority, not the neighbours."""
    names = [f"one{number}" for number in range(6)]
    config = {"": "true", ".delay": "3"}
    prepare(own_daemon, busybox_image, **dict.fromkeys(names, config))
    own_daemon.restart()
    times = [started_at(own_daemon, name) for name in names]
    assert max(times) - min(times) < 2.5


def test_the_daemon_answers_while_they_start(own_daemon: Daemon, busybox_image: Path) -> None:
    slow = {"": "true", ".priority": "9", ".delay": "3"}
    prepare(own_daemon, busybox_image, slow=slow, later={"": "true"})
    own_daemon.stop()
    begin = time.monotonic()
    own_daemon.start()
    own_daemon.api.get("/1.0/instances?recursion=2")
    assert time.monotonic() - begin < 3
    own_daemon.wait_status("later", "Running")


def test_what_cannot_start_stops_nobody_else(own_daemon: Daemon, busybox_image: Path) -> None:
    prepare(own_daemon, busybox_image, bad={"": "true", ".priority": "9"}, good={"": "true"})
    change(own_daemon, "bad", "start")
    own_daemon.exec("bad", "rm", "/sbin/init")
    change(own_daemon, "bad", "stop")
    own_daemon.restart()
    own_daemon.wait_status("good", "Running")
    assert own_daemon.status("bad") == "Stopped"
    (warning,) = own_daemon.api.get("/1.0/warnings?recursion=1")
    assert warning["type"] == "Failed to autostart instance" and warning["project"] == "default"
    assert warning["entity_url"] == "/1.0/instances/bad" and "init" in warning["last_message"]
    assert "Failed to autostart instance" in own_daemon.lxpy("warning", "list").stdout
    own_daemon.delete("bad")
    assert own_daemon.api.get("/1.0/warnings") == []


def test_running_ones_are_not_touched(own_daemon: Daemon, busybox_image: Path) -> None:
    prepare(own_daemon, busybox_image, on={"": "true"}, off={"": "false"})
    change(own_daemon, "on", "start")
    change(own_daemon, "off", "start")
    before = [own_daemon.init_pid(name) for name in ("on", "off")]
    own_daemon.restart()
    assert [own_daemon.init_pid(name) for name in ("on", "off")] == before


def test_stopped_by_hand_stays_stopped(own_daemon: Daemon, busybox_image: Path) -> None:
    """Without boot.autostart an instance comes up only if it ran when the host went down."""
    prepare(own_daemon, busybox_image, ran={}, stopped={})
    for name in ("ran", "stopped"):
        change(own_daemon, name, "start")
    change(own_daemon, "stopped", "stop")
    own_daemon.shutdown()
    assert not processes.in_cgroup(own_daemon.cgroup)
    own_daemon.start()
    own_daemon.wait_status("ran", "Running")
    assert own_daemon.status("stopped") == "Stopped"
