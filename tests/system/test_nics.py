"""Nics of every type: what they are inside and on the host, changed live, and taken back."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon, nft_tables
from tests.support.fixtures import Launch, change, create, import_image
from tests.support.wires import LINKS, Wire

HWADDR = "00:16:3e:aa:00:01"


@pytest.fixture
def wire(daemon: Daemon) -> Iterator[Wire]:
    """An interface of the host with a world behind it."""
    made = Wire()
    yield made
    for name in daemon.instances():
        devices = daemon.api.get(f"/1.0/instances/{name}")["expanded_devices"]
        if made.near in json.dumps(devices):
            daemon.delete(name)
    made.remove()


@pytest.fixture(autouse=True)
def _nothing_noted(request: pytest.FixtureRequest) -> Iterator[None]:
    """No nic stays noted, no rules and no link stay behind."""
    daemon: Daemon = request.getfixturevalue("daemon")
    tables = {each for each in nft_tables() if each.startswith("netdev")}
    yield
    for name in daemon.instances():
        daemon.delete(name)
    notes = daemon.directory / "run/nics"
    processes.wait_until(lambda: not notes.exists() or not list(notes.iterdir()), 5, "no notes")
    assert {each for each in nft_tables() if each.startswith("netdev")} <= tables
    assert not [each for each in os.listdir(LINKS) if each.startswith("lxp") and "-" not in each]


def nic(kind: str, **options: str) -> dict[str, dict[str, str]]:
    """A device eth1 of a type."""
    given = {key.replace("__", "."): value for key, value in options.items()}
    return {"eth1": {"type": "nic", "nictype": kind, "name": "eth1", **given}}


def inside(daemon: Daemon, name: str, link: str = "eth1") -> dict[str, Any]:
    return dict(daemon.state(name)["network"].get(link) or {})


def sets(daemon: Daemon, name: str, devices: dict[str, dict[str, str]]) -> None:
    """Make these the instance's own devices."""
    own = daemon.api.get(f"/1.0/instances/{name}")
    own["devices"] = devices
    daemon.api.put(f"/1.0/instances/{name}", own)


def pings(daemon: Daemon, name: str, target: str, *options: str) -> bool:
    words = ("ping", "-c", "1", "-W", "2", *options, target)
    return daemon.exec(name, *words, check=False).returncode == 0


def volatile(daemon: Daemon, name: str, key: str) -> str:
    config = daemon.api.get(f"/1.0/instances/{name}")["config"]
    return str(config.get(f"volatile.eth1.{key}", ""))


# -- macvlan


def test_macvlan(daemon: Daemon, launch: Launch, wire: Wire) -> None:
    name = launch(devices=nic("macvlan", parent=wire.near, mtu="1400"))
    found = inside(daemon, name)
    assert found["hwaddr"] == volatile(daemon, name, "hwaddr") and found["mtu"] == 1400
    assert found["host_name"] == ""
    daemon.out(name, "ip", "addr", "add", "198.18.1.2/24", "dev", "eth1")
    wire.far("ip", "addr", "add", "198.18.1.1/24", "dev", "far0")
    assert pings(daemon, name, "198.18.1.1") and wire.pings("198.18.1.2")
    change(daemon, name, "restart", force=True)
    assert inside(daemon, name)["hwaddr"] == found["hwaddr"]
    sets(daemon, name, {})
    assert not inside(daemon, name)
    sets(daemon, name, nic("macvlan", parent=wire.near, hwaddr=HWADDR))
    assert inside(daemon, name)["hwaddr"] == HWADDR
    sets(daemon, name, nic("macvlan", parent=wire.near, hwaddr=HWADDR, mtu="1300"))
    assert inside(daemon, name)["mtu"] == 1300


