"""Where the kernel tracks changes of memory: dumps that build on the last one.

The kernel needs CONFIG_MEM_SOFT_DIRTY: `make test-vm` has one.
"""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from lxpy.services.memory.criu import PREFIX
from tests.support import processes
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.system.test_checkpoint import count, goes_on
from tests.system.test_live_migration import other_daemon
from tests.system.test_migration import Pair, pair

__all__ = ["other_daemon", "pair"]

SIZE = 16 << 20
BYTES = f"dd if=/dev/urandom of=/root/bytes bs=1048576 count={SIZE >> 20}"
#: holds those bytes in its memory until they are read from a fifo
HOLDER = f"mkfifo /root/held; exec 3<>/root/held; dd if=/root/bytes bs={SIZE} count=1 >&3"


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


def hold(daemon: Daemon, name: str) -> str:
    """Have a process hold random bytes; their digest."""
    daemon.exec(name, "sh", "-c", BYTES)
    daemon.exec(name, "sh", "-c", f"setsid sh -c '{HOLDER}' </dev/null >/dev/null 2>&1 &")
    usage = f"/1.0/instances/{name}/state"
    processes.wait_until(lambda: daemon.api.get(usage)["memory"]["usage"] > SIZE, 60)
    return daemon.out(name, "sh", "-c", "md5sum </root/bytes")


def held(daemon: Daemon, name: str) -> str:
    """The digest of the bytes, which are gone then."""
    return daemon.out(name, "sh", "-c", f"head -c {SIZE} /root/held | md5sum")


def size(daemon: Daemon, name: str, snapshot: str) -> int:
    found = daemon.api.get(f"/1.0/instances/{name}/snapshots/{snapshot}")
    return int(found["lxpy_stateful"]["size"])


def test_snapshots_hold_what_has_changed(daemon: Daemon, launch: Launch) -> None:
    """Each is whole by itself: they go in any order."""
    name = launch()
    digest = hold(daemon, name)
    tag, _ = count(daemon, name)
    for snapshot in ("s0", "s1", "s2"):
        daemon.lxpy("snapshot", name, snapshot, "--stateful")
        goes_on(daemon, name, tag)
    assert size(daemon, name, "s0") > SIZE
    assert size(daemon, name, "s1") < SIZE / 4 > size(daemon, name, "s2")
    daemon.lxpy("restore", name, "s0")
    assert held(daemon, name) == digest
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
    digest = hold(daemon, name)
    for number in range(10):
        daemon.lxpy("snapshot", name, f"s{number}", "--stateful")
    whole = [n for n in range(10) if size(daemon, name, f"s{n}") > SIZE]
    assert whole == [0, 9]
    daemon.lxpy("stop", name, "--stateful")
    daemon.lxpy("start", name)
    assert held(daemon, name) == digest
    daemon.lxpy("restore", name, "s8")
    assert held(daemon, name) == digest


def memory(daemon: Daemon, name: str, **wish: str) -> tuple[int, dict[str, str]]:
    """How long the archive of its memory is, and its headers."""
    path = f"/1.0/instances/{name}/memory?{urlencode(wish)}"
    status, headers, data = daemon.api.raw("GET", path)
    assert status == 200, data
    return len(data), headers


def test_memory_goes_ahead(daemon: Daemon, launch: Launch) -> None:
    """In parts, each of what has changed; nothing is taken for known that another dump has seen."""
    name = launch()
    digest = hold(daemon, name)
    states = daemon.directory / "states" / name
    whole, first = memory(daemon, name, ahead="true")
    assert whole > SIZE and first["x-lxpy-beyond"] == ""
    part, second = memory(daemon, name, ahead="true")
    assert part < SIZE / 4 and int(second["x-lxpy-known"]) > 70
    assert second["x-lxpy-beyond"] == first["x-lxpy-token"]
    daemon.lxpy("stop", name, "--stateful")
    assert os.listdir(states) == ["stop"]
    rest, headers = memory(daemon, name, beyond=second["x-lxpy-token"])
    assert rest < SIZE / 4 and headers["x-lxpy-beyond"] == second["x-lxpy-token"]
    everything, headers = memory(daemon, name, beyond=first["x-lxpy-token"])
    assert everything > SIZE and headers["x-lxpy-beyond"] == ""
    daemon.lxpy("start", name)
    assert held(daemon, name) == digest


def test_what_went_ahead_of_nothing_is_removed(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    states = daemon.directory / "states" / name
    memory(daemon, name, ahead="true")
    assert os.listdir(states) == ["ahead"]
    assert daemon.api.raw("DELETE", f"/1.0/instances/{name}/memory")[0] == 200
    assert os.listdir(states) == []
    _, found = memory(daemon, name, ahead="true")
    daemon.lxpy("snapshot", name, "s0", "--stateful")
    assert os.listdir(states) == ["@s0"]
    daemon.lxpy("stop", name, "--stateful")
    assert memory(daemon, name, beyond=found["x-lxpy-token"])[1]["x-lxpy-beyond"] == ""


def test_a_move_sends_memory_ahead(pair: Pair, launch: Launch) -> None:
    name = launch()
    digest = hold(pair.here, name)
    tag, _ = count(pair.here, name)
    done = pair.run("lxpy", "--debug", "move", f"here:{name}", "there:", "--live")
    sent = re.findall(r"PUT \S+/memory\S*", done.stdout + done.stderr)
    assert len(sent) > 2 and all("ahead=true" in each for each in sent[:-1]), done
    assert "beyond=" in sent[-1] and "ahead" not in sent[-1]
    goes_on(pair.there, name, tag)
    assert held(pair.there, name) == digest
    assert not list((pair.there.directory / "states").glob("*/*"))
    pair.there.delete(name)
    other = launch(config={"migration.incremental.memory": "false"})
    done = pair.run("lxpy", "--debug", "move", f"here:{other}", "there:", "--live")
    assert "ahead=true" not in done.stdout + done.stderr
    pair.there.delete(other)
