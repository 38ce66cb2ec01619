"""Running instances move to another server, with their memory and their connections."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxpy.services.memory.criu import PREFIX
from tests.support import fixtures, processes
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.system.test_checkpoint import count, goes_on, where
from tests.system.test_migration import Pair, pair

__all__ = ["pair"]

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.path.exists(f"{PREFIX}/bin/criu"), reason="needs CRIU (packaging/criu.sh)"
    ),
]
POINTS = 15
CLIENT = "while :; do echo $((n += 1)); sleep 0.1; done | nc {} 7000 >/root/echo"


NAMESPACE = f"lt-far{os.getpid()}"
ENDS = ("lt-joinA", "lt-joinB")
#: of the bridges on both sides, which are one network
ADDRESSES = ("10.76.41.1", "10.76.41.2")


@pytest.fixture(scope="module")
def other_daemon(work_directory: Path, commands: Path, busybox_image: Path) -> Iterator[Daemon]:
    """The second server, in a network namespace of its own, as on another host."""
    daemon = Daemon(work_directory / "far", commands, NAMESPACE)
    _ip("netns", "add", NAMESPACE)
    try:
        _ip("-n", NAMESPACE, "link", "set", "lo", "up")
        daemon.start()
        fixtures.warm_up(daemon, work_directory / "warm-far.tar.gz")
        yield daemon
        daemon.remove()
    finally:
        daemon.destroy()
        _ip("netns", "delete", NAMESPACE)


@pytest.fixture
def one_network(pair: Pair) -> Iterator[str]:
    """Both servers have a profile of that name, whose networks are one, as of hosts at a switch."""
    profile = "lt-joined"
    _ip("link", "add", ENDS[0], "type", "veth", "peer", "name", ENDS[1], "netns", NAMESPACE)
    try:
        _join(pair.here, "lt-bridgeA", [], {"ipv4.address": f"{ADDRESSES[0]}/24"}, profile)
        more = {"ipv4.address": f"{ADDRESSES[1]}/24", "ipv4.dhcp": "false"}
        _join(pair.there, "lt-bridgeB", ["-n", NAMESPACE], more, profile)
        yield profile
    finally:
        _ip("link", "delete", ENDS[0])
        for daemon, bridge in ((pair.here, "lt-bridgeA"), (pair.there, "lt-bridgeB")):
            for each in daemon.api.get("/1.0/instances?recursion=1"):
                if profile in each["profiles"]:
                    daemon.delete(each["name"])
            daemon.api.delete(f"/1.0/profiles/{profile}")
            daemon.api.delete(f"/1.0/networks/{bridge}")


def _join(
    daemon: Daemon, bridge: str, where: list[str], config: dict[str, str], profile: str
) -> None:
    """Make a network with one end of the cable in it, and a profile that uses it."""
    config = {"ipv4.nat": "false", "ipv6.address": "none", **config}
    daemon.api.post("/1.0/networks", {"name": bridge, "config": config})
    _ip(*where, "link", "set", ENDS[bool(where)], "master", bridge, "up")
    devices = daemon.api.get("/1.0/profiles/default")["devices"]
    devices["eth0"] = {"type": "nic", "network": bridge}
    daemon.api.post("/1.0/profiles", {"name": profile, "devices": devices})


@pytest.fixture
def over_https(pair: Pair, one_network: str, tmp_path: Path) -> Iterator[None]:
    """A user elsewhere, to whom both are remotes over HTTPS."""
    listening = "core.https_address"
    sides = (("here", pair.here, ADDRESSES[0]), ("there", pair.there, ADDRESSES[1]))
    pair.environment |= {"LXPY_CONF": str(tmp_path / "conf"), "LXPY_DIR": str(tmp_path / "none")}
    try:
        for name, daemon, address in sides:
            daemon.api.call("PATCH", "/1.0", {"config": {listening: f"{address}:8443"}})
            token = daemon.lxpy("config", "trust", "add", "--name", "mover").stdout.split()[-1]
            pair.run("lxpy", "remote", "add", name, token)
        yield
    finally:
        for _, daemon, _ in sides:
            daemon.api.call("PATCH", "/1.0", {"config": {listening: ""}})
            for url in daemon.api.get("/1.0/certificates"):
                daemon.api.call("DELETE", url)


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


def test_lxd_s_own_client_moves_it_with_its_memory(
    pair: Pair, launch: Launch, one_network: str
) -> None:
    name = launch(profiles=[one_network])
    had = pair.here.address(name)
    tag, _ = count(pair.here, name)
    pair.here.api.post(f"/1.0/instances/{name}/snapshots", {"name": "kept"})
    pair.run("lxc", "move", f"here:{name}", "there:", "--mode", "relay")
    assert pair.here.instances() == [] and running(pair, name) == [pair.there]
    goes_on(pair.there, name, tag)
    assert pair.there.address(name) == had
    assert pair.there.api.get(f"/1.0/instances/{name}")["stateful"] is False
    pair.run("lxc", "move", f"there:{name}", "here:", "--mode", "relay")
    goes_on(pair.here, name, tag)
    assert pair.here.api.get(f"/1.0/instances/{name}/snapshots/kept")["name"] == "kept"


def test_lxd_s_own_client_is_told_why_not(pair: Pair, launch: Launch) -> None:
    """What cannot be saved, or cannot go on there, goes on here."""
    name = launch()
    pair.here.exec(name, "sh", "-c", "unshare -Urpf sleep 300 </dev/null >/dev/null 2>&1 &")
    processes.wait_until(lambda: "sleep 300" in pair.here.out(name, "ps"))
    done = pair.run("lxc", "move", f"here:{name}", "there:", "--mode", "relay", check=False)
    assert "cannot be saved" in done.stderr
    assert running(pair, name) == [pair.here] and pair.there.instances() == []
    whole = launch()
    tag, _ = count(pair.here, whole)
    pair.there.api.patch("/1.0/profiles/default", {"config": {"security.privileged": "true"}})
    try:
        done = pair.run("lxc", "move", f"here:{whole}", "there:", "--mode", "relay", check=False)
    finally:
        pair.there.api.patch("/1.0/profiles/default", {"config": {"security.privileged": ""}})
    assert done.returncode == 1
    processes.wait_until(lambda: running(pair, whole) == [pair.here])
    goes_on(pair.here, whole, tag)
    assert pair.there.instances() == []


@pytest.mark.usefixtures("over_https")
def test_over_the_network(pair: Pair, launch: Launch, one_network: str) -> None:
    name = launch(profiles=[one_network])
    had = pair.here.address(name)
    tag, _ = count(pair.here, name)
    done = pair.run("lxpy", "move", f"here:{name}", "there:", "--live")
    assert "It stood still for" in done.stdout
    assert running(pair, name) == [pair.there]
    goes_on(pair.there, name, tag)
    assert pair.there.address(name) == had
    pair.run("lxpy", "move", f"there:{name}", "here:", "--live")
    goes_on(pair.here, name, tag)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_dies_at_any_point(pair: Pair, launch: Launch, tmp_path: Path, side: str) -> None:
    """One of the two runs it then, with its memory, and nothing is left at the other."""
    name = launch()
    tag, _ = count(pair.here, name)
    at, to = pair.here, pair.there
    said = tmp_path / "said"
    _move(pair, at, to, name, said).wait(120)
    asked = _asked(said)
    at, to = to, at
    moved = []
    for point in range(POINTS):
        victim = at if side == "source" else to
        move = _move(pair, at, to, name, said)
        wanted = asked - POINTS + point + 1  # first it only looks
        while _asked(said) < wanted and move.poll() is None:
            time.sleep(0.005)
        time.sleep(0.05 * (point % 3))  # in the middle of what was asked for
        victim.kill()
        victim.start()
        move.wait(200)
        out = said.read_text()
        (found,) = running(pair, name)
        assert goes_on(found, name, tag) > 0, out
        other = to if found is at else at
        assert name not in other.instances(), f"point {point}: {out}"
        moved.append(found is to)
        assert (move.returncode == 0) == moved[-1], out
        at, to = found, other
    assert set(moved) == {False, True}, "some were early enough to fail, some late enough not to"


def _asked(said: Path) -> int:
    """How many requests were sent."""
    return len(re.findall(r"^lxpy: [A-Z]+ ", said.read_text(), re.MULTILINE))


def _move(pair: Pair, at: Daemon, to: Daemon, name: str, said: Path) -> subprocess.Popen[bytes]:
    names = {id(pair.here): "here", id(pair.there): "there"}
    source, target = (f"{names[id(each)]}:{name}" for each in (at, to))
    with said.open("wb") as file:
        return subprocess.Popen(
            ("lxpy", "--debug", "move", source, target, "--live"),
            env=pair.environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
