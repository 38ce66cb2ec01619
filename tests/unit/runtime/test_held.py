"""How an end is judged, and what PID 1 is heard to say."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lxpy.runtime.cgroups import Layout, Root
from lxpy.runtime.held import Container, judge, make_notify_socket


@pytest.fixture
def container() -> Container:
    return Container("c1", Root(Layout("", {}, {}), "lxpy").group("c1"))


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (1, "reboot", 0),
        (2, "poweroff", 0),
        (9, "crash", 137),
        (11 | 0x80, "crash", 139),
        (0, "exit", 0),
        (3 << 8, "exit", 3),
        (None, "exit", 0),
    ],
)
def test_ends(container: Container, status: int | None, reason: str, code: int) -> None:
    assert judge(container, status)[:2] == (reason, code)


@pytest.mark.parametrize(
    ("said", "reason"), [("reboot", "reboot"), ("kexec", "reboot"), ("poweroff", "poweroff"),
                         ("halt", "poweroff")]
)  # fmt: skip
def test_ends_that_only_init_has_told(container: Container, said: str, reason: str) -> None:
    container.shutdown = said
    assert judge(container, None)[:2] == (reason, 0)


def test_being_killed_is_no_crash(container: Container) -> None:
    container.killed = True
    assert judge(container, 9) == ("exit", 137, "killed on request")


def test_a_crash_names_its_signal(container: Container) -> None:
    assert "SIGSEGV" in judge(container, 11)[2]


@pytest.fixture
def said(container: Container, tmp_path: Path) -> socket.socket:
    """Where this process talks to `container` as its init."""
    container.pid = os.getpid()
    container.notify = make_notify_socket()
    container.notify.bind(str(tmp_path / "notify"))
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect(str(tmp_path / "notify"))
    return sender


def test_init_becomes_ready_once(container: Container, said: socket.socket) -> None:
    with said:
        said.send(b"STATUS=Starting\nMAINPID=1")
        assert not container.hear()
        said.send(b"READY=1\nSTATUS=Up")
        assert container.hear()
        said.send(b"READY=1")
        assert not container.hear()
    container.close()


def test_init_says_how_it_ends(container: Container, said: socket.socket) -> None:
    with said:
        said.send(b"STOPPING=1\nX_SYSTEMD_SHUTDOWN=reboot")
        container.hear()
    assert container.shutdown == "reboot"
    container.close()


def test_only_init_is_believed(container: Container, said: socket.socket) -> None:
    container.pid = 1
    with said:
        said.send(b"READY=1")
        assert not container.hear()
    container.close()


def test_descriptors_that_are_sent_along_are_dropped(
    container: Container, said: socket.socket
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with said:
        socket.send_fds(said, [b"READY=1"], [0, 1, 2])
        container.hear()
        assert len(os.listdir("/proc/self/fd")) == before
    container.close()


def test_the_journal_brings_everything_back(container: Container) -> None:
    container.pid, container.seccomp, container.ready = 42, "2\ndenylist\nread errno 5", True
    container.devices = [("c", 10, 232)]
    other = Container("c1", container.group)
    other.restore(container.entry())
    assert other.entry() == container.entry()
    assert other.program
