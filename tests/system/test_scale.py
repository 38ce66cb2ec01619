"""Many instances at once: all come up, the cost of each stays the same, nothing is left."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change, create

MANY = int(os.environ.get("LXPY_TESTS_MANY", "200"))


@pytest.fixture
def room() -> None:
    """Let the kernel carry them: each uses some of these."""
    for name in ("fs/inotify/max_user_instances", "kernel/keys/maxkeys", "kernel/pid_max"):
        path = Path("/proc/sys") / name
        if int(path.read_text()) < 20000:
            path.write_text("65536\n")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_many_instances(daemon: Daemon, tiny: str, room: None) -> None:
    names = [f"many{number}" for number in range(MANY)]
    ends: list[float] = []

    def launch(name: str) -> None:
        create(daemon, tiny, name)
        change(daemon, name, "start")
        ends.append(time.monotonic())

    def delete(name: str) -> None:
        change(daemon, name, "stop")
        daemon.api.delete(f"/1.0/instances/{name}")

    idle = processes.rss_bytes(daemon.supervisor)
    begin = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(launch, names))
    state = daemon.api.get("/1.0/instances?recursion=1")
    assert sum(one["status"] == "Running" for one in state) == MANY
    quarter = MANY // 4
    first, last = ends[quarter - 1] - begin, ends[-1] - ends[-quarter - 1]
    assert last < first * 3, f"first quarter {first:.1f} s, last quarter {last:.1f} s"
    assert processes.rss_bytes(daemon.supervisor) - idle < 8 * 1024**2
    assert daemon.out(names[-1], "hostname") == names[-1]
    bases = {Path(f"/proc/{daemon.init_pid(n)}/uid_map").read_text() for n in names[:20]}
    assert len(bases) == 20
    text = daemon.api.raw("GET", "/1.0/metrics")[2].decode()
    assert text.count("lxd_procs_total{") == MANY
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(delete, names))
    assert not set(daemon.instances()) & set(names)


def test_start_and_stop_again_and_again(daemon: Daemon, launch: Launch) -> None:
    """Neither descriptors nor memory pile up in daemon and supervisor."""
    name = launch(start=False)

    def cycle(times: int) -> tuple[int, int]:
        for _ in range(times):
            change(daemon, name, "start")
            assert daemon.out(name, "echo", "x") == "x"
            change(daemon, name, "stop")
        held = [len(processes.descriptors(pid)) for pid in (daemon.pid, daemon.supervisor)]
        return held[0], held[1]

    before = cycle(3)
    after = cycle(15)
    assert all(b - a <= 2 for a, b in zip(before, after, strict=True)), (before, after)