def test_macvlan_network(daemon: Daemon, launch: Launch, wire: Wire) -> None:
    network = daemon.bridge_name()
    daemon.bridges.discard(network)
    wish = {"name": network, "type": "macvlan", "config": {"parent": wire.near, "mtu": "1450"}}
    daemon.api.post("/1.0/networks", wish)
    try:
        name = launch(devices={"eth1": {"type": "nic", "network": network, "name": "eth1"}})
        assert inside(daemon, name)["mtu"] == 1450
        found = daemon.api.get(f"/1.0/networks/{network}")
        assert found["type"] == "macvlan" and found["used_by"] == [f"/1.0/instances/{name}"]
        assert daemon.api.get(f"/1.0/networks/{network}/state")["mtu"] == 1500
        with pytest.raises(ApiError, match="not implemented"):
            daemon.api.get(f"/1.0/networks/{network}/leases")
        with pytest.raises(ApiError, match="in use"):
            daemon.api.delete(f"/1.0/networks/{network}")
        with pytest.raises(ApiError, match='Invalid device option "ipv4.address"'):
            sets(daemon, name, {"eth1": {"type": "nic", "network": network,
                                         "ipv4.address": "10.0.0.2"}})  # fmt: skip
        daemon.delete(name)
    finally:
        daemon.api.delete(f"/1.0/networks/{network}")


def test_parent_missing(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False, devices=nic("macvlan", parent="ltnone0"))
    text = 'Failed to start device "eth1": Parent device "ltnone0" doesn\'t exist'
    with pytest.raises(ApiError, match=text):
        change(daemon, name, "start")
    assert daemon.status(name) == "Stopped"
    with pytest.raises(ApiError, match='Parent device "ltnone0" doesn\'t exist'):
        wish = {"name": "ltnone1", "type": "macvlan", "config": {"parent": "ltnone0"}}
        daemon.api.post("/1.0/networks", wish)


# -- physical


def shown(link: str) -> tuple[str, str, str]:
    """Address, MTU and flag "up" of an interface of the host."""
    words = [(LINKS / link / each).read_text().strip() for each in ("address", "mtu", "flags")]
    return words[0], words[1], str(int(words[2], 16) & 1)


def test_physical(daemon: Daemon, launch: Launch, wire: Wire) -> None:
    before = shown(wire.near)
    given = nic("physical", parent=wire.near, mtu="1380", hwaddr=HWADDR)
    name = launch(devices=given)
    assert not (LINKS / wire.near).exists()
    found = inside(daemon, name)
    assert found["mtu"] == 1380 and found["hwaddr"] == HWADDR and found["state"] == "up"
    assert volatile(daemon, name, "host_name") == wire.near
    assert volatile(daemon, name, "last_state.hwaddr") == before[0]
    assert volatile(daemon, name, "last_state.mtu") == before[1]
    daemon.out(name, "ip", "addr", "add", "198.18.2.2/24", "dev", "eth1")
    wire.far("ip", "addr", "add", "198.18.2.1/24", "dev", "far0")
    assert pings(daemon, name, "198.18.2.1")
    with pytest.raises(ApiError, match="doesn't exist"):
        launch(devices=given | {"eth1": {**given["eth1"], "hwaddr": "00:16:3e:aa:00:02"}})
    change(daemon, name, "restart", force=True)
    assert inside(daemon, name)["hwaddr"] == HWADDR
    change(daemon, name, "stop", force=True)
    assert shown(wire.near) == before
    assert not volatile(daemon, name, "host_name") and not volatile(daemon, name, "last_state.mtu")
    change(daemon, name, "start")
    daemon.out(name, "ip", "link", "set", "eth1", "down")
    daemon.out(name, "ip", "link", "set", "eth1", "name", "-'\"\xff$")
    sets(daemon, name, {})
    assert shown(wire.near) == before, "it comes back, whatever the guest has called it"
    sets(daemon, name, given)
    assert inside(daemon, name)["mtu"] == 1380
    assert volatile(daemon, name, "host_name") == wire.near, "noted for one added live, too"
    daemon.out(name, "poweroff", check=False)
    daemon.wait_status(name, "Stopped")
    processes.wait_until(lambda: (LINKS / wire.near).exists(), 5, "the interface back")
    assert shown(wire.near) == before


