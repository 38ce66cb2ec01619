"""Processes: each case in an interpreter of its own, as only a single-threaded one may fork so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lxpy.kernel import processes

SETUP = "import os, signal, sys, time\nfrom lxpy.kernel import processes\n"


def run(code: str) -> str:
    """Run `code` in a fresh interpreter; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", SETUP + code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        timeout=20,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout.strip()


def test_a_child_is_collected_by_its_pidfd() -> None:
    code = """
pid, pidfd = processes.fork()
if pid == 0:
    time.sleep(0.1)
    os._exit(7)
print(processes.reap(pidfd))
time.sleep(0.5)
print(os.WEXITSTATUS(processes.reap(pidfd)))
"""
    assert run(code).split() == ["None", "7"]


def test_signals_go_by_pidfd() -> None:
    code = """
pid, pidfd = processes.fork()
if pid == 0:
    time.sleep(10)
    os._exit(1)
processes.send_signal(pidfd, 9)
os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
status = processes.reap(pidfd)
print(os.WIFSIGNALED(status), os.WTERMSIG(status))
"""
    assert run(code) == "True 9"


def test_a_forked_child_knows_its_own_id() -> None:
    code = """
import threading
pid, pidfd = processes.fork()
if pid == 0:
    os._exit(0 if os.getpid() == threading.get_native_id() else 1)
print(os.waitpid(pid, 0)[1])
"""
    assert run(code) == "0"


def test_descriptors_are_put_in_order_whatever_they_were() -> None:
    code = """
made = [os.open(f"/proc/self/{n}", os.O_RDONLY) for n in ("stat", "status", "maps", "comm")]
high = os.dup2(made[1], 40)
kept = processes.keep_only([made[3], made[0], high])
print(kept, [os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2] for fd in kept])
print([fd for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}")][-1] <= 6)
"""
    assert run(code) == "[3, 4, 5] ['comm', 'stat', 'status']\nTrue"


def test_signals_are_as_a_shell_would_have_them() -> None:
    code = """
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
processes.reset_signals()
status = open("/proc/self/status").read()
print([line.split()[1].strip("0") for line in status.splitlines()
       if line.startswith(("SigBlk", "SigIgn", "SigCgt"))])
"""
    assert run(code) == "['', '', '']"


def test_start_times() -> None:
    own = processes.start_time(os.getpid())
    assert own == processes.start_time(os.getpid()) > 0
    with pytest.raises(FileNotFoundError):
        processes.start_time(2**22 + 1)


def test_signals_have_names() -> None:
    assert processes.signal_name(9) == "SIGKILL"
    assert processes.signal_name(63) == "signal 63"
