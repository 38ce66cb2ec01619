"""Networks: addresses, names, filters and limits of instances; networks made, changed, deleted."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon, links, nft_tables
from tests.support.fixtures import Launch, change, create, import_image
from tests.support.wires import Wire

LINKS = Path("/sys/class/net")


def config(daemon: Daemon, name: str) -> dict[str, str]:
    return daemon.api.get(f"/1.0/networks/{name}")["config"]  # type: ignore[no-any-return]


@pytest.fixture
def default(daemon: Daemon) -> str:
    """The default network's name."""
    devices = daemon.api.get("/1.0/profiles/default")["devices"]
    return str(devices["eth0"]["network"])


@pytest.fixture
def network(daemon: Daemon) -> Iterator[str]:
    """A network with a subnet of its own, deleted after the test."""
    name = daemon.bridge_name()
    daemon.api.post("/1.0/networks", {"name": name, "config": {"ipv6.address": "none"}})
    yield name
    for instance in daemon.instances():
        if name in json.dumps(daemon.api.get(f"/1.0/instances/{instance}")["expanded_devices"]):
            daemon.delete(instance)
    daemon.api.delete(f"/1.0/networks/{name}")
    daemon.bridges.discard(name)


def card(network: str, **options: str) -> dict[str, dict[str, str]]:
    """Devices with an eth0 on a network."""
    given = {key.replace("__", "."): value for key, value in options.items()}
    return {"eth0": {"type": "nic", "name": "eth0", "network": network, **given}}


def pings(daemon: Daemon, name: str, target: str, *options: str) -> bool:
    """Whether an instance gets an answer from a host within two seconds."""
    words = ("ping", "-c", "1", "-W", "2", *options, target)
    return daemon.exec(name, *words, check=False).returncode == 0


def gateway(daemon: Daemon, network: str) -> str:
    return config(daemon, network)["ipv4.address"].split("/")[0]


# -- instances


def test_address_and_state(daemon: Daemon, launch: Launch, default: str) -> None:
    name = launch()
    address = daemon.address(name)
    own = daemon.api.get(f"/1.0/instances/{name}")
    subnet = ipaddress.ip_interface(config(daemon, default)["ipv4.address"]).network
    assert ipaddress.ip_address(address) in subnet
    state = daemon.state(name)["network"]
    eth0, lo = state["eth0"], state["lo"]
    assert eth0["hwaddr"] == own["config"]["volatile.eth0.hwaddr"]
    assert eth0["hwaddr"].startswith("00:16:3e:")
    assert eth0["type"] == "broadcast" and eth0["state"] == "up" and eth0["mtu"] == 1500
    assert eth0["counters"]["bytes_received"] > 0 and eth0["counters"]["packets_sent"] > 0
    assert links([default])[eth0["host_name"]] == default
    assert lo["type"] == "loopback" and lo["host_name"] == ""
    assert {"family": "inet", "address": "127.0.0.1", "netmask": "8", "scope": "local"} in (
        lo["addresses"]
    )
    index = int(daemon.out(name, "cat", "/sys/class/net/eth0/ifindex"))
    assert index >= 1_000_000, "a checkpoint needs an index that is free elsewhere, too"


def test_ipv6_address(daemon: Daemon, launch: Launch, default: str) -> None:
    subnet = config(daemon, default)["ipv6.address"]
    if subnet == "none":
        pytest.skip("this host has no IPv6")
    name = launch()
    address = ipaddress.ip_address(daemon.address(name, family="inet6"))
    assert address in ipaddress.ip_interface(subnet).network
    # For its first second an address is on trial (duplicate address detection).
    target = subnet.split("/")[0]
    processes.wait_until(lambda: pings(daemon, name, target, "-6"), 5, "an answer by IPv6")


def test_names(daemon: Daemon, launch: Launch) -> None:
    one, two = launch(), launch()
    for name in (one, two):
        daemon.address(name)
    for target in (f"{two}.lxpy", two, "_gateway", "_gateway.lxpy"):
        assert pings(daemon, one, target), target
    assert daemon.address(two) in daemon.out(one, "nslookup", f"{two}.lxpy")
    assert daemon.exec(one, "nslookup", "nobody.lxpy", check=False).returncode != 0