def test_physical_comes_back_after_a_crash(own_daemon: Daemon, busybox_image: Path) -> None:
    daemon, wire = own_daemon, Wire()
    try:
        before = shown(wire.near)
        import_image(daemon, busybox_image, "tiny")
        name = create(daemon, "tiny", devices=nic("physical", parent=wire.near, hwaddr=HWADDR))
        change(daemon, name, "start")
        daemon.kill()
        daemon.start()
        assert inside(daemon, name)["hwaddr"] == HWADDR, "another daemon leaves it alone"
        pid = daemon.init_pid(name)
        daemon.kill()
        processes.end(daemon.supervisor, signal.SIGKILL)
        processes.end(pid, signal.SIGKILL)
        assert not (LINKS / wire.near).exists(), "held by nobody but a mount"
        daemon.start()
        processes.wait_until(lambda: (LINKS / wire.near).exists(), 5, "the interface back")
        processes.wait_until(lambda: shown(wire.near) == before, 5, "it is as it was")
        notes = daemon.directory / "run/nics"
        processes.wait_until(lambda: not list(notes.iterdir()), 5, "its notes gone")
    finally:
        wire.remove()


# -- p2p and routed


def test_p2p(daemon: Daemon, launch: Launch) -> None:
    given = {"ipv4__routes": "198.18.3.0/24", "host_name": "ltp2p0", "limits__egress": "8Mbit"}
    name = launch(devices=nic("p2p", **given))
    found = inside(daemon, name)
    assert found["host_name"] == "ltp2p0" and volatile(daemon, name, "host_name") == "ltp2p0"
    assert "198.18.3.0/24" in routes("ltp2p0")
    assert "netdev lxpy_ltp2p0" in nft_tables()
    daemon.out(name, "ip", "addr", "add", "198.18.3.2/24", "dev", "eth1")
    subprocess.run(["ip", "addr", "add", "198.18.3.1/24", "dev", "ltp2p0"], check=True)
    assert pings(daemon, name, "198.18.3.1")
    sets(daemon, name, nic("p2p", host_name="ltp2p0", ipv4__routes="198.18.4.0/24"))
    assert "netdev lxpy_ltp2p0" not in nft_tables()
    assert "198.18.4.0/24" in routes("ltp2p0")
    assert pings(daemon, name, "198.18.3.1"), "it is the same link"
    sets(daemon, name, nic("p2p", host_name="ltp2p0", limits__ingress="5Mbit"))
    assert "rate 5Mbit" in tc("ltp2p0")
    sets(daemon, name, {})
    assert not (LINKS / "ltp2p0").exists() and not inside(daemon, name)


def routes(link: str, *more: str) -> str:
    words = ["ip", "route", "show", "dev", link, *more]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def tc(link: str) -> str:
    words = ["tc", "qdisc", "show", "dev", link]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_routed(daemon: Daemon, launch: Launch, wire: Wire) -> None:
    wire.far("ip", "addr", "add", "198.18.5.1/24", "dev", "far0")
    given = nic("routed", parent=wire.near, ipv4__address="198.18.5.7", ipv4__host_table="4711",
                ipv4__routes="198.18.6.0/24")  # fmt: skip
    # Without another card, whose DHCP client would set the default route.
    name = launch(start=False, devices=given | {"eth0": {"type": "none"}})
    wire.sysctl("ipv4/forwarding", "0")
    with pytest.raises(ApiError, match=f"sysctl net.ipv4.conf.{wire.near}.forwarding=1"):
        change(daemon, name, "start")
    wire.sysctl("ipv4/forwarding", "1")
    subprocess.run(["ip", "addr", "add", "198.18.5.254/24", "dev", wire.near], check=True)
    change(daemon, name, "start")
    host = inside(daemon, name)["host_name"]
    assert "198.18.5.7" in routes(host) and "198.18.6.0/24 via 198.18.5.7" in routes(host)
    assert "198.18.5.7" in routes(host, "table", "4711")
    assert "default via 169.254.0.1" in daemon.out(name, "ip", "route", "show", "dev", "eth1")
    processes.wait_until(lambda: wire.pings("198.18.5.7"), 10, "it answers: the host speaks ARP")
    daemon.out(name, "ip", "addr", "add", "198.18.5.9/32", "dev", "eth1")
    daemon.out(name, "ip", "route", "add", "198.18.5.1", "via", "169.254.0.1", "dev", "eth1")
    assert pings(daemon, name, "198.18.5.1", "-I", "198.18.5.7")
    wire.far("ip", "route", "add", "198.18.5.9/32", "via", "198.18.5.254")
    assert not pings(daemon, name, "198.18.5.1", "-I", "198.18.5.9"), "an address not its own"
    change(daemon, name, "stop", force=True)
    assert "198.18.5.7" not in proxies(wire.near)


