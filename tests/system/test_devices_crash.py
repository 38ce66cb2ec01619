"""All kinds of devices at once, while daemon and supervisor are killed: the kernel has the same."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import leaks
from tests.support.daemon import CGROUPS, Daemon
from tests.support.fixtures import change, create, import_image
from tests.support.processes import wait_until
from tests.system.test_proxy import free_port, proxy, tables

pytestmark = pytest.mark.timeout(240)


def _shown(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _devices(daemon: Daemon, work: Path) -> dict[str, Any]:
    network = daemon.api.get("/1.0/profiles/default")["devices"]["eth0"]["network"]
    own = daemon.api.get(f"/1.0/networks/{network}")["config"]["ipv4.address"].split("/")[0]
    nat = proxy(f"tcp:{own}:4712", "tcp:0.0.0.0:80", nat="true")["px"]
    through = proxy(f"tcp:127.0.0.1:{free_port()}", "tcp:127.0.0.1:80")["px"]
    return {
        "eth0": {
            "type": "nic", "network": network, "name": "eth0",
            "ipv4.address": own.rpartition(".")[0] + ".201", "ipv4.routes": "198.18.77.0/28",
            "limits.ingress": "7Mbit", "limits.egress": "3Mbit",
            "security.mac_filtering": "true", "security.ipv4_filtering": "true",
            "security.port_isolation": "true",
        },
        "p2p": {"type": "nic", "nictype": "p2p", "name": "p2p", "ipv4.routes": "198.18.78.0/28"},
        "nat": nat,
        "through": through,
        "dir": {"type": "disk", "source": str(work), "path": "/mnt/dir", "limits.max": "900iops"},
        "root": {"type": "disk", "path": "/", "pool": "default", "limits.read": "9MB"},
        "node": {"type": "unix-char", "source": "/dev/zero", "path": "/dev/mine", "mode": "0640"},
    }  # fmt: skip


def _kernel(daemon: Daemon, name: str) -> dict[str, object]:
    """What the kernel has for an instance's devices, and what it sees of them."""
    state = daemon.state(name)["network"]
    hosts = {nic: state[nic]["host_name"] for nic in ("eth0", "p2p")}
    names = (daemon.cgroup, *daemon.bridges, *hosts.values())
    all_tables = _shown("nft", "list", "tables").splitlines()
    own = [table for table in all_tables if any(word in table for word in names)]
    throttles = [
        path.read_text()
        for base in (CGROUPS, *CGROUPS.iterdir())
        for path in sorted((base / daemon.cgroup / name).glob("*io*"))
        if path.name.endswith(("io.max", "_device")) and path.is_file()
    ]
    mounts = Path(f"/proc/{daemon.init_pid(name)}/mounts").read_text().splitlines()
    return {
        "nics": hosts,
        "tc": [_shown("tc", "-oneline", "qdisc", "show", "dev", host) for host in hosts.values()],
        "ports": _shown("bridge", "-d", "link", "show", "dev", hosts["eth0"]),
        "routes": [  # a bridge whose only port comes up is "linkdown" for a moment
            line.removesuffix(" linkdown ").strip()
            for line in _shown("ip", "route").splitlines()
            if "198.18.7" in line
        ],
        "rules": sorted(_shown("nft", "list", *table.split()) for table in own),
        "nat": tables(name),
        "limits": throttles,
        "mounts": [line for line in mounts if " /mnt/" in line],
        "nodes": daemon.out(name, "stat", "-c", "%n %a %t:%T", "/dev/mine"),
    }


def _others(before: dict[str, object], now: dict[str, object]) -> dict[str, object]:
    """What is not as before."""
    return {key: (before[key], now[key]) for key in before if before[key] != now[key]}


def _wait_as_before(daemon: Daemon, name: str, before: dict[str, object]) -> None:
    other: dict[str, object] = {}

    def is_as_before() -> bool:
        other.clear()
        other.update(_others(before, _kernel(daemon, name)))
        return not other

    try:
        wait_until(is_as_before, 20)
    except AssertionError as error:
        raise AssertionError(f"not as before: {other}") from error


def _kill_all(daemon: Daemon) -> None:
    os.kill(daemon.supervisor, signal.SIGKILL)
    daemon.kill()


def test_all_devices_are_as_before(
    own_daemon: Daemon, busybox_image: Path, work_directory: Path
) -> None:
    """Then each of them can be taken away, and nothing is left."""
    daemon, work = own_daemon, work_directory / "crash-disk"
    work.mkdir()
    import_image(daemon, busybox_image, "tiny")
    create(daemon, "tiny", "first")
    change(daemon, "first", "start")  # brings up the bridge
    daemon.delete("first")
    before = leaks.take(daemon)
    devices = _devices(daemon, work)
    name = create(daemon, "tiny", devices=devices)
    change(daemon, name, "start")
    assert daemon.address(name) == devices["eth0"]["ipv4.address"]
    found = _kernel(daemon, name)
    assert found["routes"] and found["nat"] and found["limits"] and found["mounts"], found
    ends: tuple[Callable[[], None], ...] = (daemon.stop, daemon.kill, lambda: _kill_all(daemon))
    for end in ends:
        end()
        daemon.start()
        wait_until(lambda: len(daemon.supervisors) == 1, 20, "a supervisor")
        _wait_as_before(daemon, name, found)
    path = f"/1.0/instances/{name}"
    fewer = {**devices["eth0"], "limits.ingress": "", "ipv4.routes": "", "limits.egress": ""}
    daemon.api.patch(path, {"devices": {"eth0": fewer}})
    assert "tbf" not in str(_kernel(daemon, name)["tc"])
    whole = daemon.api.get(path)
    daemon.api.put(path, {**whole, "devices": {}})
    assert daemon.out(name, "ls", "/sys/class/net").split() == ["eth0", "lo"]
    assert not tables(name)
    daemon.delete(name)
    leaks.check(daemon, before, 10)
    work.rmdir()
