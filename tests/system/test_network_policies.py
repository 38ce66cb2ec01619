"""Forwards and ACLs: what passes a network and what does not, by real connections."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon, nft_tables
from tests.support.fixtures import Launch
from tests.support.wires import Wire

GATEWAY, SUBNET = "198.19.1.1", "198.19.1.0/24"
GUEST = "198.19.1.7"
LISTEN = "198.19.2.1"


@pytest.fixture
def wire(daemon: Daemon) -> Iterator[Wire]:
    """A world outside, 198.19.2.2, to which the host is 198.19.2.1."""
    made = Wire()
    subprocess.run(["ip", "addr", "add", f"{LISTEN}/24", "dev", made.near], check=True)
    made.far("ip", "addr", "add", "198.19.2.2/24", "dev", "far0")
    made.far("ip", "route", "add", "default", "via", LISTEN)
    yield made
    made.remove()


@pytest.fixture
def network(daemon: Daemon) -> Iterator[str]:
    """A network without NAT, so that the world sees guests as they are."""
    name = daemon.bridge_name()
    config = {"ipv4.address": f"{GATEWAY}/24", "ipv4.nat": "false", "ipv6.address": "none"}
    daemon.api.post("/1.0/networks", {"name": name, "config": config})
    yield name
    for instance in daemon.instances():
        if name in json.dumps(daemon.api.get(f"/1.0/instances/{instance}")["expanded_devices"]):
            daemon.delete(instance)
    daemon.api.delete(f"/1.0/networks/{name}")
    daemon.bridges.discard(name)


@pytest.fixture
def guest(daemon: Daemon, launch: Launch, network: str) -> str:
    """An instance that says its name and "port NUMBER" on ports 8080 to 8082."""
    nic = {"type": "nic", "name": "eth0", "network": network, "ipv4.address": GUEST}
    name = launch(devices={"eth0": nic})
    daemon.address(name)
    for port in (8080, 8081, 8082):
        words = f"nc -ll -p {port} -e echo port {port} >/dev/null 2>&1 </dev/null &"
        daemon.out(name, "sh", "-c", words)
    return name


def said(run: Callable[..., str], address: str, port: int) -> str:
    """What a port says to a connection; "" when there is none within two seconds."""
    return run("busybox", "nc", "-w", "2", address, str(port), check=False, input="").strip()


def soon(run: Callable[..., str], address: str, port: int, text: str) -> None:
    processes.wait_until(lambda: said(run, address, port) == text, 10, f"{address}:{port} {text}")


def here(*words: str, check: bool = True, **options: str) -> str:
    return subprocess.run(words, check=check, capture_output=True, text=True, **options).stdout  # type: ignore[call-overload,no-any-return]


# -- forwards


def test_forward(daemon: Daemon, guest: str, network: str, wire: Wire) -> None:
    path = f"/1.0/networks/{network}/forwards"
    ports = [
        {"protocol": "tcp", "listen_port": "80,81", "target_port": "8080,8081",
         "target_address": GUEST},
        {"protocol": "tcp", "listen_port": "8082", "target_address": GUEST, "description": "same"},
    ]  # fmt: skip
    daemon.api.post(path, {"listen_address": LISTEN, "ports": ports})
    assert daemon.api.get(path) == [f"{path}/{LISTEN}"]
    soon(wire.far, LISTEN, 80, "port 8080")
    assert said(wire.far, LISTEN, 81) == "port 8081" and said(wire.far, LISTEN, 8082) == "port 8082"
    assert said(here, LISTEN, 80) == "port 8080", "from the host itself"
    own = lambda *words, **options: daemon.exec(guest, *words[1:], **options).stdout  # noqa: E731
    assert said(own, LISTEN, 80) == "port 8080", "from the guest itself"
    found = daemon.api.get(f"{path}/{LISTEN}")
    assert found == {
        "listen_address": LISTEN, "description": "", "config": {}, "location": "none",
        "ports": [{"description": "", "target_port": "", **each} for each in ports],
    }  # fmt: skip
    daemon.api.patch(f"{path}/{LISTEN}", {"config": {"target_address": GUEST}, "ports": []})
    assert said(wire.far, LISTEN, 80) == "" and said(wire.far, LISTEN, 8081) == "port 8081"
    with pytest.raises(ApiError, match="A forward for that listen address already exists"):
        daemon.api.post(path, {"listen_address": LISTEN})
    with pytest.raises(ApiError, match="Network forward .* does not fit"):
        daemon.api.patch(f"/1.0/networks/{network}", {"config": {"ipv4.address": "10.99.1.1/24"}})
    _, headers, _ = daemon.api.raw("GET", f"{path}/{LISTEN}")
    daemon.api.put(f"{path}/{LISTEN}", {"description": "other"})
    status, _, _ = daemon.api.raw("PUT", f"{path}/{LISTEN}", {}, {"If-Match": headers["etag"]})
    assert status == 412 and said(wire.far, LISTEN, 8081) == ""
    daemon.api.delete(f"{path}/{LISTEN}")
    assert daemon.api.get(path) == []
    with pytest.raises(ApiError, match="Network forward not found"):
        daemon.api.delete(f"{path}/{LISTEN}")
    with pytest.raises(ApiError, match="does not support peering"):
        daemon.api.get(f"/1.0/networks/{network}/peers")


@pytest.fixture
def firewall_of_others() -> Iterator[None]:
    """Somebody else's rules: they drop what they do not know between the interfaces of a test."""
    rules = """
    table inet ltfw {
        chain rest { ct state established accept; drop; }
        chain forward {
            type filter hook forward priority 0; policy accept;
            iifname "ltw*" jump rest
            oifname "ltw*" jump rest
        }
    }"""
    subprocess.run(["nft", "-f", "-"], input=rules.encode(), check=True)
    yield
    subprocess.run(["nft", "delete", "table", "inet", "ltfw"], check=True)


