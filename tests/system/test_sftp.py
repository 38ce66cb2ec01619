"""SFTP: OpenSSH's client and sshfs work on an instance's files."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch

#: connects standard input and output with a session
BRIDGE = """#!{python}
import os, socket, sys, threading
sock = socket.socket(socket.AF_UNIX)
sock.connect("{socket}")
sock.sendall(b"GET /1.0/instances/{name}/sftp HTTP/1.1\\r\\nHost: x\\r\\n"
             b"Connection: Upgrade\\r\\nUpgrade: sftp\\r\\n\\r\\n")
head = b""
while not head.endswith(b"\\r\\n\\r\\n"):
    head += sock.recv(1)
assert b" 101 " in head and b"Upgrade: sftp" in head, head
def up():
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := sock.recv(65536):
    os.write(1, data)
"""


class Client:
    """OpenSSH's sftp, for one instance."""

    def __init__(self, daemon: Daemon, name: str, directory: Path) -> None:
        self.bridge = directory / f"bridge-{name}"
        text = BRIDGE.format(python=sys.executable, socket=daemon.socket, name=name)
        self.bridge.write_text(text)
        self.bridge.chmod(0o755)

    def __call__(self, *lines: str) -> str:
        """Run a batch of commands, which must succeed; what it printed."""
        done = subprocess.run(
            ["sftp", "-q", "-b", "-", "-D", str(self.bridge)], input="\n".join(lines) + "\n",
            text=True, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, line: str) -> str:
        """Run a command that must fail; its complaint."""
        done = subprocess.run(
            ["sftp", "-q", "-b", "-", "-D", str(self.bridge)], input=f"{line}\n",
            text=True, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode != 0, done.stdout
        return done.stderr


@pytest.fixture(params=["running", "stopped"])
def name(request: pytest.FixtureRequest, launch: Launch) -> str:
    return launch(start=request.param == "running")


@pytest.fixture
def sftp(daemon: Daemon, name: str, tmp_path: Path) -> Client:
    if not shutil.which("sftp"):
        pytest.skip("needs sftp (openssh-client)")
    return Client(daemon, name, tmp_path)


def head(daemon: Daemon, name: str, path: str) -> dict[str, str]:
    status, headers, _ = daemon.api.raw("HEAD", f"/1.0/instances/{name}/files?path={path}")
    assert status == 200
    return headers


def test_files(sftp: Client, daemon: Daemon, name: str, tmp_path: Path) -> None:
    big, back = tmp_path / "big", tmp_path / "back"
    big.write_bytes(os.urandom(5 << 20))
    sftp(f"put {big} /root/big", f"get /root/big {back}")
    assert back.read_bytes() == big.read_bytes()
    sftp("chown 12 /root/big", "chgrp 34 /root/big", "chmod 640 /root/big")
    headers = head(daemon, name, "/root/big")
    owner = headers["x-lxd-uid"], headers["x-lxd-gid"], headers["x-lxd-mode"]
    assert owner == ("12", "34", "0640")
    sftp("rename /root/big /root/large", "ln /root/large /root/two", "rm /root/two")
    sftp("ln -s large /root/soft", "mkdir /root/d", "put /etc/hosts /root/d/hosts")
    listing = sftp("ls -la /root")
    assert "large" in listing and "soft" in listing and "drwxr-xr-x" in listing
    sftp("rm /root/d/hosts", "rmdir /root/d", "rm /root/soft", "rm /root/large", "df /root")
    assert "large" not in sftp("ls /root")


def test_refused(sftp: Client, daemon: Daemon, name: str) -> None:
    assert "no such file" in sftp.refused("rm /root/no").lower()
    assert "not found" in sftp.refused("get /root/no /dev/null").lower()
    sftp("mkdir /root/d", "put /etc/hosts /root/d/f")
    assert "failure" in sftp.refused("rmdir /root/d").lower()
    sftp("ln -s /etc/passwd /root/out", "ln -s ../../../../../../.. /root/up")
    assert "passwd" in sftp("ls /root/up/etc")
    status, _, reply = daemon.api.raw("GET", f"/1.0/instances/{name}/sftp")
    assert status == 400 and b"upgrade header" in reply
    status, _, _ = daemon.api.raw("GET", "/1.0/instances/nobody/sftp", None, {"Upgrade": "sftp"})
    assert status == 404


def test_what_is_the_kernels(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    sftp = Client(daemon, launch(), tmp_path)
    for line in (
        "put /etc/hosts /proc/sys/kernel/core_pattern", "get /proc/version /dev/null",
        "chmod 777 /proc/version", "get /dev/null /dev/null", "mkdir /sys/fs/cgroup/x",
    ):  # fmt: skip
        sftp.refused(line)


@pytest.fixture
def mounted(daemon: Daemon, name: str, tmp_path: Path) -> Iterator[Path]:
    """An instance's root, mounted by `lxpy file mount`."""
    if not shutil.which("sshfs"):
        pytest.skip("needs sshfs")
    place = tmp_path / "place"
    place.mkdir()
    program = subprocess.Popen(
        [daemon.commands / "lxpy", "file", "mount", f"{name}/", place], env=daemon.environment,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        processes.wait_until(lambda: os.path.ismount(place), 10, "mounted")
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
        assert program.wait(15) == 0


def test_mounted(mounted: Path) -> None:
    (mounted / "root/new").write_text("text")
    assert (mounted / "root/new").read_text() == "text"
    (mounted / "root/other").write_text("other")
    (mounted / "root/other").replace(mounted / "root/new")
    assert (mounted / "root/new").read_text() == "other"
    with (mounted / "root/new").open("r+b") as file:
        file.seek(1)
        file.write(b"X")
        file.truncate(3)
    assert (mounted / "root/new").read_text() == "oXh"
    (mounted / "root/link").symlink_to("new")
    assert os.readlink(mounted / "root/link") == "new"
    os.link(mounted / "root/new", mounted / "root/again")
    assert "etc" in os.listdir(mounted)
    assert os.statvfs(mounted).f_blocks > 0
    shutil.copytree(mounted / "etc", mounted / "root/etc")
    shutil.rmtree(mounted / "root/etc")
    with pytest.raises(FileNotFoundError):
        (mounted / "root/nothing").read_text()


def test_a_start_ends_a_session(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        sock.sendall(
            f"GET /1.0/instances/{name}/sftp HTTP/1.1\r\nHost: x\r\nUpgrade: sftp\r\n\r\n".encode()
        )
        assert b" 101 " in sock.recv(1000)
        began = time.monotonic()
        daemon.lxpy("start", name)
        assert time.monotonic() - began < 5
        sock.settimeout(5)
        assert sock.recv(10) == b""
        daemon.api.put(
            f"/1.0/instances/{name}/state", {"action": "stop", "force": True, "timeout": 10}
        )


def test_a_stop_ends_a_session(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        sock.sendall(
            f"GET /1.0/instances/{name}/sftp HTTP/1.1\r\nHost: x\r\nUpgrade: sftp\r\n\r\n".encode()
        )
        assert b" 101 " in sock.recv(1000)
        daemon.lxpy("restart", "--force", name)
        sock.settimeout(5)
        assert sock.recv(10) == b""
    assert daemon.status(name) == "Running"
