"""Limits hold, change while an instance runs, and are what the instance sees."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.support.processes import wait_until

MIB = 1024**2
# Fills memory with bytes that nothing can share or drop.
GROW = "head -c {size}m /dev/zero | tail -c {size}m >/dev/null"


def configure(daemon: Daemon, name: str, **config: str) -> None:
    """Set keys, written with _ for the dots."""
    values = {key.replace("_", "."): value for key, value in config.items()}
    daemon.api.patch(f"/1.0/instances/{name}", {"config": values})


def grow(daemon: Daemon, name: str, size: int) -> bool:
    """Whether a process inside can use so many MiB."""
    return daemon.exec(name, "sh", "-c", GROW.format(size=size), check=False).returncode == 0


def cpu_share(daemon: Daemon, name: str, seconds: float = 1.0) -> float:
    """How many cpus the instance uses over a while."""
    before, begin = daemon.state(name)["cpu"]["usage"], time.monotonic()
    time.sleep(seconds)
    used = daemon.state(name)["cpu"]["usage"] - before
    return used / 1e9 / (time.monotonic() - begin)  # type: ignore[no-any-return]


def spin(daemon: Daemon, name: str, count: int = 1) -> None:
    """Start busy loops inside."""
    loop = "(while :; do :; done) >/dev/null 2>&1 </dev/null & "
    daemon.exec(name, "sh", "-c", loop * count)


def test_memory(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"limits.memory": "64MiB"})
    assert grow(daemon, name, 20)
    assert not grow(daemon, name, 150)
    # Killed inside, and nothing else of it.
    assert daemon.status(name) == "Running" and daemon.out(name, "echo", "alive") == "alive"
    configure(daemon, name, limits_memory="256MiB")
    assert grow(daemon, name, 150)
    configure(daemon, name, limits_memory="64MiB")
    assert not grow(daemon, name, 150)
    configure(daemon, name, limits_memory="")
    assert grow(daemon, name, 150)


def test_memory_as_a_share_of_the_host(daemon: Daemon, launch: Launch) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    percent = 100 * 100 * MIB // total or 1
    name = launch(config={"limits.memory": f"{percent}%"})
    assert not grow(daemon, name, total * percent // 100 // MIB + 100)


def test_memory_is_seen_in_the_state(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    before = daemon.state(name)["memory"]["usage"]
    daemon.exec(name, "sh", "-c", "mount -t tmpfs none /mnt; head -c 50m /dev/zero >/mnt/file")
    assert daemon.state(name)["memory"]["usage"] - before > 40 * MIB


def test_processes(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"limits.processes": "40"})
    bomb = "bomb() { bomb | bomb & }; bomb"
    daemon.exec(name, "sh", "-c", f"({bomb}) >/dev/null 2>&1 </dev/null &", check=False)
    time.sleep(1)
    assert 0 < daemon.state(name)["processes"] <= 40
    change(daemon, name, "stop")
    change(daemon, name, "start")
    sleepers = "for n in $(seq 100); do sleep 1000 >/dev/null 2>&1 </dev/null & done"
    done = daemon.exec(name, "sh", "-c", sleepers, check=False)
    assert "fork" in done.stderr
    assert daemon.state(name)["processes"] <= 40
    configure(daemon, name, limits_processes="300")
    assert daemon.exec(name, "sh", "-c", sleepers).stderr == ""


def test_allowance(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"limits.cpu.allowance": "20ms/100ms"})
    spin(daemon, name)
    assert 0.1 < cpu_share(daemon, name) < 0.3
    configure(daemon, name, limits_cpu_allowance="50ms/100ms")
    assert 0.3 < cpu_share(daemon, name) < 0.65
    configure(daemon, name, limits_cpu_allowance="")
    assert cpu_share(daemon, name) > 0.5


def test_priority_is_a_weight(daemon: Daemon, launch: Launch) -> None:
    """On one cpu, the one with the greater share gets more."""
    both = {"limits.cpu": "0-0"}
    strong = launch(config={**both, "limits.cpu.allowance": "90%"})
    weak = launch(config={**both, "limits.cpu.allowance": "10%"})
    for name in (strong, weak):
        spin(daemon, name, 2)
    before = {name: daemon.state(name)["cpu"]["usage"] for name in (strong, weak)}
    time.sleep(2)
    used = {name: daemon.state(name)["cpu"]["usage"] - before[name] for name in (strong, weak)}
    assert used[strong] > 2 * used[weak]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cpus")
def test_cpu_count_and_set(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"limits.cpu": "1"})

    def allowed() -> str:
        text = daemon.out(name, "grep", "Cpus_allowed_list", "/proc/self/status")
        return text.split()[1]

    assert allowed().isdigit()
    assert daemon.out(name, "nproc") == "1"
    spin(daemon, name, 3)
    assert cpu_share(daemon, name) < 1.2
    configure(daemon, name, limits_cpu="0-0")
    assert allowed() == "0"
    configure(daemon, name, limits_cpu="1-1")
    assert allowed() == "1"
    configure(daemon, name, limits_cpu="")
    assert daemon.out(name, "nproc") == str(os.cpu_count())
    init = Path(f"/proc/{daemon.init_pid(name)}/status").read_text()
    assert "Cpus_allowed_list:\t0\n" not in init


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limits.memory", "lots"),
        ("limits.memory", "-5MiB"),
        ("limits.cpu", "x"),
        ("limits.cpu.allowance", "150ms"),
        ("limits.processes", "0"),
    ],
)
def test_bad_limits_change_nothing(daemon: Daemon, launch: Launch, key: str, value: str) -> None:
    name = launch(config={"limits.memory": "200MiB"})
    with pytest.raises(ApiError):
        daemon.api.patch(f"/1.0/instances/{name}", {"config": {key: value}})
    config = daemon.api.get(f"/1.0/instances/{name}")["config"]
    assert config["limits.memory"] == "200MiB" and config.get(key) != value


def test_the_instance_sees_its_own_limits(daemon: Daemon, launch: Launch) -> None:
    if not Path("/usr/bin/lxcfs").exists():
        pytest.skip("needs lxcfs")
    name = launch(config={"limits.memory": "128MiB", "limits.cpu": "1"})

    def total_kib() -> int:
        return int(daemon.out(name, "grep", "MemTotal", "/proc/meminfo").split()[1])

    assert total_kib() == 128 * 1024
    assert daemon.out(name, "grep", "-c", "^processor", "/proc/cpuinfo") == "1"
    assert daemon.out(name, "cat", "/sys/devices/system/cpu/online").isdigit()
    up = float(daemon.out(name, "cat", "/proc/uptime").split()[0])
    assert up < 60 < float(Path("/proc/uptime").read_text().split()[0])
    # Running and all tasks: those of the instance.
    assert int(daemon.out(name, "cat", "/proc/loadavg").split()[3].split("/")[1]) < 20
    configure(daemon, name, limits_memory="96MiB")
    wait_until(lambda: total_kib() == 96 * 1024, 5, "the new limit in /proc/meminfo")


def test_limits_come_back_with_a_restart(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    configure(daemon, name, limits_memory="64MiB", limits_processes="50")
    change(daemon, name, "stop")
    change(daemon, name, "start")
    assert not grow(daemon, name, 150)
