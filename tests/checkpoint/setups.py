"""The set-ups of the matrix: what an instance is given, what is going on in it, what is checked."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checkpoint.guests import Guest
from tests.support import processes
from tests.support.daemon import Daemon
from tests.support.terminal import Terminal

_NETWORK = "the second network"
_VOLUME, _BLOCK = "matrix-files", "matrix-block"
_SIZE = "16MiB"
_SYS_RESOURCE = 1 << 24


def _nothing(daemon: Daemon, name: str) -> None:
    """Neither prepare nor check anything."""


@contextmanager
def _alone(daemon: Daemon, name: str) -> Iterator[None]:
    yield


@dataclass(frozen=True)
class Setup:
    """One set-up."""

    title: str
    config: dict[str, str] = field(default_factory=dict)
    #: devices, given the daemon (for its bridge and its directory)
    devices: Callable[[Daemon], dict[str, dict[str, str]]] = lambda _: {}
    #: what has to be there before, and what goes on while its memory is saved
    prepare: Callable[[Daemon, str], None] = _nothing
    during: Any = _alone
    check: Callable[[Daemon, str], None] = _nothing
    #: why it cannot be saved, as `lxpy checkpoint --check` says; "" when it can
    refused: Callable[[Guest], str] = lambda _: ""
    suits: Callable[[Guest], bool] = lambda _: True


@contextmanager
def _commands(daemon: Daemon, name: str) -> Iterator[None]:
    """A shell on a terminal and a command in the background, both of `lxpy exec`."""
    lxpy = daemon.commands / "lxpy"
    shell = [lxpy, "exec", name, "--", "sh"]
    with Terminal(shell, daemon.environment) as terminal:
        terminal.type("echo here-$((40 + 2))\n")
        terminal.read_until("here-42")
        background = subprocess.Popen(
            [lxpy, "exec", name, "--", "sleep", "3600"],
            env=daemon.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            processes.wait_until(
                lambda: "sleep 3600" in processes.in_cgroup(f"{daemon.cgroup}/{name}").values()
            )
            yield
        finally:
            background.kill()
            background.wait()


def _second_nic(daemon: Daemon) -> dict[str, dict[str, str]]:
    """One on the second network: a name is in each network's DNS once."""
    networks = daemon.api.get("/1.0/networks?recursion=1")
    network = next(each["name"] for each in networks if each["description"] == _NETWORK)
    return {"eth1": {"type": "nic", "network": network}}


def _use_second_nic(daemon: Daemon, name: str) -> None:
    daemon.exec(name, "sh", "-c", "ip link set eth1 up; ip address add 198.51.100.9/24 dev eth1")


def _second_nic_works(daemon: Daemon, name: str) -> None:
    """Check the link; its address is among the facts, and a twin has none yet."""
    assert daemon.out(name, "cat", "/sys/class/net/eth1/operstate") == "up"


def provide(daemon: Daemon) -> None:
    """Make a network, and what disks show: volumes of both kinds, a directory of the host."""
    network = {
        "name": daemon.bridge_name(),
        "description": _NETWORK,
        "config": {"ipv4.address": "none", "ipv6.address": "none"},
    }
    daemon.api.post("/1.0/networks", network)
    shared = {"security.shared": "true"}  # a twin has it, too
    for name, kind, config in ((_VOLUME, "filesystem", {}), (_BLOCK, "block", shared)):
        daemon.api.post(
            "/1.0/storage-pools/default/volumes/custom",
            {"name": name, "content_type": kind, "config": {"size": _SIZE, **config}},
        )
    _shown(daemon).mkdir()
    (_shown(daemon) / "file").write_text("the host's\n")


def _shown(daemon: Daemon) -> Path:
    return daemon.directory.with_name("shown")


def _disks(daemon: Daemon) -> dict[str, dict[str, str]]:
    volume = {"type": "disk", "pool": "default"}
    return {
        "files": {**volume, "source": _VOLUME, "path": "/mnt/files"},
        "block": {**volume, "source": _BLOCK, "path": "/dev/matrix"},
        "shown": {
            "type": "disk",
            "source": str(_shown(daemon)),
            "path": "/mnt/shown",
            "readonly": "true",
        },
    }


