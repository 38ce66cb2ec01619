"""Memory of instances: saved, restored, rolled back, whatever happens to daemon and supervisor."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lxpy.services.memory.criu import PREFIX
from lxpy.units import format_size
from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change, create, import_image
from tests.system.test_distribution import boot

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.path.exists(f"{PREFIX}/bin/criu"), reason="needs CRIU (packaging/criu.sh)"
    ),
]

# Counts in memory, under a tag that no other process has; says so when it is asked by a fifo.
COUNTER = """
tag=$(cat /proc/sys/kernel/random/uuid); count=0; mkfifo /root/ask /root/tell
exec 8</etc/hostname; echo deleted >/root/gone; exec 9</root/gone; rm /root/gone
while :; do count=$((count + 1)); echo "$tag $count" >/root/state.new
mv /root/state.new /root/state; sleep 0.1; done
"""


def count(daemon: Daemon, name: str) -> tuple[str, int]:
    """Begin to count in an instance; return where that has come to."""
    daemon.exec(name, "sh", "-c", f"setsid sh -c '{COUNTER}' </dev/null >/dev/null 2>&1 &")
    processes.wait_until(
        lambda: daemon.exec(name, "ls", "/root/state", check=False).returncode == 0
    )
    return where(daemon, name)


def where(daemon: Daemon, name: str) -> tuple[str, int]:
    """The counter's tag, and how far it is."""
    tag, number = daemon.out(name, "cat", "/root/state").split()
    return tag, int(number)


def goes_on(daemon: Daemon, name: str, tag: str) -> int:
    """Check that the same process counts on; return how far it is."""
    found, first = where(daemon, name)
    assert found == tag
    processes.wait_until(lambda: where(daemon, name)[1] > first)
    return first