def proxies(link: str) -> str:
    found = ""
    for family in ("-4", "-6"):
        words = ["ip", family, "neigh", "show", "proxy", "dev", link]
        found += subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return found


def test_routed_address_of_a_neighbour(daemon: Daemon, launch: Launch, wire: Wire) -> None:
    wire.far("ip", "addr", "add", "198.18.7.1/24", "dev", "far0")
    wire.sysctl("ipv4/forwarding", "1")
    given = nic("routed", parent=wire.near, ipv4__address="198.18.7.1")
    name = launch(start=False, devices=given)
    with pytest.raises(ApiError, match=f'"198.18.7.1" in use on parent network "{wire.near}"'):
        change(daemon, name, "start")
    given["eth1"]["ipv4.neighbor_probe"] = "false"
    sets(daemon, name, given)
    change(daemon, name, "start")
    assert inside(daemon, name)["addresses"]


def test_routed_ipv6(daemon: Daemon, launch: Launch) -> None:
    if not Path("/proc/sys/net/ipv6/conf").exists():
        pytest.skip("this host has no IPv6")
    name = launch(devices=nic("routed", ipv6__address="fd42:7::7", limits__max="20Mbit"))
    host = inside(daemon, name)["host_name"]
    words = ["ip", "-6", "route", "show", "dev", host]
    assert "fd42:7::7" in subprocess.run(words, capture_output=True, text=True).stdout
    assert pings(daemon, name, "fe80::1%eth1", "-6")
    assert subprocess.run(["busybox", "ping", "-6", "-c1", "-W2", "fd42:7::7"]).returncode == 0
    daemon.kill()
    daemon.start()
    assert f"netdev lxpy_{host}" in nft_tables()
    change(daemon, name, "stop", force=True)
    assert f"netdev lxpy_{host}" not in nft_tables()


def test_routed_ipv6_on_a_parent(daemon: Daemon, launch: Launch, wire: Wire) -> None:
    forwarding = Path("/proc/sys/net/ipv6/conf/all/forwarding")
    if not forwarding.exists() or forwarding.read_text().strip() != "1":
        pytest.skip("this host does not forward IPv6")
    wire.far("ip", "addr", "add", "fd42:5::1/64", "dev", "far0", "nodad")
    words = ["ip", "addr", "add", "fd42:5::fe/64", "dev", wire.near, "nodad"]
    subprocess.run(words, check=True)
    given = nic("routed", parent=wire.near, ipv6__address="fd42:5::7")
    name = launch(start=False, devices=given | {"eth0": {"type": "none"}})
    wire.sysctl("ipv6/forwarding", "1")
    with pytest.raises(ApiError, match="proxy_ndp=1"):
        change(daemon, name, "start")
    wire.sysctl("ipv6/proxy_ndp", "1")
    processes.wait_until(lambda: "tentative" not in addresses_of(wire.near), 5, "its own address")
    given["eth1"]["ipv6.address"] = "fd42:5::1"
    sets(daemon, name, given)
    with pytest.raises(ApiError, match='"fd42:5::1" in use on parent network'):
        change(daemon, name, "start")
    given["eth1"]["ipv6.address"] = "fd42:5::7"
    sets(daemon, name, given)
    change(daemon, name, "start")
    processes.wait_until(lambda: wire.pings("fd42:5::7"), 10, "the host answers for it")
    change(daemon, name, "stop", force=True)
    assert "fd42:5::7" not in proxies(wire.near)


