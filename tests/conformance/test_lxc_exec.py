"""LXD's client: exec, with and without a terminal, and the console."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

import pytest

from tests.conformance.conftest import Lxc


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code(lxc: Lxc, running: str, code: int) -> None:
    assert lxc.run("exec", running, "--", "sh", "-c", f"exit {code}").returncode == code


def test_command_that_is_not_there(lxc: Lxc, running: str) -> None:
    assert lxc.run("exec", running, "--", "no-such-command").returncode == 127
    assert lxc.run("exec", running, "--", "/etc/passwd").returncode == 126


def test_killed_command(lxc: Lxc, running: str) -> None:
    assert lxc.run("exec", running, "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_streams_are_apart(lxc: Lxc, running: str) -> None:
    done = lxc.run("exec", running, "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_stdin(lxc: Lxc, running: str) -> None:
    assert lxc("exec", running, "--", "cat", input="piped\n") == "piped\n"
    assert lxc("exec", running, "-n", "--", "cat", input="not read\n") == ""


def test_a_megabyte_each_way(lxc: Lxc, running: str) -> None:
    text = "0123456789abcde\n" * 65536
    assert lxc("exec", running, "--", "cat", input=text) == text


def test_environment_user_directory(lxc: Lxc, running: str) -> None:
    assert lxc("exec", running, "--env", "A=b c", "--", "sh", "-c", "echo $A") == "b c\n"
    assert lxc("exec", running, "--cwd", "/etc", "--", "pwd") == "/etc\n"
    assert lxc("exec", running, "--user", "1000", "--group", "1000", "--", "id", "-u") == "1000\n"


def test_many_at_once(lxc: Lxc, running: str) -> None:
    argv = ["lxc", "exec", running, "--", "sh", "-c", "sleep 0.2; echo done"]
    crowd = [
        subprocess.Popen(
            argv, env=lxc.environment, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        )
        for _ in range(10)
    ]
    assert [process.communicate(timeout=60)[0] for process in crowd] == ["done\n"] * 10


def read_until(descriptor: int, text: str, timeout_s: float = 15) -> str:
    """Read a terminal until `text` has come; everything that has."""
    seen, end = "", time.monotonic() + timeout_s
    while text not in seen:
        left = end - time.monotonic()
        assert left > 0, f"no {text!r} in {seen!r}"
        if select.select([descriptor], [], [], left)[0]:
            seen += os.read(descriptor, 65536).decode(errors="replace")
    return seen


def test_terminal(lxc: Lxc, running: str) -> None:
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    argv = ["lxc", "exec", running, "--", "sh"]
    shell = subprocess.Popen(
        argv, env=lxc.environment, stdin=inner, stdout=inner, stderr=inner, start_new_session=True
    )
    os.close(inner)
    try:
        read_until(outer, "#")
        os.write(outer, b"stty size; tty\n")
        seen = read_until(outer, "/dev/pts/")
        assert "33 101" in seen
        os.write(outer, b"sleep 100\n")
        time.sleep(0.5)
        os.write(outer, b"\x03")
        os.write(outer, b"echo interrupted-$?\n")
        read_until(outer, "interrupted-130")
        os.write(outer, b"exit 5\n")
        assert shell.wait(15) == 5
    finally:
        shell.kill()
        os.close(outer)
