"""The daemon and the supervisor: instances outlive both; one directory is one installation."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.support import processes
from tests.support.daemon import Daemon
from tests.support.fixtures import change, create, import_image
from tests.support.processes import wait_until


def test_ready_and_quiet(daemon: Daemon) -> None:
    status, _, _ = daemon.api.raw("GET", "/internal/ready")
    assert status == 200
    assert daemon.socket.stat().st_mode & 0o777 == 0o660
    assert processes.rss_bytes(daemon.supervisor) < 20 * 1024**2


def test_a_second_daemon_is_refused(daemon: Daemon) -> None:
    done = daemon.run(daemon.commands / "lxpyd", check=False, timeout=20)
    assert done.returncode != 0
    assert str(daemon.directory) in done.stderr or "running" in done.stderr
    assert daemon.api.get("/1.0")["auth"] == "trusted"


def test_stale_socket_is_replaced(own_daemon: Daemon) -> None:
    own_daemon.kill()
    assert own_daemon.socket.exists()
    own_daemon.start()


def test_instances_outlive_the_daemon(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    name = create(own_daemon, "tiny")
    change(own_daemon, name, "start")
    pid, address = own_daemon.init_pid(name), own_daemon.address(name)
    supervisor = own_daemon.supervisor
    for end in (own_daemon.stop, own_daemon.kill):
        end()
        assert processes.alive(pid) and processes.alive(supervisor)
        own_daemon.start()
        assert own_daemon.supervisor == supervisor
        assert own_daemon.init_pid(name) == pid
        assert own_daemon.address(name) == address
        assert own_daemon.out(name, "echo", "still") == "still"
    change(own_daemon, name, "stop")
    assert own_daemon.status(name) == "Stopped"


def test_end_while_the_daemon_was_away(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    off, again = create(own_daemon, "tiny"), create(own_daemon, "tiny")
    for name in (off, again):
        change(own_daemon, name, "start")
    first = own_daemon.init_pid(again)
    for name, word in ((off, "poweroff"), (again, "reboot")):
        own_daemon.exec(name, "sh", "-c", f"(sleep 2; {word}) >/dev/null 2>&1 </dev/null &")
    inits = [own_daemon.init_pid(name) for name in (off, again)]
    own_daemon.kill()
    wait_until(lambda: not any(map(processes.alive, inits)), 20, "both instances ended")
    own_daemon.start()
    own_daemon.wait_status(off, "Stopped")
    own_daemon.wait_status(again, "Running")
    assert own_daemon.init_pid(again) != first


def test_exec_goes_on_without_the_daemon(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    name = create(own_daemon, "tiny")
    change(own_daemon, name, "start")
    script = "for n in 1 2 3 4 5 6; do echo $n; sleep 0.5; done; echo done >/root/result"
    client = subprocess.Popen(
        [own_daemon.commands / "lxpy", "exec", name, "--", "sh", "-c", script],
        env=own_daemon.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert client.stdout is not None and client.stdout.readline() == b"1\n"
    own_daemon.kill()
    client.communicate(timeout=20)
    assert client.returncode != 0
    own_daemon.start()
    wait_until(
        lambda: own_daemon.exec(name, "cat", "/root/result", check=False).stdout == "done\n",
        20,
        "the command's result",
    )


def test_supervisor_killed(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    name = create(own_daemon, "tiny")
    change(own_daemon, name, "start")
    pid, old = own_daemon.init_pid(name), own_daemon.supervisor
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: not processes.alive(old), 5, "end of the supervisor")
    assert processes.alive(pid)
    wait_until(lambda: own_daemon.supervisors not in ([], [old]), 10, "a new supervisor")
    assert own_daemon.init_pid(name) == pid
    assert own_daemon.out(name, "echo", "adopted") == "adopted"
    change(own_daemon, name, "freeze")
    change(own_daemon, name, "unfreeze")
    change(own_daemon, name, "stop")
    assert not processes.alive(pid)
    change(own_daemon, name, "start")
    assert own_daemon.out(name, "echo", "again") == "again"


def test_supervisor_and_daemon_killed(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    name = create(own_daemon, "tiny")
    change(own_daemon, name, "start")
    pid = own_daemon.init_pid(name)
    own_daemon.kill()
    os.kill(own_daemon.supervisor, signal.SIGKILL)
    wait_until(lambda: not own_daemon.supervisors, 5, "end of the supervisor")
    own_daemon.start()
    assert own_daemon.init_pid(name) == pid
    assert own_daemon.out(name, "echo", "found") == "found"
    change(own_daemon, name, "stop")
    assert not processes.alive(pid)


def test_shutdown_stops_instances_and_they_start_again(
    own_daemon: Daemon, busybox_image: Path
) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    running, stopped = create(own_daemon, "tiny"), create(own_daemon, "tiny")
    change(own_daemon, running, "start")
    pid = own_daemon.init_pid(running)
    own_daemon.lxpy("shutdown", timeout=60)
    wait_until(lambda: not own_daemon.running, 20, "end of the daemon")
    wait_until(lambda: not own_daemon.supervisors, 10, "end of the supervisor")
    assert not processes.alive(pid)
    own_daemon.start()
    own_daemon.wait_status(running, "Running")
    assert own_daemon.status(stopped) == "Stopped"


def test_two_installations_side_by_side(
    own_daemon: Daemon, daemon: Daemon, tiny: str, busybox_image: Path
) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    for one in (own_daemon, daemon):
        create(one, "tiny", "twin")
        change(one, "twin", "start")
    assert own_daemon.init_pid("twin") != daemon.init_pid("twin")
    assert own_daemon.cgroup != daemon.cgroup
    assert not own_daemon.bridges & daemon.bridges
    first, second = own_daemon.address("twin"), daemon.address("twin")
    assert first.rsplit(".", 1)[0] != second.rsplit(".", 1)[0]
    base = [Path(f"/proc/{d.init_pid('twin')}/uid_map").read_text() for d in (own_daemon, daemon)]
    assert all(text.split()[0] == "0" and text.split()[1] != "0" for text in base)


def test_daemonize(own_daemon: Daemon) -> None:
    own_daemon.stop()
    log = own_daemon.directory.with_name("daemonized.log")
    own_daemon.run(own_daemon.commands / "lxpyd", "--daemonize", "--log", log, timeout=30)
    # It returns when the daemon answers, and nothing of it holds the terminal.
    assert own_daemon.api.raw("GET", "/1.0")[0] == 200
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(own_daemon.socket))
    own_daemon.lxpy("shutdown", timeout=60)
    wait_until(lambda: not own_daemon.supervisors, 10, "end of the supervisor")
    wait_until(lambda: not processes.matching(str(log)), 10, "end of the daemon")
