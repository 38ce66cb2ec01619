"""The guests of the matrix: what they boot, and how to tell that they are well."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.images import distributions
from tests.support import execution, processes
from tests.support.daemon import CGROUPS, Daemon

_SPINS, _LOOK_S = 0.7, 2.0
#: control files of limits, in whichever hierarchy they are
_LIMITS = (
    "memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "cpu.shares",
    "pids.max", "cpuset.cpus",
)  # fmt: skip


@dataclass(frozen=True)
class Guest:
    """One image: its name for people, its alias, and the kind of its init."""

    title: str
    alias: str
    init: str

    @property
    def asks(self) -> bool:
        """Whether there is a login prompt on its console."""
        return self.init != "busybox"

    def provide(self, daemon: Daemon) -> str:
        """Have the image; its alias. Raises AssertionError when it cannot be built."""
        return distributions.provide(daemon, self.alias)

    def boot(self, daemon: Daemon, name: str) -> None:
        """Wait for the end of its boot."""
        daemon.address(name, timeout_s=60)
        if self.init == "systemd":
            end = time.monotonic() + 90
            while not self.state(daemon, name, "--wait") and time.monotonic() < end:
                time.sleep(0.2)
        elif self.init == "openrc":
            processes.wait_until(
                lambda: "started" in self.state(daemon, name), 60, "OpenRC has booted"
            )

    def state(self, daemon: Daemon, name: str, *more: str) -> str:
        """What its init says of itself; "" where it says nothing."""
        if self.init == "systemd":
            command = ("systemctl", "is-system-running", *more)
        elif self.init == "openrc":
            command = ("rc-service", "crond", "status")
        else:
            return ""
        return daemon.exec(name, *command, check=False).stdout.strip()

    def serves(self, daemon: Daemon, name: str) -> None:
        """Check that its init starts what is new."""
        if self.init == "systemd":
            daemon.exec(name, "systemd-run", "--wait", "--quiet", "true")
            daemon.exec(name, "systemctl", "restart", "systemd-journald")
        elif self.init == "openrc":
            daemon.exec(name, "rc-service", "crond", "restart")


GUESTS = (
    Guest("busybox", "tiny", "busybox"),
    Guest("Alpine 3.23", "alpine/3.23", "openrc"),
    Guest("Debian 11", "debian/11", "systemd"),
    Guest("Debian 12", "debian/12", "systemd"),
    Guest("Debian 13", "debian/13", "systemd"),
    Guest("Debian sid", "debian/sid", "systemd"),
)


@dataclass(frozen=True)
class Facts:
    """What is the same after a restore as before."""

    state: str
    addresses: frozenset[str]
    limits: dict[str, str]

    @classmethod
    def of(cls, guest: Guest, daemon: Daemon, name: str) -> Facts:
        return cls(guest.state(daemon, name), addresses(daemon, name), limits(daemon, name))


def addresses(daemon: Daemon, name: str) -> frozenset[str]:
    """Global addresses of version 4 on every card."""
    return frozenset(
        f"{card} {address['address']}"
        for card, found in (daemon.state(name)["network"] or {}).items()
        for address in found["addresses"]
        if address["scope"] == "global" and address["family"] == "inet"
    )


def limits(daemon: Daemon, name: str) -> dict[str, str]:
    """The limits that its control groups have."""
    roots = [CGROUPS, *(each for each in CGROUPS.iterdir() if each.is_dir())]
    return {
        str(path): path.read_text().strip()
        for root in roots
        for limit in _LIMITS
        if (path := root / daemon.cgroup / name / limit).exists()
    }


def network_works(daemon: Daemon, name: str, peer: str) -> None:
    """Check gateway and name service."""
    line = daemon.out(name, "ip", "-4", "route", "show", "default")
    daemon.exec(name, "ping", "-c", "1", "-W", "5", line.split()[2])
    look_up = f"command -v getent >/dev/null && getent hosts {peer} || ping -c 1 -W 5 {peer}"
    daemon.exec(name, "sh", "-c", look_up)


def console_works(daemon: Daemon, name: str, *, asks: bool) -> None:
    """Check that what is written to the console comes out of it; that somebody `asks` who it is."""
    with execution.console(daemon.api, name) as console:
        text = f"console-{time.monotonic_ns()}"
        daemon.exec(name, "sh", "-c", f"echo {text} >/dev/console")
        console.read_until(text)
        if asks:
            console.type("\r")
            console.read_until("login:", 30)


def nothing_spins(daemon: Daemon, name: str) -> None:
    """Check that no process of it uses a whole processor."""
    group = f"{daemon.cgroup}/{name}"
    before = {pid: _used_s(pid) for pid in processes.in_cgroup(group)}
    time.sleep(_LOOK_S)
    for pid, used_s in before.items():
        share = (_used_s(pid) - used_s) / _LOOK_S
        assert share < _SPINS, f"{processes.command_line(pid)} spins"


def _used_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100