def test_rules_of_others_stay(
    daemon: Daemon, network: str, wire: Wire, firewall_of_others: None
) -> None:
    before = here("nft", "list", "table", "inet", "ltfw")
    path = f"/1.0/networks/{network}/forwards"
    daemon.api.post(path, {"listen_address": LISTEN, "config": {"target_address": GUEST}})
    daemon.api.patch(f"/1.0/networks/{network}", {"config": {"ipv4.nat": "true"}})
    assert here("nft", "list", "table", "inet", "ltfw") == before


def test_rules_outlive_the_daemon(daemon: Daemon, network: str, acl: str) -> None:
    path = f"/1.0/networks/{network}/forwards"
    daemon.api.post(path, {"listen_address": LISTEN, "config": {"target_address": GUEST}})
    daemon.api.patch(f"/1.0/networks/{network}", {"config": {"security.acls": acl}})
    rules = here("nft", "list", "table", "inet", f"lxpy_{network}")
    assert "jump acls" in rules
    assert f"dnat ip to {GUEST}" in rules
    daemon.kill()
    subprocess.run(["nft", "delete", "table", "inet", f"lxpy_{network}"], check=True)
    daemon.start()
    processes.wait_until(lambda: f"inet lxpy_{network}" in nft_tables(), 10, "its table")
    assert here("nft", "list", "table", "inet", f"lxpy_{network}") == rules


# -- ACLs


@pytest.fixture
def acl(daemon: Daemon) -> Iterator[str]:
    name = f"t{daemon.name('acl')}"
    daemon.api.post("/1.0/network-acls", {"name": name})
    yield name
    for each in daemon.api.get("/1.0/networks?recursion=1"):
        if each["config"].get("security.acls"):
            daemon.api.patch(f"/1.0/networks/{each['name']}", {"config": {"security.acls": ""}})
    with contextlib.suppress(ApiError):
        daemon.api.delete(f"/1.0/network-acls/{name}")


