"""kill -9 of the daemon while it works on snapshots: each is whole afterwards, or is not there.

LXPY_CRASH_POINTS says how often each kind of work is interrupted.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.daemon import Daemon
from tests.support.fixtures import change, create, import_image
from tests.system.test_crash import killed_in_the_middle
from tests.system.test_snapshots import changes, on_disk, snapshots, take

ROUNDS = int(os.environ.get("LXPY_CRASH_POINTS", "2"))
PATH = "/1.0/instances/c1"


def make(daemon: Daemon) -> None:
    take(daemon, "c1", "new")


def delete(daemon: Daemon) -> None:
    daemon.api.delete(f"{PATH}/snapshots/s2")


def rename(daemon: Daemon) -> None:
    daemon.api.post(f"{PATH}/snapshots/s2", {"name": "other"})


def restore(daemon: Daemon) -> None:
    daemon.api.put(PATH, {"restore": "s1"})


def copy(daemon: Daemon) -> None:
    daemon.api.post("/1.0/instances", {"name": "c2", "source": {"type": "copy", "source": "c1"}})


def refresh(daemon: Daemon) -> None:
    source = {"type": "copy", "source": "c1", "refresh": True}
    daemon.api.post("/1.0/instances", {"name": "mirror", "source": source})


WORK: list[Callable[[Daemon], None]] = [make, delete, rename, restore, copy, refresh]


def prepare(daemon: Daemon) -> None:
    """c1 runs, with s1 and s2; mirror is a copy from in between."""
    create(daemon, "tiny", "c1")
    change(daemon, "c1", "start")
    for number in (1, 2):
        daemon.exec("c1", "sh", "-c", f"echo {number} > /root/file; touch /root/f{number}")
        take(daemon, "c1", f"s{number}")
        if number == 1:
            refresh(daemon)
    daemon.exec("c1", "sh", "-c", "echo 3 > /root/file")


def unfinished(daemon: Daemon) -> int:
    with sqlite3.connect(f"file:{daemon.directory}/lxpy.db?mode=ro", uri=True) as db:
        return int(db.execute("select count(*) from intents").fetchone()[0])


def check(daemon: Daemon) -> None:
    """What is known is on the disk and the other way round; everything can be used."""
    for name in daemon.instances():
        assert sorted(snapshots(daemon, name)) == on_disk(daemon, name), name
    processes.wait_until(lambda: unfinished(daemon) == 0, 10, "nothing unfinished")
    assert daemon.status("c1") == "Running"
    assert daemon.out("c1", "cat", "/root/file") in ("1", "3")
    for name in snapshots(daemon, "c1"):
        changes(daemon, "c1", name, "")
    assert take(daemon, "c1", "fresh") == "fresh"
    daemon.api.put(PATH, {"restore": "s1"})
    assert daemon.out("c1", "cat", "/root/file") == "1"
    refresh(daemon)
    change(daemon, "mirror", "start")
    assert daemon.out("mirror", "cat", "/root/file") == "1"


@pytest.mark.timeout(120 + 15 * ROUNDS)
@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_killed_during(
    work: Callable[[Daemon], None], own_daemon: Daemon, busybox_image: Path
) -> None:
    daemon = own_daemon
    import_image(daemon, busybox_image, "tiny")
    prepare(daemon)
    begin = time.monotonic()
    work(daemon)
    took = time.monotonic() - begin
    chance = random.Random(work.__name__)
    for _ in range(ROUNDS):
        for name in daemon.instances():
            daemon.delete(name)
        assert not any((daemon.directory / "storage-pools/default/layers").iterdir())
        prepare(daemon)
        after_s = chance.uniform(0, took * 1.1)
        killed_in_the_middle(daemon, lambda: work(daemon), after_s)
        daemon.start()
        daemon.wait_status("c1", "Running")
        check(daemon)
