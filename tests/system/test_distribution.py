"""Full distributions boot under their own systemd and live."""

from __future__ import annotations

import time

import pytest

from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.support.processes import wait_until

pytestmark = [pytest.mark.distribution, pytest.mark.timeout(900)]


@pytest.fixture(params=["debian/12", "debian/13"])
def image(request: pytest.FixtureRequest) -> str:
    """The distributions, one after the other."""
    name = str(request.param).replace("/", "")
    return str(request.getfixturevalue(name))


def boot(daemon: Daemon, name: str) -> str:
    """Wait for the end of its boot; what systemd says of it, once it listens at all."""
    command = ("systemctl", "is-system-running", "--wait")
    end = time.monotonic() + 60
    while True:
        done = daemon.exec(name, *command, check=False, timeout=60)
        if done.stdout.strip() or time.monotonic() > end:
            return done.stdout.strip()
        time.sleep(0.1)


def test_boots_and_lives(daemon: Daemon, launch: Launch, image: str) -> None:
    """One boot for many looks: a distribution takes its time."""
    begin = time.monotonic()
    name = launch(image)
    state = boot(daemon, name)
    took = time.monotonic() - begin
    failed = daemon.out(name, "systemctl", "--failed", "--no-legend", "--plain")
    assert (state, failed) == ("running", ""), failed
    assert took < 30
    check_identity(daemon, name, image)
    check_network(daemon, name)
    check_services(daemon, name)
    check_users_and_packages(daemon, name)
    change(daemon, name, "stop", force=False, timeout=30)
    assert daemon.status(name) == "Stopped"


def check_identity(daemon: Daemon, name: str, image: str) -> None:
    release = daemon.out(name, "cat", "/etc/os-release")
    assert f'VERSION_ID="{image.removeprefix("debian/")}"' in release
    assert daemon.out(name, "cat", "/proc/1/comm") == "systemd"
    assert daemon.out(name, "systemd-detect-virt") == "lxc"
    assert daemon.out(name, "hostname") == name
    inside, outside, size = daemon.out(name, "cat", "/proc/1/uid_map").split()
    assert inside == "0" and int(outside) > 65535 and int(size) == 65536
    assert len(daemon.out(name, "cat", "/etc/machine-id")) == 32


def check_network(daemon: Daemon, name: str) -> None:
    address = daemon.address(name)
    shown = daemon.out(name, "ip", "-4", "-brief", "address", "show", "eth0")
    assert address in shown
    assert daemon.out(name, "ip", "route", "show", "default").startswith("default via ")


def check_services(daemon: Daemon, name: str) -> None:
    log = daemon.out(name, "journalctl", "--boot", "--no-pager", "--output", "cat")
    assert "multi-user.target" in log
    daemon.exec(name, "systemd-run", "--wait", "--quiet", "-p", "DynamicUser=yes", "true")
    daemon.exec(name, "systemd-run", "--wait", "--quiet", "-p", "ProtectSystem=strict", "true")
    daemon.exec(name, "systemd-run", "--wait", "--quiet", "-p", "PrivateDevices=yes", "true")
    daemon.exec(name, "systemctl", "restart", "systemd-journald")


def check_users_and_packages(daemon: Daemon, name: str) -> None:
    daemon.exec(name, "useradd", "--create-home", "somebody")
    assert daemon.out(name, "su", "-", "somebody", "-c", "id -un") == "somebody"
    assert daemon.out(name, "stat", "-c", "%U", "/home/somebody") == "somebody"
    assert daemon.exec(name, "dpkg", "--audit").stdout == ""
    assert daemon.exec(name, "dpkg", "--verify", "base-files", "coreutils").stdout == ""


def test_reboot_and_poweroff_inside(daemon: Daemon, launch: Launch, debian13: str) -> None:
    name = launch(debian13)
    assert boot(daemon, name) == "running"
    first, address = daemon.init_pid(name), daemon.address(name)
    daemon.exec(name, "sh", "-c", "echo kept >/root/file; systemctl reboot", check=False)
    wait_until(lambda: daemon.init_pid(name) not in (0, first), 30, "another init")
    assert boot(daemon, name) == "running"
    assert daemon.out(name, "cat", "/root/file") == "kept"
    assert daemon.address(name) == address
    daemon.exec(name, "systemctl", "poweroff", check=False)
    daemon.wait_status(name, "Stopped", 30)


def test_survives_the_daemon(daemon: Daemon, launch: Launch, debian13: str) -> None:
    name = launch(debian13)
    assert boot(daemon, name) == "running"
    pid = daemon.init_pid(name)
    daemon.restart()
    assert daemon.init_pid(name) == pid and boot(daemon, name) == "running"
    change(daemon, name, "restart", force=False, timeout=30)
    assert boot(daemon, name) == "running"


def test_limits_are_seen_by_the_distribution(daemon: Daemon, launch: Launch, debian13: str) -> None:
    name = launch(debian13, config={"limits.memory": "256MiB", "limits.cpu": "1"})
    assert boot(daemon, name) == "running"
    assert daemon.out(name, "nproc") == "1"
    assert daemon.out(name, "sh", "-c", "free -m | awk '/^Mem/ { print $2 }'") == "256"