def _use_disks(daemon: Daemon, name: str) -> None:
    write = (
        "echo kept >/mnt/files/kept; echo block >/dev/matrix; exec 3</mnt/files/kept; sleep 3600"
    )
    daemon.exec(name, "sh", "-c", f"setsid sh -c '{write}' </dev/null >/dev/null 2>&1 &")
    processes.wait_until(lambda: _sleeps(daemon, name), 30)


def _sleeps(daemon: Daemon, name: str) -> bool:
    return "sleep 3600" in processes.in_cgroup(f"{daemon.cgroup}/{name}").values()


def _disks_work(daemon: Daemon, name: str) -> None:
    look = (
        "cat /mnt/files/kept; head -c 5 /dev/matrix; echo; cat /mnt/shown/file; "
        "echo more >/mnt/files/more && rm /mnt/files/more; [ -b /dev/matrix ] && echo device; "
        "touch /mnt/shown/x 2>/dev/null || echo refused"
    )
    said = daemon.out(name, "sh", "-c", look).splitlines()
    assert said == ["kept", "block", "the host's", "device", "refused"], said


def _nested(daemon: Daemon, name: str) -> None:
    command = "unshare -Ur sleep 3600 </dev/null >/dev/null 2>&1 &"
    daemon.exec(name, "sh", "-c", command)
    processes.wait_until(lambda: _sleeps(daemon, name), 30)


def _privileged(guest: Guest) -> str:
    """Say what is in the way of guests that have the ids of the host."""
    if guest.init == "systemd":
        return "holds a BPF program or map"  # it restricts devices by them
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    if guest.init == "openrc" and not capabilities & _SYS_RESOURCE:
        return "has limits that lxpyd may not read, which lacks CAP_SYS_RESOURCE"
    return ""


def _log_in(daemon: Daemon, name: str) -> None:
    """Have a session as a login makes it, which brings a `systemd --user`."""
    daemon.exec(name, "useradd", "--create-home", "--uid", "1000", "somebody")
    login = ("systemd-run", "--unit=login", "--uid=somebody", "--property=PAMName=login")
    daemon.exec(name, *login, "sleep", "3600")
    processes.wait_until(lambda: _user_manager(daemon, name) == "active", 30, "systemd --user")


def _user_manager(daemon: Daemon, name: str) -> str:
    command = ("systemctl", "is-active", "user@1000.service")
    return daemon.exec(name, *command, check=False).stdout.strip()


def _still_logged_in(daemon: Daemon, name: str) -> None:
    assert _user_manager(daemon, name) == "active"
    assert "somebody" in daemon.out(name, "loginctl", "list-sessions", "--no-legend")
    run = "XDG_RUNTIME_DIR=/run/user/1000 systemctl --user is-system-running"
    assert daemon.out(name, "su", "somebody", "-c", run) in ("running", "degraded")


SETUPS = (
    Setup("plain"),
    Setup("commands executed", during=_commands),
    Setup(
        "limits",
        {"limits.memory": "512MiB", "limits.cpu.allowance": "150%", "limits.processes": "300"},
    ),
    Setup("two nics", devices=_second_nic, prepare=_use_second_nic, check=_second_nic_works),
    Setup("disks", devices=_disks, prepare=_use_disks, check=_disks_work),
    Setup("nesting", {"security.nesting": "true"}),
    Setup(
        "nested user namespace", {"security.nesting": "true"},
        prepare=_nested, refused=lambda _: "runs in a user namespace of its own",
    ),
    Setup("privileged", {"security.privileged": "true"}, refused=_privileged),
    Setup(
        "user logged in", prepare=_log_in, check=_still_logged_in,
        suits=lambda guest: guest.title in ("Debian 12", "Debian 13"),
    ),
)  # fmt: skip
