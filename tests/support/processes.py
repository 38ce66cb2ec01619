"""What /proc tells about processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

#: how much longer than usual this machine may take
PATIENCE = float(os.environ.get("LXPY_TESTS_PATIENCE", "1"))


def wait_until(
    true: Callable[[], object], timeout_s: float = 10, what: str = "", interval_s: float = 0.02
) -> None:
    """Poll until `true()` is; fail with `what` otherwise."""
    timeout_s *= PATIENCE
    end = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {what or true}")
        time.sleep(interval_s)


def _read(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_text(errors="replace")
    except OSError:
        return ""


def pids() -> Iterator[int]:
    """Every process now."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            yield int(entry)


def command_line(pid: int) -> str:
    """The arguments, joined by spaces; empty for a zombie or a kernel thread."""
    return _read(pid, "cmdline").replace("\0", " ").strip()


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    status = _read(pid, "stat")
    return bool(status) and status.rpartition(")")[2].split()[0] not in ("Z", "X")


def parent(pid: int) -> int:
    """The parent's pid, 0 when there is none."""
    status = _read(pid, "stat")
    return int(status.rpartition(")")[2].split()[1]) if status else 0


def matching(text: str) -> dict[int, str]:
    """Processes whose command line contains `text`, other than this one and its parents."""
    mine, found = {os.getpid(), os.getppid()}, {}
    for pid in pids():
        line = command_line(pid)
        if text in line and pid not in mine:
            found[pid] = line
    return found


def in_cgroup(group: str) -> dict[int, str]:
    """Processes in the control group `group`, in any hierarchy, or below it."""
    found = {}
    for pid in pids():
        paths = [line.split(":", 2)[2] for line in _read(pid, "cgroup").splitlines()]
        if any(path == f"/{group}" or path.startswith(f"/{group}/") for path in paths):
            found[pid] = command_line(pid)
    return found


def descriptors(pid: int) -> list[str]:
    """What a process holds open."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except OSError:
            continue
    return sorted(found)


def rss_bytes(pid: int) -> int:
    """Resident memory."""
    return int(_read(pid, "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def end(pid: int, signum: int = signal.SIGTERM, timeout_s: float = 30) -> None:
    """Send a signal and wait until the process is gone (or a zombie of somebody else)."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return
    wait_until(lambda: not alive(pid), timeout_s, f"end of {pid} ({command_line(pid)})")