def test_static_address(daemon: Daemon, launch: Launch, network: str) -> None:
    subnet = ipaddress.ip_interface(config(daemon, network)["ipv4.address"]).network
    wanted = str(subnet[77])
    name = launch(devices=card(network, ipv4__address=wanted))
    assert daemon.address(name) == wanted
    leases = daemon.api.get(f"/1.0/networks/{network}/leases")
    assert leases[0] == {
        "hostname": f"{network}.gw", "hwaddr": "", "address": str(subnet[1]), "type": "gateway",
        "location": "none",
    }  # fmt: skip
    (mine,) = [each for each in leases if each["address"] == wanted]
    assert mine["type"] == "static" and mine["hostname"] == name
    for address, text in ((wanted, "already defined"), ("192.0.2.200", "not within")):
        with pytest.raises(ApiError, match=text):
            launch(devices=card(network, ipv4__address=address))
    change(daemon, name, "stop")
    assert mine in daemon.api.get(f"/1.0/networks/{network}/leases"), "reserved while it is off"


def test_mac_and_address_survive_a_restart(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    address, hwaddr = daemon.address(name), daemon.state(name)["network"]["eth0"]["hwaddr"]
    for action in ("restart", "stop", "start"):
        change(daemon, name, action, force=True)
    assert daemon.address(name) == address
    assert daemon.state(name)["network"]["eth0"]["hwaddr"] == hwaddr


def test_addresses_of_instances_that_do_not_run(daemon: Daemon, tiny: str, network: str) -> None:
    """They are reserved; a copy may have one that is taken, until it starts."""
    address = str(ipaddress.ip_interface(config(daemon, network)["ipv4.address"]).network[77])
    one = create(daemon, tiny, devices=card(network, ipv4__address=address))

    hosts = daemon.directory / "networks" / network / "dnsmasq.hosts"

    def holders() -> list[str]:
        return [x.name.split(".")[0] for x in hosts.iterdir() if address in x.read_text()]

    assert holders() == [one]
    other = daemon.name()
    body = {"name": other, "source": {"type": "copy", "source": one}}
    daemon.api.post("/1.0/instances", body)
    assert holders() == [one]
    with pytest.raises(ApiError, match="already defined"):
        change(daemon, other, "start")
    assert daemon.status(other) == "Stopped"
    renamed = daemon.name()
    daemon.api.post(f"/1.0/instances/{one}", {"name": renamed})
    assert holders() == [renamed]
    daemon.delete(renamed)
    change(daemon, other, "start")
    assert daemon.address(other) == address and holders() == [other]


def test_nic_with_a_name_like_a_path(daemon: Daemon, launch: Launch, network: str) -> None:
    device = {**card(network)["eth0"], "name": "eth0"}
    name = launch(devices={"eth0": {"type": "none"}, "/some/nic:0": device})
    address = daemon.address(name)
    change(daemon, name, "restart", force=True)
    assert daemon.address(name) == address
    assert pings(daemon, name, gateway(daemon, network))


def test_a_deleted_instance_gives_its_address_back(daemon: Daemon, network: str) -> None:
    subnet = ipaddress.ip_interface(config(daemon, network)["ipv4.address"]).network
    few = f"{subnet[5]}-{subnet[6]}"
    daemon.api.patch(f"/1.0/networks/{network}", {"config": {"ipv4.dhcp.ranges": few}})
    for _ in range(4):
        name = create(daemon, "tiny", devices=card(network))
        change(daemon, name, "start")
        assert daemon.address(name) in (str(subnet[5]), str(subnet[6]))
        daemon.delete(name)
    assert len(daemon.api.get(f"/1.0/networks/{network}/leases")) == 1, "the gateway's"


def test_nic_added_and_removed_while_running(daemon: Daemon, launch: Launch, network: str) -> None:
    name = launch()
    first = daemon.address(name)
    more = {"eth1": {"type": "nic", "name": "eth1", "network": network}}
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": more})
    inside = daemon.out(name, "ls", "/sys/class/net").split()
    assert {"eth0", "eth1"} <= set(inside)
    assert daemon.state(name)["network"]["eth1"]["hwaddr"] in links_of(name, daemon)
    own = daemon.api.get(f"/1.0/instances/{name}")
    own["devices"].pop("eth1")
    daemon.api.put(f"/1.0/instances/{name}", own)
    assert "eth1" not in daemon.out(name, "ls", "/sys/class/net").split()
    assert not links([network]) and daemon.address(name) == first


def links_of(name: str, daemon: Daemon) -> str:
    return daemon.out(name, "ip", "link", "show", "dev", "eth1")


# -- filters and limits


@pytest.fixture
def sink(daemon: Daemon, network: str) -> Iterator[tuple[str, int]]:
    """A server on the network's gateway that swallows what it gets, and answers at its end."""
    server = socket.create_server((gateway(daemon, network), 0))
    server.settimeout(60)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    while connection.recv(1 << 16):
                        pass
                    connection.sendall(b"done\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    host, port = server.getsockname()
    yield host, port
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def seconds_to_send(daemon: Daemon, name: str, sink: tuple[str, int], kilobytes: int) -> float:
    host, port = sink
    command = f"dd if=/dev/zero bs=1k count={kilobytes} 2>/dev/null | nc {host} {port}"
    begin = time.monotonic()
    assert daemon.out(name, "sh", "-c", command) == "done"
    return time.monotonic() - begin


def test_egress_limit_changes_while_running(
    daemon: Daemon, launch: Launch, network: str, sink: tuple[str, int]
) -> None:
    name = launch(devices=card(network, limits__egress="8Mbit"))
    address = daemon.address(name)
    assert seconds_to_send(daemon, name, sink, 2048) > 1.0
    host_name = daemon.state(name)["network"]["eth0"]["host_name"]
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": card(network)})
    assert seconds_to_send(daemon, name, sink, 2048) < 1.0
    assert daemon.state(name)["network"]["eth0"]["host_name"] == host_name
    assert daemon.address(name) == address
    assert f"bridge lxpy_{network}" not in nft_tables()


def test_ingress_limit(daemon: Daemon, launch: Launch, network: str) -> None:
    name = launch(devices=card(network, limits__ingress="10Mbit"))
    host_name = daemon.state(name)["network"]["eth0"]["host_name"]
    shown = subprocess.run(
        ["tc", "qdisc", "show", "dev", host_name], capture_output=True, text=True, check=True
    ).stdout
    assert "tbf" in shown and "rate 10Mbit" in shown


def test_mac_filter(daemon: Daemon, launch: Launch, network: str) -> None:
    name = launch(devices=card(network, security__mac_filtering="true"))
    daemon.address(name)
    target = gateway(daemon, network)
    assert pings(daemon, name, target)
    own = daemon.state(name)["network"]["eth0"]["hwaddr"]
    daemon.out(name, "ip", "link", "set", "eth0", "address", "00:16:3e:ff:ff:01")
    assert not pings(daemon, name, target)
    daemon.out(name, "ip", "link", "set", "eth0", "address", own)
    assert pings(daemon, name, target)


def test_ipv4_filter(daemon: Daemon, launch: Launch, network: str) -> None:
    name = launch(devices=card(network, security__ipv4_filtering="true"))
    address, target = daemon.address(name), gateway(daemon, network)
    assert pings(daemon, name, target)
    spoofed = str(ipaddress.ip_address(address) + 1)
    daemon.out(name, "ip", "addr", "add", f"{spoofed}/24", "dev", "eth0")
    assert not pings(daemon, name, target, "-I", spoofed)
    assert pings(daemon, name, target, "-I", address)
    change(daemon, name, "restart", force=True)
    assert daemon.address(name) == address
    change(daemon, name, "stop")
    assert f"bridge lxpy_{network}" not in nft_tables()


def test_ipv6_filter(daemon: Daemon, launch: Launch, default: str) -> None:
    subnet = config(daemon, default)["ipv6.address"]
    if subnet == "none":
        pytest.skip("this host has no IPv6")
    name = launch(devices=card(default, security__ipv6_filtering="true"))
    address, target = daemon.address(name, family="inet6"), subnet.split("/")[0]
    processes.wait_until(lambda: pings(daemon, name, target, "-6"), 5, "an answer by IPv6")
    spoofed = str(ipaddress.ip_interface(subnet).network[0xBAD])
    daemon.out(name, "ip", "addr", "add", f"{spoofed}/64", "dev", "eth0")
    time.sleep(2)  # duplicate address detection
    assert not pings(daemon, name, target, "-6", "-I", spoofed)
    assert pings(daemon, name, target, "-6", "-I", address)


def test_a_managed_bridge_as_parent(daemon: Daemon, launch: Launch, network: str) -> None:
    """What older profiles have: nictype bridged and a parent, which is a network of ours."""
    wanted = str(ipaddress.ip_interface(config(daemon, network)["ipv4.address"]).network[99])
    nic = {"type": "nic", "nictype": "bridged", "parent": network, "name": "eth0"}
    name = launch(devices={"eth0": {**nic, "ipv4.address": wanted}})
    assert daemon.address(name) == wanted
    assert pings(daemon, name, f"{name}.lxpy")
    with pytest.raises(ApiError, match="already defined"):
        launch(devices=card(network, ipv4__address=wanted))
    leases = daemon.api.get(f"/1.0/networks/{network}/leases")
    assert [each["type"] for each in leases if each["address"] == wanted] == ["static"]


def test_isolated_ports(daemon: Daemon, launch: Launch, network: str) -> None:
    isolated = [launch(devices=card(network, security__port_isolation="true")) for _ in range(2)]
    plain = launch(devices=card(network))
    addresses = {name: daemon.address(name) for name in (*isolated, plain)}
    assert not pings(daemon, isolated[0], addresses[isolated[1]])
    assert pings(daemon, isolated[0], addresses[plain])
    assert pings(daemon, isolated[0], gateway(daemon, network))


# -- networks


def test_create_and_delete(daemon: Daemon) -> None:
    name = daemon.bridge_name()
    daemon.api.post("/1.0/networks", {"name": name, "description": "mine"})
    found = daemon.api.get(f"/1.0/networks/{name}")
    assert found["managed"] and found["type"] == "bridge" and found["status"] == "Created"
    assert found["description"] == "mine" and found["used_by"] == []
    assert found["config"]["ipv4.nat"] == "true"
    assert re.fullmatch(r"10\.\d+\.\d+\.1/24", found["config"]["ipv4.address"])
    state = daemon.api.get(f"/1.0/networks/{name}/state")
    assert state["state"] == "up" and state["type"] == "broadcast" and state["mtu"] == 1500
    assert state["bridge"]["stp"] is False and state["bridge"]["upper_devices"] == []
    gateway_address = found["config"]["ipv4.address"].split("/")[0]
    assert gateway_address in [each["address"] for each in state["addresses"]]
    assert f"inet lxpy_{name}" in nft_tables()
    assert processes.matching(f"{daemon.directory}/networks/{name}/")
    with pytest.raises(ApiError, match="already exists") as caught:
        daemon.api.post("/1.0/networks", {"name": name})
    assert caught.value.status == 400
    daemon.api.delete(f"/1.0/networks/{name}")
    assert not (LINKS / name).exists() and f"inet lxpy_{name}" not in nft_tables()
    assert not processes.matching(f"{daemon.directory}/networks/{name}/")
    assert not (daemon.directory / "networks" / name).exists()
    with pytest.raises(ApiError, match="Network not found"):
        daemon.api.get(f"/1.0/networks/{name}")


def test_in_use(daemon: Daemon, launch: Launch, network: str) -> None:
    name = launch(start=False, devices=card(network))
    assert daemon.api.get(f"/1.0/networks/{network}")["used_by"] == [f"/1.0/instances/{name}"]
    for call in (
        lambda: daemon.api.delete(f"/1.0/networks/{network}"),
        lambda: daemon.api.post(f"/1.0/networks/{network}", {"name": "other0"}),
    ):
        with pytest.raises(ApiError, match="The network is currently in use"):
            call()


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"name": "x" * 16}, "too long"),
        ({"name": "a/b"}, "contains invalid characters"),
        ({"name": "lo"}, "lo"),
        ({"name": "badnet0", "type": "ovn"}, "not supported"),
        ({"name": "badnet0", "config": {"no.such": "1"}}, "Invalid option"),
        ({"name": "badnet0", "config": {"ipv4.address": "x"}}, "Invalid value"),
        ({"name": "badnet0", "config": {"bridge.driver": "openvswitch"}}, "kernel's own kind only"),
    ],
)
def test_refused(daemon: Daemon, wish: dict[str, Any], text: str) -> None:
    with pytest.raises(ApiError, match=text):
        daemon.api.post("/1.0/networks", wish)
    assert not (LINKS / "badnet0").exists()


