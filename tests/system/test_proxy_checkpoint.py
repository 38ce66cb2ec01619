"""Proxies of instances whose memory is saved: made again, and what they keep from being saved."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lxpy.services.memory.criu import PREFIX
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch
from tests.support.processes import wait_until
from tests.system.test_proxy import add, ask, forwarders, free_port, proxy, server

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not os.path.exists(f"{PREFIX}/bin/criu"), reason="needs CRIU (packaging/criu.sh)"
    ),
]


def test_proxies_come_back(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    path = f"{tmp_path}/host.sock"
    port = free_port()
    name = launch()
    devices = {
        "in": proxy(f"tcp:127.0.0.1:{port}", "tcp:127.0.0.1:7")["px"],
        "out": proxy("unix:/tmp/out.sock", f"unix:{path}", bind="instance")["px"],
    }
    add(daemon, name, devices)
    serve = "nc -ll -p 7 -e cat >/dev/null 2>&1 </dev/null &"
    daemon.exec(name, "sh", "-c", serve)
    with server(socket.socket(socket.AF_UNIX), path):
        for _ in range(2):
            assert ask(("127.0.0.1", port), b"echo") == b"echo"
            pid = daemon.init_pid(name)
            assert ask(f"/proc/{pid}/root/tmp/out.sock") == b"HELLO"
            daemon.lxpy("stop", name, "--stateful")
            assert not forwarders(daemon, name)
            daemon.lxpy("start", name)
        assert ask(("127.0.0.1", port), b"echo") == b"echo"


def test_an_open_connection(daemon: Daemon, launch: Launch) -> None:
    """It goes on while a snapshot with memory is made, and ends with the instance."""
    port = free_port()
    name = launch()
    add(daemon, name, proxy(f"tcp:127.0.0.1:{port}", "tcp:127.0.0.1:7"))
    daemon.exec(name, "sh", "-c", "nc -ll -p 7 -e cat >/dev/null 2>&1 </dev/null &")
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(b"one")
        assert client.recv(3) == b"one"
        daemon.lxpy("snapshot", name, "s0", "--stateful")
        client.sendall(b"two")
        assert client.recv(3) == b"two"
        daemon.lxpy("stop", name, "--stateful")
        assert client.recv(3) == b""
    daemon.lxpy("start", name)
    assert ask(("127.0.0.1", port), b"echo") == b"echo"
    daemon.lxpy("restore", name, "s0", "--stateful")
    assert ask(("127.0.0.1", port), b"echo") == b"echo"


_CONNECT = """
use Socket;
socket(S, PF_UNIX, SOCK_STREAM, 0) or die; connect(S, pack_sockaddr_un("\\0out")) or die "no: $!";
sleep 600;
"""


def test_a_connection_that_is_in_the_way(
    daemon: Daemon, launch: Launch, debian13: str, tmp_path: Path
) -> None:
    """One over a unix socket cannot be saved: that is told before."""
    name = launch(debian13)
    path = tmp_path / "host.sock"
    with server(socket.socket(socket.AF_UNIX), str(path)):
        add(daemon, name, proxy("unix:@out", f"unix:{path}", bind="instance"))
        daemon.exec(name, "sh", "-c", 'perl -e "$1" >/dev/null 2>&1 </dev/null &', "-", _CONNECT)
        wait_until(lambda: "through a proxy" in _reasons(daemon, name), 20, "it is told")
        daemon.lxpy("config", "device", "remove", name, "px")
        wait_until(lambda: "through a proxy" not in _reasons(daemon, name), 20, "it is gone")


def _reasons(daemon: Daemon, name: str) -> str:
    found = daemon.api.get(f"/1.0/instances/{name}/checkpoint")["blockers"]
    return " ".join(each["reason"] for each in found)
