"""Disks and devices of instances whose memory was saved, and those that come and go after it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from lxpy.services.memory.criu import PREFIX
from tests.support.daemon import Daemon, nft_tables
from tests.support.fixtures import Launch, change
from tests.support.wires import Wire

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not os.path.exists(f"{PREFIX}/bin/criu"), reason="needs CRIU (packaging/criu.sh)"
    ),
]
_VOLUMES = "/1.0/storage-pools/default/volumes/custom"
_NODE = {"type": "disk", "pool": "default", "source": "cb", "path": "/dev/cb"}


@pytest.fixture
def block(daemon: Daemon) -> Iterator[None]:
    """A custom volume that is a device."""
    body = {"name": "cb", "type": "custom", "content_type": "block", "config": {"size": "16MiB"}}
    daemon.api.post(_VOLUMES, body)
    yield
    for name in daemon.instances():
        daemon.delete(name)
    daemon.api.delete(f"{_VOLUMES}/cb")


def _again(daemon: Daemon, name: str) -> None:
    daemon.lxpy("stop", name, "--stateful")
    daemon.lxpy("start", name)


def _is_read(daemon: Daemon, name: str) -> bool:
    return daemon.exec(name, "head", "-c", "512", "/dev/cb", check=False).returncode == 0


def test_a_device_comes_back(daemon: Daemon, launch: Launch, block: None) -> None:
    name = launch(devices={"cb": _NODE})
    for _ in range(3):
        _again(daemon, name)
        assert _is_read(daemon, name)
    daemon.lxpy("config", "device", "remove", name, "cb")
    assert daemon.exec(name, "ls", "/dev/cb", check=False).returncode != 0


def test_a_device_comes_after_a_restore(daemon: Daemon, launch: Launch, block: None) -> None:
    name = launch()
    _again(daemon, name)
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"cb": _NODE}})
    assert _is_read(daemon, name)
    _again(daemon, name)
    assert _is_read(daemon, name)
    daemon.lxpy("config", "device", "remove", name, "cb")
    assert daemon.exec(name, "ls", "/dev/cb", check=False).returncode != 0


def test_disk_and_nic_come_after_a_restore(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    _again(daemon, name)
    devices = {
        "d": {"type": "disk", "source": "/etc", "path": "/mnt/d"},
        "eth1": {"type": "nic", "nictype": "p2p", "name": "eth1"},
    }
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": devices})
    for _ in range(2):
        daemon.exec(name, "ls", "/mnt/d/hostname", "/sys/class/net/eth1")
        _again(daemon, name)
    daemon.lxpy("config", "device", "remove", name, "eth1")
    daemon.lxpy("config", "device", "remove", name, "d")
    assert daemon.exec(name, "ls", "/mnt/d/hostname", check=False).returncode != 0
    assert daemon.exec(name, "ls", "/sys/class/net/eth1", check=False).returncode != 0


def test_a_disk_over_a_link(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    daemon.lxpy("config", "device", "add", name, "d", "disk", "source=/etc", "path=/link/d")
    change(daemon, name, "start")
    daemon.exec(name, "sh", "-c", "umount /link/d; rmdir /link/d /link; ln -s /mnt /link")
    change(daemon, name, "restart", force=True)
    _again(daemon, name)
    daemon.exec(name, "ls", "/mnt/d/hostname")


def test_a_disk_that_is_gone_is_told(daemon: Daemon, launch: Launch) -> None:
    disk = {"type": "disk", "source": "/etc", "path": "/mnt/d"}
    name = launch(devices={"d": disk})
    daemon.lxpy("stop", name, "--stateful")
    daemon.lxpy("config", "device", "remove", name, "d")
    done = daemon.lxpy("start", name, check=False)
    assert done.returncode != 0 and "needs what it had at /mnt/d" in done.stderr, done.stderr
    daemon.lxpy("config", "device", "add", name, "d", "disk", "source=/etc", "path=/mnt/d")
    daemon.lxpy("start", name)
    daemon.exec(name, "ls", "/mnt/d/hostname")


# -- nics


def test_nics_that_come_back(daemon: Daemon, launch: Launch) -> None:
    """Pairs that are on no bridge: routes, limits and addresses are as they were."""
    nics = {
        "eth1": {"type": "nic", "nictype": "routed", "name": "eth1",
                 "ipv4.address": "198.18.50.7", "limits.max": "50Mbit"},
        "eth2": {"type": "nic", "nictype": "p2p", "name": "eth2", "host_name": "ltck0",
                 "ipv4.routes": "198.18.51.0/24"},
    }  # fmt: skip
    name = launch(devices=nics)
    daemon.out(name, "ip", "addr", "add", "198.18.51.2/24", "dev", "eth2")
    for _ in range(2):
        _again(daemon, name)
        for address in ("198.18.50.7", "198.18.51.2"):
            words = ["busybox", "ping", "-c", "1", "-W", "2", address]
            assert subprocess.run(words, capture_output=True).returncode == 0, address
    host = daemon.state(name)["network"]["eth1"]["host_name"]
    shown = subprocess.run(["tc", "qdisc", "show", "dev", host], capture_output=True, text=True)
    assert "rate 50Mbit" in shown.stdout
    daemon.delete(name)
    assert not [each for each in nft_tables() if each.startswith("netdev")]


def test_nics_that_cannot_be_saved(daemon: Daemon, launch: Launch) -> None:
    wire = Wire()
    try:
        for kind in ("macvlan", "physical"):
            nic = {"type": "nic", "nictype": kind, "parent": wire.near, "name": "eth1"}
            name = launch(devices={"eth1": nic})
            told = daemon.lxpy("checkpoint", "--check", name, check=False)
            assert told.returncode == 1
            assert f'nic "eth1" is of type {kind}' in told.stdout + told.stderr
            done = daemon.lxpy("stop", name, "--stateful", check=False)
            assert done.returncode and f"is of type {kind}" in done.stderr
            assert daemon.status(name) == "Running"
            daemon.delete(name)
    finally:
        wire.remove()