def test_acl(daemon: Daemon, guest: str, network: str, wire: Wire, acl: str) -> None:
    path = f"/1.0/network-acls/{acl}"
    soon(wire.far, GUEST, 8080, "port 8080")
    own = lambda *words, **options: daemon.exec(guest, *words[1:], **options).stdout  # noqa: E731
    server = subprocess.Popen(
        [*wire.popen_words("busybox", "nc"), "-ll", "-p", "99", "-e", "echo", "far"]
    )
    try:
        soon(own, "198.19.2.2", 99, "far")
        daemon.api.patch(f"/1.0/networks/{network}", {"config": {"security.acls": acl}})
        assert daemon.api.get(path)["used_by"] == [f"/1.0/networks/{network}"]
        assert said(wire.far, GUEST, 8080) == "" and said(own, "198.19.2.2", 99) == ""
        ingress = [{"action": "allow", "protocol": "tcp", "destination_port": "8080-8081",
                    "source": "198.19.2.0/24", "state": "enabled"},
                   {"action": "drop", "protocol": "tcp", "destination_port": "8081",
                    "state": "logged"}]  # fmt: skip
        egress = [{"action": "allow", "destination": "198.19.2.2"}]
        daemon.api.put(path, {"ingress": ingress, "egress": egress})
        assert said(wire.far, GUEST, 8080) == "port 8080" and said(own, "198.19.2.2", 99) == "far"
        assert said(wire.far, GUEST, 8081) == "", "drop comes before allow"
        assert said(wire.far, GUEST, 8082) == ""
        assert said(here, GUEST, 8080) == "", "the host is no exception"
        _, _, log = daemon.api.raw("GET", f"{path}/log")
        assert '"dst_port": "8081"' in str(log), log
        daemon.api.patch(path, {"egress": []})
        assert said(own, "198.19.2.2", 99) == ""
        assert daemon.out(guest, "nslookup", f"{guest}.lxpy", GATEWAY), "DNS always works"
    finally:
        server.kill()
        server.wait()


def test_acl_in_use(daemon: Daemon, network: str, acl: str) -> None:
    url = f"/1.0/networks/{network}"
    with pytest.raises(ApiError, match='Network ACL "none" does not exist'):
        daemon.api.patch(url, {"config": {"security.acls": f"{acl},none"}})
    daemon.api.patch(url, {"config": {"security.acls": acl}})
    with pytest.raises(ApiError, match="Cannot delete an ACL that is in use"):
        daemon.api.delete(f"/1.0/network-acls/{acl}")
    with pytest.raises(ApiError, match="Cannot rename an ACL that is in use"):
        daemon.api.post(f"/1.0/network-acls/{acl}", {"name": "other"})
    subject = {"ingress": [{"action": "allow", "source": "other"}]}
    with pytest.raises(ApiError, match='Invalid subject "other"'):
        daemon.api.put(f"/1.0/network-acls/{acl}", subject)
    daemon.api.post("/1.0/network-acls", {"name": "other"})
    with pytest.raises(ApiError, match='Unsupported nftables subject "other"'):
        daemon.api.put(f"/1.0/network-acls/{acl}", subject)
    assert daemon.api.get(f"/1.0/network-acls/{acl}")["ingress"] == []
    daemon.api.patch(url, {"config": {"security.acls": ""}})
    daemon.api.put(f"/1.0/network-acls/{acl}", subject)
    with pytest.raises(ApiError, match="Unsupported nftables subject"):
        daemon.api.patch(url, {"config": {"security.acls": acl}})
    daemon.api.post(f"/1.0/network-acls/{acl}", {"name": f"{acl}x"})
    assert f"/1.0/network-acls/{acl}x" in daemon.api.get("/1.0/network-acls")
    daemon.api.delete(f"/1.0/network-acls/{acl}x")
    daemon.api.delete("/1.0/network-acls/other")
