"""The console of an instance: attached, detached, logged; it belongs to nobody and goes on."""

from __future__ import annotations

import time

import pytest

from tests.support import execution
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.support.processes import wait_until

# A shell on the console, as a login prompt would be one.
SHELL = "::respawn:-/bin/sh"
CAP = 1 << 20


def with_shell(daemon: Daemon, launch: Launch) -> str:
    """An instance with a shell on its console."""
    name = launch()
    daemon.exec(name, "sh", "-c", f"echo '{SHELL}' >>/etc/inittab; kill -HUP 1")
    return name


def log(daemon: Daemon, name: str) -> str:
    status, headers, data = daemon.api.raw("GET", f"/1.0/instances/{name}/console")
    assert status == 200 and headers["content-type"] == "application/octet-stream"
    return data.decode(errors="replace")


def write(daemon: Daemon, name: str, text: str) -> None:
    daemon.exec(name, "sh", "-c", f"echo '{text}' >/dev/console")


def test_attach_type_detach(daemon: Daemon, launch: Launch) -> None:
    name = with_shell(daemon, launch)
    with execution.console(daemon.api, name, width=90, height=30) as console:
        assert set(console.secrets) == {"0", "control"}
        console.type("\r")
        console.read_until("#")
        console.type("echo typed-$((40 + 2))\r")
        console.read_until("typed-42")
        console.resize(70, 20)
        console.type("stty size; echo again-$((40 + 3))\r")
        assert "20 70" in console.read_until("again-43")
        # Detaching is hanging up the control socket.
        console.sockets["control"].close()
        assert console.wait()["status_code"] == 200
    with execution.console(daemon.api, name) as console:
        console.type("echo back-$((40 + 4))\r")
        console.read_until("back-44")
    assert daemon.status(name) == "Running"


def test_sysfs_names_it(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    assert daemon.out(name, "cat", "/sys/class/tty/console/active") == "console"


def test_two_look_at_one_console(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    with (
        execution.console(daemon.api, name) as first,
        execution.console(daemon.api, name) as second,
    ):
        time.sleep(0.2)
        write(daemon, name, "for both")
        first.read_until("for both")
        second.read_until("for both")


def test_log(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    write(daemon, name, "one line")
    wait_until(lambda: "one line" in log(daemon, name), 5, "the line in the log")
    daemon.api.delete(f"/1.0/instances/{name}/console")
    assert "one line" not in log(daemon, name)
    write(daemon, name, "before the end")
    change(daemon, name, "stop")
    assert "before the end" in log(daemon, name)


def test_log_is_capped_and_nobody_waits(daemon: Daemon, launch: Launch) -> None:
    """Output that nobody reads neither fills the disk nor stops who writes it."""
    name = launch()
    flood = "yes 0123456789012345678901234567890123456789 | head -c 6000000 >/dev/console"
    daemon.exec(name, "sh", "-c", flood, timeout=60)
    write(daemon, name, "after the flood")
    wait_until(lambda: log(daemon, name).rstrip().endswith("after the flood"), 10, "the last line")
    assert len(log(daemon, name)) <= 2 * CAP


def test_console_outlives_the_daemon(daemon: Daemon, launch: Launch) -> None:
    name = with_shell(daemon, launch)
    write(daemon, name, "before")
    daemon.stop()
    pid = next(iter(daemon.supervisors))
    assert pid
    daemon.start()
    write(daemon, name, "afterwards")
    wait_until(lambda: "afterwards" in log(daemon, name), 5, "output after the restart")
    assert "before" in log(daemon, name)
    with execution.console(daemon.api, name) as console:
        console.type("echo alive-$((40 + 2))\r")
        console.read_until("alive-42")


def test_end_of_the_instance_ends_the_console(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    with execution.console(daemon.api, name) as console:
        change(daemon, name, "stop")
        assert console.wait(20)["status_code"] >= 200


def test_what_has_no_console(daemon: Daemon, launch: Launch) -> None:
    stopped = launch(start=False)
    for name, body, status in (
        (stopped, {"type": "console"}, 400),
        ("none-such", {"type": "console"}, 404),
    ):
        with pytest.raises(ApiError) as refused:
            daemon.api.post(f"/1.0/instances/{name}/console", body)
        assert refused.value.status == status
    running = launch()
    for kind in ("vga", "toaster"):
        with pytest.raises(ApiError) as refused:
            daemon.api.post(f"/1.0/instances/{running}/console", {"type": kind})
        assert refused.value.status == 400