def test_stopped_and_started_with_its_state(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    address = daemon.address(name)
    tag, _ = count(daemon, name)
    daemon.lxpy("stop", name, "--stateful")
    assert daemon.status(name) == "Stopped"
    assert daemon.api.get(f"/1.0/instances/{name}")["stateful"] is True
    states = daemon.directory / "states" / name
    assert states.stat().st_mode & 0o077 == 0
    daemon.lxpy("start", name)
    goes_on(daemon, name, tag)
    assert daemon.address(name) == address
    daemon.exec(name, "ping", "-c", "1", "-W", "2", gateway(daemon, name))
    assert daemon.api.get(f"/1.0/instances/{name}")["stateful"] is False
    assert not list(states.iterdir())
    # It is an instance like any other.
    change(daemon, name, "restart", force=True)
    assert daemon.status(name) == "Running"


def gateway(daemon: Daemon, name: str) -> str:
    line = daemon.out(name, "ip", "-4", "route", "show", "default")
    return line.split()[2]


def test_a_state_that_is_not_wanted_is_thrown_away(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    tag, _ = count(daemon, name)
    daemon.lxpy("stop", name, "--stateful")
    daemon.lxpy("start", name, "--stateless")
    assert not processes.matching(tag)
    assert daemon.exec(name, "pgrep", "-f", "count", check=False).returncode != 0
    assert not list((daemon.directory / "states" / name).iterdir())


def test_back_and_back_again(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    tag, _ = count(daemon, name)
    daemon.exec(name, "sh", "-c", "echo before >/root/file")
    daemon.lxpy("snapshot", name, "s1", "--stateful")
    then = goes_on(daemon, name, tag)
    found = daemon.api.get(f"/1.0/instances/{name}/snapshots/s1")
    assert found["stateful"] is True and found["lxpy"]["frozen_ms"] > 0
    memory = found["lxpy_stateful"]
    images = (daemon.directory / "states" / name / "@s1").iterdir()
    assert memory["size"] == sum(each.stat().st_blocks * 512 for each in images) > 0
    assert memory["frozen_ms"] == found["lxpy"]["frozen_ms"]
    shown = daemon.lxpy("info", name, "--snapshots").stdout
    assert "MEMORY" in shown and format_size(memory["size"]) in shown
    daemon.lxpy("snapshot", name, "s0")
    assert daemon.api.get(f"/1.0/instances/{name}/snapshots/s0")["lxpy_stateful"] is None
    for _ in range(3):
        daemon.exec(name, "sh", "-c", "echo after >/root/file")
        time.sleep(0.5)
        daemon.lxpy("restore", name, "s1")  # with its memory, as it has it
        assert goes_on(daemon, name, tag) <= then + 20
        assert daemon.out(name, "cat", "/root/file") == "before"
    daemon.lxpy("restore", name, "s1", "--stateless")
    assert daemon.exec(name, "ps").stdout.count(tag) == 0
    # From a stopped instance, too; and a snapshot of what was restored.
    change(daemon, name, "stop", force=True)
    daemon.lxpy("restore", name, "s1", "--stateful")
    goes_on(daemon, name, tag)
    daemon.lxpy("snapshot", name, "s2", "--stateful")
    daemon.lxpy("restore", name, "s2", "--stateful")
    goes_on(daemon, name, tag)
    daemon.lxpy("delete", f"{name}/s1")
    assert [each.name for each in (daemon.directory / "states" / name).iterdir()] == ["@s2"]


@pytest.mark.timeout(180)
def test_schedules(daemon: Daemon, launch: Launch) -> None:
    """Every minute one with memory; the memory of those that have expired goes with them."""
    config = {"snapshots.schedule": "* * * * *", "snapshots.schedule.stateful": "true"}
    name = launch(config=config)
    tag, _ = count(daemon, name)
    daemon.lxpy("snapshot", name, "old", "--stateful")
    path, states = f"/1.0/instances/{name}/snapshots", daemon.directory / "states" / name
    daemon.api.put(f"{path}/old", {"expires_at": "2020-01-01T00:00:00Z"})
    processes.wait_until(lambda: os.listdir(states) == ["@snap0"], 70)
    (found,) = daemon.api.get(f"{path}?recursion=1")
    assert found["stateful"] and found["lxpy_stateful"]["size"] > 0
    daemon.lxpy("restore", name, "snap0")
    goes_on(daemon, name, tag)


def test_over_the_death_of_daemon_and_supervisor(own_daemon: Daemon, busybox_image: Path) -> None:
    daemon = own_daemon
    import_image(daemon, busybox_image, "tiny")
    name = create(daemon, "tiny")
    change(daemon, name, "start")
    tag, _ = count(daemon, name)
    daemon.lxpy("stop", name, "--stateful")
    daemon.shutdown()
    daemon.start()
    daemon.lxpy("start", name)
    goes_on(daemon, name, tag)
    pid = daemon.init_pid(name)
    old = daemon.supervisor
    os.kill(old, signal.SIGKILL)
    processes.wait_until(lambda: daemon.supervisors not in ([], [old]))
    time.sleep(1)  # the daemon hands the console over to the new one
    daemon.kill()
    daemon.start()
    assert daemon.init_pid(name) == pid
    goes_on(daemon, name, tag)
    daemon.lxpy("snapshot", name, "s1", "--stateful")
    daemon.power_cut()
    daemon.start()
    daemon.lxpy("restore", name, "s1", "--stateful")
    goes_on(daemon, name, tag)


def test_what_cannot_be_saved_goes_on(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    tag, _ = count(daemon, name)
    # A pid namespace with a /proc of its own: CRIU dumps it not.
    daemon.exec(name, "sh", "-c", "unshare -Urpf sleep 300 </dev/null >/dev/null 2>&1 &")
    processes.wait_until(lambda: "sleep 300" in daemon.out(name, "ps"))
    for command in (("stop", name), ("snapshot", name, "s1")):
        done = daemon.lxpy(*command, "--stateful", check=False)
        assert done.returncode != 0 and "cannot be saved: " in done.stderr, done.stderr
        goes_on(daemon, name, tag)
    shown = daemon.lxpy("info", name, "--show-log").stdout
    assert "cannot be saved" in shown and "criu.log" in shown
    assert "criu.log" in str(daemon.api.get(f"/1.0/instances/{name}/logs"))
    assert daemon.api.get(f"/1.0/instances/{name}/snapshots") == []
    assert not [p for p in (daemon.directory / "states" / name).glob("*") if p.is_dir()]


def test_a_twin_is_told_apart(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    address = daemon.address(name)
    tag, then = count(daemon, name)
    twin = daemon.name("twin")
    try:
        daemon.lxpy("fork", name, twin)
        assert goes_on(daemon, twin, tag) >= then
        goes_on(daemon, name, tag)
        assert daemon.out(twin, "hostname") == twin
        cards = [daemon.state(each)["network"]["eth0"]["hwaddr"] for each in (name, twin)]
        maps = [daemon.out(each, "cat", "/proc/self/uid_map") for each in (name, twin)]
        assert cards[0] != cards[1] and maps[0] != maps[1]
        assert daemon.address(twin) not in (address, "")
        assert daemon.address(name) == address
        daemon.exec(name, "sh", "-c", "echo mine >/root/file")
        assert daemon.exec(twin, "ls", "/root/file", check=False).returncode != 0
        change(daemon, twin, "restart", force=True)
    finally:
        daemon.delete(twin)
    done = daemon.lxpy("fork", daemon.name("nobody"), "x", check=False)
    assert done.returncode != 0 and "not found" in done.stderr


def test_a_twin_that_cannot_be_leaves_nothing(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    tag, _ = count(daemon, name)
    daemon.exec(name, "sh", "-c", "unshare -Urpf sleep 300 </dev/null >/dev/null 2>&1 &")
    processes.wait_until(lambda: "sleep 300" in daemon.out(name, "ps"))
    checked = daemon.lxpy("checkpoint", "--check", name, check=False)
    assert checked.returncode == 1 and "user namespace of its own" in checked.stdout
    before = daemon.instances()
    done = daemon.lxpy("fork", name, daemon.name("twin"), check=False)
    assert done.returncode != 0 and "cannot be saved" in done.stderr
    assert daemon.instances() == before
    goes_on(daemon, name, tag)


def test_processes_that_nobody_collected_are_in_nobodys_way(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", "(sleep 0 & exec sleep 301) </dev/null >/dev/null 2>&1 &")
    processes.wait_until(lambda: "[sleep]" in daemon.out(name, "ps"))
    assert daemon.lxpy("checkpoint", "--check", name).returncode == 0
    daemon.lxpy("snapshot", name, "s", "--stateful")
    daemon.lxpy("restore", name, "s")
    assert "[sleep]" in daemon.out(name, "ps") and "sleep 301" in daemon.out(name, "ps")


def test_processes_that_come_and_go_are_in_nobodys_way(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", "(while :; do sleep 0; done) </dev/null >/dev/null 2>&1 &")
    for _ in range(200):
        assert daemon.api.get(f"/1.0/instances/{name}/checkpoint")["blockers"] == []


def test_refusals(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    for request, words in (
        (
            ("PUT", f"/1.0/instances/{name}/state", {"action": "start", "stateful": True}),
            "no existing state",
        ),
        (
            ("POST", f"/1.0/instances/{name}/snapshots", {"name": "s", "stateful": True}),
            "isn't running",
        ),
        (
            ("PUT", f"/1.0/instances/{name}/state", {"action": "restart", "stateful": True}),
            "start and stop",
        ),
        (("GET", f"/1.0/instances/{name}/memory"), "has no state"),
        (("GET", f"/1.0/instances/{name}/memory?ahead=true"), "cannot be sent ahead"),
        (("PUT", f"/1.0/instances/{name}/memory?ahead=true&beyond=x", b""), "take the state"),
    ):
        with pytest.raises(ApiError, match=words):
            daemon.api.call(*request)
    daemon.lxpy("snapshot", name, "plain")
    with pytest.raises(ApiError, match="has no state of processes"):
        daemon.api.put(f"/1.0/instances/{name}", {"restore": "plain", "stateful": True})


@pytest.mark.distribution
@pytest.mark.parametrize("image", ["debian12", "debian13"])
def test_a_distribution_five_times_in_a_row(
    daemon: Daemon, launch: Launch, image: str, request: pytest.FixtureRequest
) -> None:
    name = launch(request.getfixturevalue(image))
    assert boot(daemon, name) == "running"
    other = launch()
    daemon.exec(
        name, "sh", "-c", "nohup python3 -m http.server 8000 >/dev/null 2>&1 &", check=False
    )
    tag, _ = count(daemon, name)
    address = daemon.address(name)
    for _ in range(5):
        daemon.lxpy("stop", name, "--stateful")
        daemon.lxpy("start", name)
        goes_on(daemon, name, tag)
    assert daemon.out(name, "systemctl", "is-system-running") == "running"
    daemon.exec(name, "systemctl", "restart", "systemd-logind")
    daemon.exec(name, "systemd-run", "--wait", "true")
    assert daemon.address(name) == address
    daemon.exec(other, "ping", "-c", "1", "-W", "2", address)
    daemon.exec(name, "getent", "hosts", other)


@pytest.mark.distribution
def test_a_distribution_on_btrfs(daemon: Daemon, launch: Launch, debian13: str) -> None:
    daemon.api.post(
        "/1.0/storage-pools", {"name": "p", "driver": "btrfs", "config": {"size": "2GiB"}}
    )
    root = {"type": "disk", "path": "/", "pool": "p"}
    name = launch(debian13, devices={"root": root})
    assert boot(daemon, name) == "running"
    tag, _ = count(daemon, name)
    daemon.lxpy("snapshot", name, "s0", "--stateful")
    for _ in range(2):
        daemon.lxpy("restore", name, "s0", "--stateful")
        goes_on(daemon, name, tag)
    daemon.lxpy("stop", name, "--stateful")
    daemon.lxpy("start", name)
    goes_on(daemon, name, tag)
    assert daemon.out(name, "systemctl", "is-system-running") == "running"
    daemon.delete(name)
    daemon.api.delete("/1.0/storage-pools/p")


def test_a_criu_that_does_not_work(own_daemon: Daemon, busybox_image: Path, tmp_path: Path) -> None:
    proof = own_daemon.directory / "cache/criu"
    processes.wait_until(proof.exists)  # the daemon has tried the one that works
    own_daemon.stop()
    proof.unlink()
    broken = tmp_path / "criu"
    broken.write_text(
        """#!/bin/sh
case $1 in --version) echo Version: 9.0; exit;; esac
while [ "$1" != --images-dir ]; do shift; done
echo 'Error (criu/none.c:1): it is broken' >"$2/dump.log"
exit 1
"""
    )
    broken.chmod(0o755)
    own_daemon.environment["LXPY_CRIU"] = str(broken)
    own_daemon.start()
    import_image(own_daemon, busybox_image, "tiny")
    create(own_daemon, "tiny", "c1")
    change(own_daemon, "c1", "start")
    with pytest.raises(ApiError, match=r"No usable CRIU here: .*it is broken"):
        change(own_daemon, "c1", "stop", stateful=True, force=False)
    assert not proof.exists()
    assert own_daemon.out("c1", "echo", "runs") == "runs"
