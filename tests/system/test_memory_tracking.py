"""Where the kernel tracks changes of memory: dumps that build on the last one.

The kernel needs CONFIG_MEM_SOFT_DIRTY: `make test-vm` has one.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from lxpy.services.memory.criu import PREFIX
from tests.support import processes
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.system.test_checkpoint import count, goes_on

MIB = 1 << 20
SIZE = 16 * MIB
#: holds random bytes in its memory until they are read from a fifo
HOLDER = f"mkfifo /root/held; exec 3<>/root/held; dd if=/dev/urandom bs={SIZE} count=1 >&3"


def is_tracked() -> bool:
    config = Path(f"/boot/config-{os.uname().release}")
    text = config.read_text() if config.exists() else ""
    if not text and os.path.exists("/proc/config.gz"):
        text = gzip.decompress(Path("/proc/config.gz").read_bytes()).decode()
    return "CONFIG_MEM_SOFT_DIRTY=y" in text


pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.path.exists(f"{PREFIX}/bin/criu"), reason="needs CRIU (packaging/criu.sh)"
    ),
    pytest.mark.skipif(not is_tracked(), reason="the kernel tracks no changes of memory"),
]


def hold(daemon: Daemon, name: str) -> None:
    """Have a process hold random bytes."""
    daemon.exec(name, "sh", "-c", f"setsid sh -c '{HOLDER}' </dev/null >/dev/null 2>&1 &")
    usage = f"/1.0/instances/{name}/state"
    processes.wait_until(lambda: daemon.api.get(usage)["memory"]["usage"] > SIZE, 60)


def held(daemon: Daemon, name: str) -> str:
    """The digest of the bytes, which are gone then."""
    return daemon.out(name, "sh", "-c", f"head -c {SIZE} /root/held | md5sum")


def size(daemon: Daemon, name: str, snapshot: str) -> int:
    found = daemon.api.get(f"/1.0/instances/{name}/snapshots/{snapshot}")
    return int(found["lxpy_stateful"]["size"])


def test_snapshots_hold_what_has_changed(daemon: Daemon, launch: Launch) -> None:
    """Each is whole by itself: they go in any order."""
    name = launch()
    hold(daemon, name)
    tag, _ = count(daemon, name)
    for snapshot in ("s0", "s1", "s2"):
        daemon.lxpy("snapshot", name, snapshot, "--stateful")
        goes_on(daemon, name, tag)
    assert size(daemon, name, "s0") > SIZE
    assert size(daemon, name, "s1") < SIZE / 4 > size(daemon, name, "s2")
    daemon.lxpy("restore", name, "s0")
    digest = held(daemon, name)
    daemon.lxpy("delete", f"{name}/s0")
    daemon.lxpy("rename", f"{name}/s1", f"{name}/first")
    for snapshot in ("s2", "first", "s2"):
        daemon.lxpy("restore", name, snapshot)
        goes_on(daemon, name, tag)
        assert held(daemon, name) == digest
    # What was restored has a memory of its own, of which nothing is saved yet.
    daemon.lxpy("restore", name, "s2")
    daemon.lxpy("snapshot", name, "s3", "--stateful")
    assert size(daemon, name, "s3") > SIZE
    change(daemon, name, "stop", force=True)
    daemon.lxpy("restore", name, "s3")
    assert held(daemon, name) == digest


def test_the_chain_is_short(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    hold(daemon, name)
    for number in range(10):
        daemon.lxpy("snapshot", name, f"s{number}", "--stateful")
    whole = [n for n in range(10) if size(daemon, name, f"s{n}") > SIZE]
    assert whole == [0, 9]
    daemon.lxpy("stop", name, "--stateful")
    daemon.lxpy("start", name)
    digest = held(daemon, name)
    daemon.lxpy("restore", name, "s8")
    assert held(daemon, name) == digest
