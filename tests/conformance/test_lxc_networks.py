"""LXD's client: networks of every type, forwards, ACLs, nics."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc
from tests.support.wires import LINKS, Wire

NET = "lxconf2"


@pytest.fixture(scope="module")
def network(lxc: Lxc) -> Iterator[str]:
    lxc("network", "create", NET, "ipv4.address=198.19.9.1/24", "ipv6.address=none")
    yield NET
    lxc("network", "delete", NET)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.remove()


def test_forwards(lxc: Lxc, network: str) -> None:
    address = "198.19.8.1"
    on = (network, address)
    assert f"Network forward {address} created" in lxc("network", "forward", "create", *on)
    assert "already exists" in lxc.refused("network", "forward", "create", *on)
    assert "within the network subnet" in lxc.refused(
        "network", "forward", "set", *on, "target_address=10.1.5.5"
    )
    assert 'Invalid option "foo"' in lxc.refused("network", "forward", "set", *on, "foo=1")
    lxc("network", "forward", "set", *on, "target_address=198.19.9.5")
    lxc("network", "forward", "set", *on, "user.x=1")
    add = ("network", "forward", "port", "add", *on)
    lxc(*add, "tcp", "80,90-92", "198.19.9.6", "8080,8090-8092")
    assert 'Duplicate listen port 91 for protocol "tcp"' in lxc.refused(
        *add, "tcp", "91", "198.19.9.6"
    )
    lxc(*add, "tcp", "100-102", "198.19.9.6", "80")
    assert "Mismatch of listen port(s)" in lxc.refused(
        *add, "udp", "100-102", "198.19.9.6", "80-81"
    )
    assert lxc("network", "forward", "list", network, "-f", "csv") == f"{address},,198.19.9.5,2\n"
    assert lxc("network", "forward", "get", *on, "user.x").strip() == "1"
    text = lxc("network", "forward", "show", *on)
    lxc("network", "forward", "edit", *on, input=text.replace('description: ""', "description: a"))
    assert "description: a" in lxc("network", "forward", "show", *on)
    remove = ("network", "forward", "port", "remove", *on)
    assert "No matching port(s) found" in lxc.refused(*remove, "tcp", "80")
    assert "Use --force" in lxc.refused(*remove)
    lxc(*remove, "--force")
    lxc("network", "forward", "unset", *on, "user.x")
    lxc("network", "forward", "delete", *on)
    assert "Network forward not found" in lxc.refused("network", "forward", "show", *on)


def test_acls(lxc: Lxc, network: str) -> None:
    acl = ("network", "acl")
    assert "Network ACL web created" in lxc(*acl, "create", "web", "user.x=1")
    try:
        assert "already exists" in lxc.refused(*acl, "create", "web")
        assert "alphanumeric and hyphen" in lxc.refused(*acl, "create", "a b")
        add = (*acl, "rule", "add", "web")
        lxc(*add, "ingress", "action=allow", "protocol=tcp", "destination_port=80,443",
            "source=10.0.0.0/8,1.2.3.4", "description=x")  # fmt: skip
        lxc(*add, "egress", "action=drop", "state=logged", "protocol=icmp4", "icmp_type=8")
        assert "Invalid egress rule 1: Action must be one of: allow, drop, reject" in lxc.refused(
            *add, "egress", "action=foo"
        )
        assert 'Invalid Source: Invalid subject "abc!"' in lxc.refused(
            *add, "egress", "action=allow", "source=abc!"
        )
        shown = lxc(*acl, "show", "web")
        assert '- action: drop\n  protocol: icmp4\n  icmp_type: "8"\n  state: logged\n' in shown
        assert "used_by: []" in shown
        assert "does not exist" in lxc.refused("network", "set", network, "security.acls=nope")
        lxc("network", "set", network, "security.acls=web")
        assert f"- /1.0/networks/{network}" in lxc(*acl, "show", "web")
        assert lxc(*acl, "list", "-f", "csv") == "web,,1\n"
        assert "Cannot delete an ACL that is in use" in lxc.refused(*acl, "delete", "web")
        lxc("network", "unset", network, "security.acls")
        lxc(*acl, "rename", "web", "web2")
        lxc(*acl, "rename", "web2", "web")
        assert lxc(*acl, "get", "web", "user.x").strip() == "1"
        assert "No matching rule(s)" in lxc.refused(
            *acl, "rule", "remove", "web", "egress", "state=x"
        )
        lxc(*acl, "rule", "remove", "web", "egress", "action=drop")
    finally:
        lxc("network", "acl", "delete", "web")


def test_other_types(lxc: Lxc, wire: Wire) -> None:
    assert 'option "parent": Required value' in lxc.refused(
        "network", "create", "lxconf3", "--type=macvlan"
    )
    for kind in ("macvlan", "physical"):
        lxc("network", "create", "lxconf3", f"--type={kind}", f"parent={wire.near}")
        assert f"lxconf3,{kind},YES" in lxc("network", "list", "-f", "csv")
        lxc("network", "rename", "lxconf3", "lxconf4")
        lxc("network", "delete", "lxconf4")
    assert "not supported" in lxc.refused("network", "create", "lxconf3", "--type=ovn")
    lxc.refused("network", "zone", "list")
    lxc.refused("network", "peer", "list", "lo")


def test_nics(lxc: Lxc, instance: Callable[..., str], network: str, wire: Wire) -> None:
    name = instance("carded", "-n", network)
    add = ("config", "device", "add", name)
    lxc(*add, "eth1", "nic", "nictype=macvlan", f"parent={wire.near}", "name=eth1")
    lxc(*add, "eth2", "nic", "nictype=p2p", "name=eth2", "ipv4.routes=198.19.7.0/24")
    lxc("config", "device", "set", name, "eth2", "limits.ingress=10Mbit")
    links = lxc("exec", name, "--", "ls", "/sys/class/net").split()
    assert {"eth0", "eth1", "eth2"} <= set(links)
    assert "already used on network" in lxc.refused(*add, "eth3", "nic", f"network={network}")
    lxc("config", "device", "remove", name, "eth1", "eth2")
    lxc(*add, "eth1", "nic", "nictype=physical", f"parent={wire.near}", "name=eth1")
    assert not (LINKS / wire.near).exists()
    lxc("stop", "--force", name)
    assert (LINKS / wire.near).exists()
    lxc("delete", name)


def test_set_and_unset(lxc: Lxc, network: str) -> None:
    lxc("network", "set", network, "ipv4.dhcp.ranges=198.19.9.50-198.19.9.60", "user.a=b")
    assert lxc("network", "get", network, "user.a") == "b\n"
    lxc("network", "unset", network, "user.a")
    text = lxc("network", "show", network)
    assert "ipv4.dhcp.ranges: 198.19.9.50-198.19.9.60" in text
    edited = text.replace("198.19.9.50-", "198.19.9.40-")
    lxc("network", "edit", network, input=edited)
    assert "198.19.9.40-" in lxc("network", "show", network)
    info = lxc("network", "info", network)
    for line in ("MTU: 1500", "State: up", "  Upper devices: ", "Bridge:"):
        assert line in info
    assert "GATEWAY" in lxc("network", "list-leases", network)
    assert subprocess.run(["ip", "link", "show", network], capture_output=True).returncode == 0


def test_client_suite(lxd_directory: Path) -> None:
    """The checks of networks and nics of a script that drives any LXD: SCRIPT LXD_DIR -k REGEX."""
    script = os.environ.get("LXC_CLIENT_SUITE")
    if not script:
        pytest.skip("needs LXC_CLIENT_SUITE, the path of the script")
    words = [script, lxd_directory, "-k", "network|nic"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
