"""Running instances move to another server, with their memory and their connections."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from lxpy.services.criu import PREFIX
from tests.support import processes
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.system.test_checkpoint import count, goes_on, where
from tests.system.test_migration import Pair, other_daemon, pair

__all__ = ["other_daemon", "pair"]

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.path.exists(f"{PREFIX}/bin/criu"), reason="needs CRIU (packaging/criu.sh)"
    ),
]
POINTS = 10
CLIENT = "while :; do echo $((n += 1)); sleep 0.1; done | nc {} 7000 >/root/echo"


@pytest.fixture
def one_network(pair: Pair) -> Iterator[str]:
    """Both servers have a profile of that name, whose networks are one, as of hosts at a switch."""
    profile, ends = "lt-joined", ("lt-joinA", "lt-joinB")
    none = {"ipv4.address": "none", "ipv6.address": "none"}
    configs = ({"ipv4.address": "10.76.41.1/24", "ipv4.nat": "false", "ipv6.address": "none"}, none)
    bridges = ("lt-bridgeA", "lt-bridgeB")
    sides = list(zip((pair.here, pair.there), ends, bridges, configs, strict=True))
    _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    try:
        for daemon, end, bridge, config in sides:
            daemon.api.post("/1.0/networks", {"name": bridge, "config": config})
            _ip("link", "set", end, "master", bridge, "up")
            devices = daemon.api.get("/1.0/profiles/default")["devices"]
            devices["eth0"] = {"type": "nic", "network": bridge}
            daemon.api.post("/1.0/profiles", {"name": profile, "devices": devices})
        yield profile
    finally:
        _ip("link", "delete", ends[0])
        for daemon, _, bridge, _ in sides:
            for each in daemon.api.get("/1.0/instances?recursion=1"):
                if profile in each["profiles"]:
                    daemon.delete(each["name"])
            daemon.api.delete(f"/1.0/profiles/{profile}")
            daemon.api.delete(f"/1.0/networks/{bridge}")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def running(pair: Pair, name: str) -> list[Daemon]:
    """The servers on which it runs."""
    return [
        each
        for each in (pair.here, pair.there)
        if name in each.instances() and each.status(name) == "Running"
    ]


def lines(daemon: Daemon, name: str) -> int:
    return int(daemon.out(name, "sh", "-c", "wc -l </root/echo"))


def test_memory_and_connections_go_along(pair: Pair, launch: Launch, one_network: str) -> None:
    peer, name = launch(profiles=[one_network]), launch(profiles=[one_network])
    address = pair.here.address(peer)
    pair.here.address(name)
    pair.here.exec(peer, "sh", "-c", "setsid nc -ll -p 7000 -e cat </dev/null >/dev/null 2>&1 &")
    script = CLIENT.format(address)
    pair.here.exec(name, "sh", "-c", f"setsid sh -c '{script}' </dev/null >/dev/null 2>&1 &")
    tag, _ = count(pair.here, name)
    processes.wait_until(lambda: lines(pair.here, name) > 3)
    had = pair.here.address(name)
    pair.here.api.post(f"/1.0/instances/{name}/snapshots", {"name": "kept"})

    done = pair.run("lxpy", "move", f"here:{name}", "there:", "--live")
    stood_still = re.search(r"It stood still for ([0-9.]+) s", done.stdout)
    assert stood_still and float(stood_still[1]) < 60
    assert running(pair, name) == [pair.there]
    assert name not in pair.here.instances()
    goes_on(pair.there, name, tag)
    assert pair.there.address(name) == had
    before = lines(pair.there, name)
    processes.wait_until(lambda: lines(pair.there, name) > before + 3, 30, "the connection lives")
    listed = pair.there.api.get(f"/1.0/instances/{name}/snapshots?recursion=1")
    assert [each["name"] for each in listed] == ["kept"]

    pair.run("lxpy", "move", f"there:{name}", "here:", "--mode", "live")
    goes_on(pair.here, name, tag)
    before = lines(pair.here, name)
    processes.wait_until(lambda: lines(pair.here, name) > before + 3, 30, "the connection lives")


def test_what_cannot_be_saved_is_stopped_or_stays(pair: Pair, launch: Launch) -> None:
    name = launch(config={"security.nesting": "true"})
    pair.here.exec(
        name, "sh", "-c", "setsid unshare -p -f --mount-proc sleep 1000 >/dev/null 2>&1 &"
    )
    processes.wait_until(
        lambda: not pair.here.api.get(f"/1.0/instances/{name}/checkpoint")["possible"]
    )
    done = pair.run("lxpy", "move", f"here:{name}", "there:", "--live", check=False)
    assert done.returncode != 0 and "cannot be moved with its memory" in done.stderr
    assert running(pair, name) == [pair.here]
    done = pair.run("lxpy", "move", f"here:{name}", "there:", "--mode", "auto")
    assert "its memory cannot go along" in done.stdout
    assert running(pair, name) == [pair.there]


def test_stopped_with_its_state(pair: Pair, launch: Launch) -> None:
    name = launch()
    tag, _ = count(pair.here, name)
    change(pair.here, name, "stop", stateful=True)
    pair.run("lxpy", "move", f"here:{name}", "there:")
    assert pair.there.api.get(f"/1.0/instances/{name}")["stateful"]
    change(pair.there, name, "start")
    goes_on(pair.there, name, tag)


def test_a_move_without_memory(pair: Pair, launch: Launch) -> None:
    name = launch()
    tag, _ = count(pair.here, name)
    pair.run("lxpy", "move", f"here:{name}", "there:", "--mode", "restart")
    assert running(pair, name) == [pair.there]
    assert where(pair.there, name)[0] == tag, "the disk is there, the process is not"


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_dies_at_any_point(pair: Pair, launch: Launch, side: str) -> None:
    """One of the two runs it then, with its memory, and nothing is left at the other."""
    name = launch()
    tag, _ = count(pair.here, name)
    at, to = pair.here, pair.there
    began = time.monotonic()
    _move(pair, at, to, name).communicate(timeout=120)
    lasts_s = time.monotonic() - began
    at, to = to, at
    moved = []
    for point in range(POINTS):
        victim = at if side == "source" else to
        move = _move(pair, at, to, name)
        time.sleep(lasts_s * (point + 0.5) / POINTS)
        victim.kill()
        victim.start()
        out, _ = move.communicate(timeout=200)
        (found,) = running(pair, name)
        assert goes_on(found, name, tag) > 0, out
        other = to if found is at else at
        assert name not in other.instances(), f"point {point}: {out}"
        moved.append(found is to)
        assert (move.returncode == 0) == moved[-1], out
        at, to = found, other
    assert False in moved, "some were early enough to fail"


def _move(pair: Pair, at: Daemon, to: Daemon, name: str) -> subprocess.Popen[str]:
    names = {id(pair.here): "here", id(pair.there): "there"}
    words = ("lxpy", "move", f"{names[id(at)]}:{name}", f"{names[id(to)]}:{name}", "--live")
    return subprocess.Popen(
        words, env=pair.environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