def test_the_hosts_interfaces(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    found = {each["name"]: each for each in daemon.api.get("/1.0/networks?recursion=1")}
    assert found["lo"]["type"] == "loopback" and not found["lo"]["managed"]
    assert found["lo"]["config"] == {} and found["lo"]["locations"] is None
    assert daemon.state(name)["network"]["eth0"]["host_name"] not in found
    with pytest.raises(ApiError, match="already exists"):
        daemon.api.post("/1.0/networks", {"name": next(n for n in found if n != "lo")})
    with pytest.raises(ApiError, match="Network not found"):
        daemon.api.delete("/1.0/networks/lo")


def test_free_subnets(daemon: Daemon) -> None:
    """Three networks that find their subnets themselves, beside all that the host routes."""
    taken = [ipaddress.ip_network(each) for each in host_routes()]
    names = [daemon.bridge_name() for _ in range(3)]
    try:
        for name in names:
            daemon.api.post("/1.0/networks", {"name": name, "config": {"ipv6.address": "none"}})
            own = ipaddress.ip_interface(config(daemon, name)["ipv4.address"]).network
            assert not any(own.overlaps(each) for each in taken)
            taken.append(own)
        clash = {"ipv4.address": config(daemon, names[0])["ipv4.address"], "ipv6.address": "none"}
        with pytest.raises(ApiError, match="overlaps"):
            daemon.api.post("/1.0/networks", {"name": "clash0", "config": clash})
    finally:
        for name in names:
            daemon.api.delete(f"/1.0/networks/{name}")


def host_routes() -> list[str]:
    listed = subprocess.run(["ip", "-4", "-j", "route"], capture_output=True, check=True).stdout
    return [each["dst"] for each in json.loads(listed) if each["dst"] != "default"]


def test_change_at_once(daemon: Daemon, launch: Launch, network: str) -> None:
    name = launch(devices=card(network))
    daemon.address(name)
    url = f"/1.0/networks/{network}"
    _, headers, _ = daemon.api.raw("GET", url)
    changes = {"config": {"dns.domain": "example", "ipv4.nat": "false"}}
    daemon.api.patch(url, changes)
    assert config(daemon, network)["dns.domain"] == "example"
    rules = subprocess.run(
        ["nft", "list", "table", "inet", f"lxpy_{network}"], capture_output=True, text=True
    ).stdout
    assert "masquerade" not in rules
    assert pings(daemon, name, gateway(daemon, network)), "the bridge has kept its ports"
    nslookup = ("nslookup", f"{name}.example", gateway(daemon, network))
    assert daemon.address(name) in daemon.out(name, *nslookup)
    status, _, _ = daemon.api.raw("PUT", url, changes, {"If-Match": headers["etag"]})
    assert status == 412
    with pytest.raises(ApiError, match="Invalid option"):
        daemon.api.patch(url, {"config": {"no.such": "1"}})


def test_put_replaces(daemon: Daemon) -> None:
    name = daemon.bridge_name()
    daemon.api.post("/1.0/networks", {"name": name})
    daemon.api.put(f"/1.0/networks/{name}", {"config": {"ipv6.address": "none"}})
    assert config(daemon, name) == {"ipv6.address": "none"}
    state = daemon.api.get(f"/1.0/networks/{name}/state")
    assert not [each for each in state["addresses"] if each["scope"] == "global"]
    daemon.api.put(f"/1.0/networks/{name}", {"config": {"ipv4.address": "auto"}})
    assert config(daemon, name)["ipv4.address"].startswith("10.")
    daemon.api.delete(f"/1.0/networks/{name}")


def test_rename(daemon: Daemon) -> None:
    old, new = daemon.bridge_name(), daemon.bridge_name()
    daemon.api.post("/1.0/networks", {"name": old, "config": {"ipv6.address": "none"}})
    before = config(daemon, old)
    daemon.api.post(f"/1.0/networks/{old}", {"name": new})
    assert config(daemon, new) == before
    assert (LINKS / new).exists() and not (LINKS / old).exists()
    assert f"inet lxpy_{old}" not in nft_tables()
    daemon.api.delete(f"/1.0/networks/{new}")


def test_dnsmasq_comes_back(daemon: Daemon, network: str) -> None:
    directory = f"{daemon.directory}/networks/{network}/"
    (pid,) = processes.matching(directory)
    os.kill(pid, signal.SIGKILL)
    processes.wait_until(
        lambda: processes.matching(directory).keys() - {pid}, 10, "another dnsmasq"
    )


def test_a_deleted_bridge_comes_back(daemon: Daemon, launch: Launch, network: str) -> None:
    """The next who needs it brings it up, with all that were on it."""
    one = launch(devices=card(network))
    address = daemon.address(one)
    subprocess.run(["ip", "link", "delete", network], check=True)
    two = launch(devices=card(network))
    assert daemon.address(two) != address
    assert pings(daemon, two, one) and pings(daemon, one, gateway(daemon, network))


def test_networks_outlive_the_daemon(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    name = own_daemon.bridge_name()
    own_daemon.api.post("/1.0/networks", {"name": name, "config": {"ipv6.address": "none"}})
    options = card(name, security__mac_filtering="true")
    one = create(own_daemon, "tiny", devices=options)
    change(own_daemon, one, "start")
    address = own_daemon.address(one)
    (dnsmasq,) = processes.matching(f"{own_daemon.directory}/networks/{name}/")
    own_daemon.kill()
    assert processes.alive(dnsmasq)
    subprocess.run(["nft", "delete", "table", "bridge", f"lxpy_{name}"], check=True)
    stray = subprocess.run(
        ["ip", "link", "add", "ltstray0", "type", "veth", "peer", "name", "ltstray1"]
    )
    assert stray.returncode == 0
    alias = f"{own_daemon.cgroup}:gone:eth0"
    subprocess.run(["ip", "link", "set", "ltstray0", "alias", alias], check=True)
    own_daemon.start()
    assert list(processes.matching(f"{own_daemon.directory}/networks/{name}/")) == [dnsmasq]
    assert own_daemon.address(one) == address
    assert pings(own_daemon, one, gateway(own_daemon, name))
    assert f"bridge lxpy_{name}" in nft_tables(), "filters are made good"
    assert not (LINKS / "ltstray0").exists(), "an interface of an ended instance"
    own_daemon.shutdown()
    assert not (LINKS / name).exists() and f"inet lxpy_{name}" not in nft_tables()
    own_daemon.start()
    own_daemon.wait_status(one, "Running")
    assert own_daemon.address(one) == address


# -- what a bridge can be told


def shown(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def patch(daemon: Daemon, network: str, **options: str) -> None:
    config = {key.replace("__", "."): value for key, value in options.items()}
    daemon.api.patch(f"/1.0/networks/{network}", {"config": config})


def test_nat_order_and_address(daemon: Daemon, network: str) -> None:
    table = ("nft", "list", "table", "inet", f"lxpy_{network}")
    patch(daemon, network, ipv4__nat="true", ipv4__nat__order="before")
    assert "srcnat - 1" in shown(*table) and "masquerade" in shown(*table)
    patch(daemon, network, ipv4__nat__order="after", ipv4__nat__address="198.18.0.9")
    assert "srcnat + 1" in shown(*table) and "snat ip to 198.18.0.9" in shown(*table)
    patch(daemon, network, ipv4__routing="false")
    assert "drop" in shown(*table)
    patch(daemon, network, ipv4__routing="true", ipv4__firewall="false")
    assert "accept\n" not in shown(*table).replace("policy accept;", "")


def test_dhcp_options(daemon: Daemon, launch: Launch, network: str) -> None:
    subnet = ipaddress.ip_interface(config(daemon, network)["ipv4.address"]).network
    patch(daemon, network, ipv4__dhcp__ranges=f"{subnet[50]}-{subnet[52]}",
          ipv4__dhcp__gateway=str(subnet[2]), ipv4__dhcp__expiry="30m", dns__search="lab,far.lab",
          ipv4__routes="198.18.20.0/24", raw__dnsmasq="txt-record=hello.lab,there",
          bridge__hwaddr="00:16:3e:77:77:77", bridge__mtu="1450")  # fmt: skip
    name = launch(devices=card(network))
    address = ipaddress.ip_address(daemon.address(name))
    assert subnet[50] <= address <= subnet[52]
    assert f"default via {subnet[2]}" in daemon.out(name, "ip", "route")
    lease = (daemon.directory / "networks" / network / "dnsmasq.leases").read_text()
    left_s = int(lease.split()[0]) - time.time()
    assert 1700 < left_s <= 1800
    assert "198.18.20.0/24" in shown("ip", "route", "show", "dev", network)
    assert (LINKS / network / "address").read_text().strip() == "00:16:3e:77:77:77"
    assert (LINKS / network / "mtu").read_text().strip() == "1450"
    assert daemon.state(name)["network"]["eth0"]["mtu"] == 1450
    found = daemon.out(name, "nslookup", "-type=txt", "hello.lab", gateway(daemon, network))
    assert "there" in found
    conf = (daemon.directory / "networks" / network / "dnsmasq.conf").read_text()
    assert "domain-search,lab,far.lab" in conf


def test_dns_modes(daemon: Daemon, launch: Launch, network: str) -> None:
    name = launch(devices=card(network))
    daemon.address(name)
    ask = ("nslookup", f"{name}.lxpy", gateway(daemon, network))
    assert daemon.exec(name, *ask, check=False).returncode == 0
    patch(daemon, network, dns__mode="none")
    assert daemon.exec(name, *ask, check=False).returncode != 0, "nobody answers"
    patch(daemon, network, dns__mode="dynamic", dns__domain="lab")
    change(daemon, name, "restart", force=True)
    daemon.address(name)
    ask = ("nslookup", f"{name}.lab", gateway(daemon, network))
    processes.wait_until(
        lambda: daemon.exec(name, *ask, check=False).returncode == 0, 10, "the name it has chosen"
    )


#: asks for an address on eth1 (RFC 8415: Solicit, client id of type 3, IA_NA), prints the offer
_SOLICIT = """
import socket, struct
hwaddr = bytes.fromhex("HWADDR")
client = struct.pack("!HHHH", 1, 10, 3, 1) + hwaddr
wanted = struct.pack("!HHIII", 3, 12, 1, 0, 0)
link = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
link.settimeout(2)
number = socket.if_nametoindex("eth1")
link.bind(("::", 546))
link.sendto(b"\\x01abc" + client + wanted, ("ff02::1:2", 547, 0, number))
answer = link.recv(2048)
place = answer.index(struct.pack("!H", 5) + struct.pack("!H", 24))
print(socket.inet_ntop(socket.AF_INET6, answer[place + 4 : place + 20]))
"""


def offered(ask: tuple[str, ...]) -> str:
    """The address that a DHCPv6 server offers, "" when it does not within two seconds."""
    return subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()


def test_stateful_ipv6(daemon: Daemon, launch: Launch) -> None:
    if not Path("/proc/sys/net/ipv6/conf").exists():
        pytest.skip("this host has no IPv6")
    network = daemon.bridge_name()
    options = {"ipv4.address": "none", "ipv6.address": "fd42:6:6:6::1/64", "ipv6.nat": "true",
               "ipv6.dhcp.stateful": "true", "ipv6.dhcp.expiry": "2h",
               "ipv6.dhcp.ranges": "fd42:6:6:6::50-fd42:6:6:6::60"}  # fmt: skip
    daemon.api.post("/1.0/networks", {"name": network, "config": options})
    # Its own DHCP client takes all addresses from eth0 again and again.
    name = launch(devices=card(network, name="eth1", ipv6__address="fd42:6:6:6::77"))
    hwaddr = daemon.state(name)["network"]["eth1"]["hwaddr"]
    ask = ("nsenter", f"--target={daemon.init_pid(name)}", "--net", sys.executable, "-c",
           _SOLICIT.replace("HWADDR", hwaddr.replace(":", "")))  # fmt: skip
    processes.wait_until(lambda: offered(ask), 30, "an offer by DHCPv6")
    assert ipaddress.ip_address(offered(ask)) == ipaddress.ip_address("fd42:6:6:6::77")
    static = [each for each in daemon.api.get(f"/1.0/networks/{network}/leases")
              if each["address"] == "fd42:6:6:6::77"]  # fmt: skip
    assert [each["type"] for each in static] == ["static"]
    daemon.delete(name)
    daemon.api.delete(f"/1.0/networks/{network}")


def test_external_interface(daemon: Daemon, launch: Launch, network: str) -> None:
    wire = Wire()
    try:
        patch(daemon, network, bridge__external_interfaces=f"{wire.near},ltnone9")
        assert links([network])[wire.near] == network
        name = launch(devices=card(network))
        daemon.address(name)
        far = str(ipaddress.ip_interface(config(daemon, network)["ipv4.address"]).ip + 200)
        wire.far("ip", "addr", "add", f"{far}/24", "dev", "far0")
        assert pings(daemon, name, far)
        patch(daemon, network, bridge__external_interfaces="")
        assert links()[wire.near] == ""
        subprocess.run(["ip", "addr", "add", "198.18.30.1/24", "dev", wire.near], check=True)
        with pytest.raises(ApiError, match="Only unconfigured network interfaces can be bridged"):
            patch(daemon, network, bridge__external_interfaces=wire.near)
        daemon.delete(name)
    finally:
        wire.remove()


def test_vxlan(daemon: Daemon, launch: Launch) -> None:
    """A guest reaches what is on the far end of a tunnel, over a wire that knows only its ends."""
    wire, network = Wire(), f"lv{os.getpid() % 10000}"
    daemon.bridges.add(network)
    subprocess.run(["ip", "addr", "add", "198.18.40.1/24", "dev", wire.near], check=True)
    wire.far("ip", "addr", "add", "198.18.40.2/24", "dev", "far0")
    try:
        options = {"ipv4.address": "198.18.41.1/24", "ipv6.address": "none",
                   "tunnel.t.protocol": "vxlan", "tunnel.t.local": "198.18.40.1",
                   "tunnel.t.remote": "198.18.40.2", "tunnel.t.id": "7"}  # fmt: skip
        daemon.api.post("/1.0/networks", {"name": network, "config": options})
        wire.far("ip", "link", "add", "vx0", "type", "vxlan", "id", "7", "local", "198.18.40.2",
                 "remote", "198.18.40.1", "dstport", "8472")  # fmt: skip
        wire.far("ip", "addr", "add", "198.18.41.200/24", "dev", "vx0")
        wire.far("ip", "link", "set", "vx0", "up", "mtu", "1400")
        name = launch(devices=card(network))
        daemon.address(name)
        assert daemon.state(name)["network"]["eth0"]["mtu"] == 1400
        assert pings(daemon, name, "198.18.41.200")
        index = (LINKS / f"{network}-t" / "ifindex").read_text()
        patch(daemon, network, ipv4__nat="true")
        assert (LINKS / f"{network}-t" / "ifindex").read_text() == index, "it is left alone"
        patch(daemon, network, tunnel__t__id="8")
        assert not pings(daemon, name, "198.18.41.200")
        daemon.delete(name)
    finally:
        daemon.api.delete(f"/1.0/networks/{network}")
        wire.remove()
    assert not (LINKS / f"{network}-t").exists()


def test_gre(daemon: Daemon) -> None:
    network = f"lg{os.getpid() % 10000}"
    daemon.bridges.add(network)
    options = {"ipv4.address": "none", "ipv6.address": "none", "tunnel.t.protocol": "gre",
               "tunnel.t.local": "198.18.40.1", "tunnel.t.remote": "198.18.40.2"}  # fmt: skip
    try:
        daemon.api.post("/1.0/networks", {"name": network, "config": options})
    except ApiError as error:
        assert "kernel lacks a module" in str(error), error
    else:
        assert (LINKS / f"{network}-t").exists()
        daemon.api.delete(f"/1.0/networks/{network}")
    assert not (LINKS / network).exists() and not (LINKS / f"{network}-t").exists()