def addresses_of(link: str) -> str:
    words = ["ip", "address", "show", "dev", link]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


# -- what depends on the kernel or the card


def can_make(kind: str, *more: str) -> bool:
    """Whether this kernel has interfaces of a kind."""
    made = Wire()
    try:
        words = ["ip", "link", "add", "ltprobe0", "link", made.near, "type", kind, *more]
        done = subprocess.run(words, capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", "ltprobe0"], capture_output=True, check=False)
        return done.returncode == 0
    finally:
        made.remove()


def test_ipvlan(daemon: Daemon, launch: Launch, wire: Wire) -> None:
    wire.sysctl("ipv4/forwarding", "1")
    wire.far("ip", "addr", "add", "198.18.8.1/24", "dev", "far0")
    subprocess.run(["ip", "addr", "add", "198.18.8.254/24", "dev", wire.near], check=True)
    given = nic("ipvlan", parent=wire.near, ipv4__address="198.18.8.7")
    if not can_make("ipvlan"):
        with pytest.raises(ApiError, match="making ipvlan.*kernel lacks a module"):
            launch(devices=given)
        assert "198.18.8.7" not in proxies(wire.near) + routes("lo")
        return
    name = launch(devices=given)
    processes.wait_until(lambda: wire.pings("198.18.8.7"), 10, "it answers")
    change(daemon, name, "stop", force=True)
    assert "198.18.8.7" not in proxies(wire.near) + routes("lo")


def test_vlan_of_a_parent(daemon: Daemon, launch: Launch, wire: Wire) -> None:
    given = nic("macvlan", parent=wire.near, vlan="7", gvrp="true")
    vlan = f"{wire.near}.7"
    if not can_make("vlan", "id", "9"):
        with pytest.raises(ApiError, match="VLAN 7.*kernel lacks a module"):
            launch(devices=given)
        return
    one, two = launch(devices=given), launch(devices=given)
    words = ["ip", "-details", "link", "show", vlan]
    assert "GVRP" in subprocess.run(words, capture_output=True, text=True).stdout
    assert (LINKS / vlan).exists() and volatile(daemon, one, "last_state.created") == "true"
    wire.far("ip", "link", "add", "far7", "link", "far0", "type", "vlan", "id", "7")
    wire.far("ip", "addr", "add", "198.18.9.1/24", "dev", "far7")
    wire.far("ip", "link", "set", "far7", "up")
    daemon.out(two, "ip", "addr", "add", "198.18.9.2/24", "dev", "eth1")
    assert pings(daemon, two, "198.18.9.1")
    change(daemon, one, "stop", force=True)
    assert (LINKS / vlan).exists(), "the other needs it"
    change(daemon, two, "stop", force=True)
    assert not (LINKS / vlan).exists()


def test_vlans_of_a_managed_bridge(daemon: Daemon, launch: Launch) -> None:
    network = daemon.api.get("/1.0/profiles/default")["devices"]["eth0"]["network"]
    given = {"eth1": {"type": "nic", "network": network, "vlan": "7", "vlan.tagged": "8"}}
    devices = {"eth0": {"type": "none"}, **given}
    if not (LINKS / network / "bridge/vlan_filtering").exists():
        with pytest.raises(ApiError, match=f'not enabled in parent bridge "{network}"'):
            launch(devices=devices)
        pytest.skip("this kernel has no VLANs on bridges")
    listed = subprocess.run(
        ["bridge", "vlan", "show", "dev", inside(daemon, launch(devices=devices))["host_name"]],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "7 PVID Egress Untagged" in listed and " 8" in listed


def test_vlans_of_a_bridge(daemon: Daemon, launch: Launch) -> None:
    subprocess.run(["ip", "link", "add", "ltvbr0", "type", "bridge"], check=True)
    try:
        given = nic("bridged", parent="ltvbr0", vlan="7", vlan__tagged="8,10-11")
        with pytest.raises(ApiError, match='not enabled in parent bridge "ltvbr0"'):
            launch(devices=given)
        words = ["ip", "link", "set", "ltvbr0", "type", "bridge", "vlan_filtering", "1"]
        if subprocess.run(words, capture_output=True).returncode:
            return
        name = launch(devices=given)
        host = inside(daemon, name)["host_name"]
        listed = subprocess.run(
            ["bridge", "vlan", "show", "dev", host], capture_output=True, text=True
        ).stdout
        assert "7 PVID Egress Untagged" in listed and " 10" in listed and " 1 " not in listed
        daemon.delete(name)
    finally:
        subprocess.run(["ip", "link", "delete", "ltvbr0"], check=True)


def test_sriov_without_functions(daemon: Daemon, launch: Launch, wire: Wire) -> None:
    with pytest.raises(ApiError, match="doesn't support SR-IOV"):
        launch(devices=nic("sriov", parent=wire.near))


def test_state_of_vlans_and_bonds(daemon: Daemon, wire: Wire) -> None:
    """Interfaces that lxpy does not manage, as LXD shows them."""
    if can_make("vlan", "id", "9"):
        words = ("link", "add", "ltvlan0", "link", wire.near, "type", "vlan", "id", "5")
        subprocess.run(["ip", *words], check=True)
        found = daemon.api.get("/1.0/networks/ltvlan0")
        assert found["type"] == "vlan" and not found["managed"]
        state = daemon.api.get("/1.0/networks/ltvlan0/state")
        assert state["vlan"] == {"lower_device": wire.near, "vid": 5}
        subprocess.run(["ip", "link", "delete", "ltvlan0"], check=True)
    words = ("link", "add", "ltbond0", "type", "bond", "mode", "active-backup", "miimon", "100")
    if subprocess.run(["ip", *words], capture_output=True).returncode == 0:
        assert daemon.api.get("/1.0/networks/ltbond0")["type"] == "bond"
        bond = daemon.api.get("/1.0/networks/ltbond0/state")["bond"]
        assert bond["mode"] == "active-backup" and bond["mii_frequency"] == 100
        assert bond["lower_devices"] == []
        subprocess.run(["ip", "link", "delete", "ltbond0"], check=True)


@pytest.mark.parametrize("kind", ["p2p", "routed", "macvlan", "physical", "ipvlan"])
def test_added_and_removed_while_running(
    daemon: Daemon, launch: Launch, wire: Wire, kind: str
) -> None:
    if kind == "ipvlan" and not can_make("ipvlan"):
        pytest.skip("this kernel has no ipvlan")
    wire.sysctl("ipv4/forwarding", "1")
    given = nic(kind) if kind == "p2p" else nic(kind, parent=wire.near)
    if kind in ("routed", "ipvlan"):
        given["eth1"] |= {"ipv4.address": "198.18.70.7", "ipv4.gateway": "none"}
    name = launch()
    for _ in range(2):
        sets(daemon, name, given)
        assert inside(daemon, name)["state"] == "up"
        if kind in ("routed", "ipvlan"):
            assert "198.18.70.7" in proxies(wire.near)
        # Another option than those that change in place: it is taken away and added.
        given["eth1"]["mtu"] = "1420"
        sets(daemon, name, given)
        assert inside(daemon, name)["mtu"] == 1420
        sets(daemon, name, {})
        assert not inside(daemon, name) and "198.18.70.7" not in proxies(wire.near)
        given["eth1"].pop("mtu")


# -- measured, and broken off


def megabits(daemon: Daemon, name: str, address: str, *, out: bool) -> float:
    """How fast a megabyte goes from an instance to the host (`out`), or the other way."""
    size = 1 << 20
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                if not out:
                    connection.sendall(bytes(size))
                    connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        source = f"dd if=/dev/zero bs=1k count={size >> 10} 2>/dev/null |" if out else ""
        begin = time.monotonic()
        daemon.out(name, "sh", "-c", f"{source} nc {address} {port} >/dev/null")
        seconds = time.monotonic() - begin
        thread.join(10)
    return size * 8 / seconds / 1e6


def test_limits_are_kept(daemon: Daemon, launch: Launch) -> None:
    given = {"ipv4__address": "198.18.60.7", "limits__egress": "4Mbit", "limits__ingress": "6Mbit"}
    name = launch(devices=nic("routed", **given))
    host = inside(daemon, name)["host_name"]
    assert megabits(daemon, name, "169.254.0.1", out=True) < 8
    assert megabits(daemon, name, "169.254.0.1", out=False) < 9
    sets(daemon, name, nic("routed", ipv4__address="198.18.60.7"))
    assert inside(daemon, name)["host_name"] == host
    words = ["nft", "list", "table", "netdev", f"lxpy_{host}"]
    assert "limit rate" not in subprocess.run(words, capture_output=True, text=True).stdout
    assert "tbf" not in tc(host)


def test_nothing_is_left_of_a_failed_start(daemon: Daemon, launch: Launch, wire: Wire) -> None:
    """The last of several nics fails: all before it are taken back."""
    before = shown(wire.near)
    devices = {
        "a1": {"type": "nic", "nictype": "physical", "parent": wire.near, "name": "a1"},
        "a2": {"type": "nic", "nictype": "p2p", "name": "a2", "host_name": "ltfail0",
               "limits.max": "1Mbit"},
        "a3": {"type": "nic", "nictype": "macvlan", "parent": "ltnone0", "name": "a3"},
    }  # fmt: skip
    name = launch(start=False, devices=devices)
    with pytest.raises(ApiError, match="ltnone0"):
        change(daemon, name, "start")
    assert shown(wire.near) == before and not (LINKS / "ltfail0").exists()
    own = daemon.api.get(f"/1.0/instances/{name}")["devices"]
    own.pop("a3")
    sets(daemon, name, own)
    change(daemon, name, "start")
    with pytest.raises(ApiError, match="ltnone0"):
        sets(daemon, name, {**own, "a3": devices["a3"]})
    assert "a3" not in daemon.api.get(f"/1.0/instances/{name}")["devices"]
    assert inside(daemon, name, "a1") and inside(daemon, name, "a2"), "it has kept the others"


def test_a_daemon_killed_while_nics_come_and_go(own_daemon: Daemon, busybox_image: Path) -> None:
    """Whatever it was doing, the next daemon has the host and the instance agree."""
    daemon, wire = own_daemon, Wire()
    try:
        before = shown(wire.near)
        import_image(daemon, busybox_image, "tiny")
        name = create(daemon, "tiny")
        change(daemon, name, "start")
        wanted = nic("physical", parent=wire.near)
        for delay_s in (0.0, 0.01, 0.03, 0.06, 0.1):
            own = daemon.api.get(f"/1.0/instances/{name}")
            own["devices"] = {} if own["devices"] else wanted
            thread = threading.Thread(target=_ignored, args=(daemon, name, own))
            thread.start()
            time.sleep(delay_s)
            daemon.kill()
            thread.join(10)
            daemon.start()
            has = "eth1" in daemon.api.get(f"/1.0/instances/{name}")["devices"]
            assert bool(inside(daemon, name)) == has
            assert (LINKS / wire.near).exists() != has
            assert has or shown(wire.near) == before
        daemon.delete(name)
        assert shown(wire.near) == before
    finally:
        wire.remove()


def _ignored(daemon: Daemon, name: str, own: dict[str, Any]) -> None:
    with contextlib.suppress(ApiError, OSError, http.client.HTTPException):
        daemon.api.put(f"/1.0/instances/{name}", own)
