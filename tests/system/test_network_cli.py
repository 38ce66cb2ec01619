"""`lxpy network`, `network forward` and `network acl`: as `lxc` prints it, with its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.support.daemon import Daemon
from tests.support.fixtures import have_lxc


@pytest.fixture
def network(daemon: Daemon) -> Iterator[str]:
    name = daemon.bridge_name()
    daemon.lxpy("network", "create", name, "ipv4.address=198.19.30.1/24", "ipv6.address=none")
    yield name
    daemon.lxpy("network", "delete", name)
    daemon.bridges.discard(name)


def same(daemon: Daemon, *words: str) -> str:
    """What `lxpy` prints, which must be what `lxc` prints.

    Several tries: other interfaces of the host come and go, packets are counted.
    """
    mine = theirs = ""
    for _ in range(5):
        mine = daemon.lxpy(*words).stdout
        theirs = daemon.lxc(*words).stdout if have_lxc() else mine
        if words[-1] in ("json", "yaml"):  # the order in maps and of lists is nobody's promise
            mine, theirs = _sorted(mine), _sorted(theirs)
        if mine == theirs:
            break
    assert mine == theirs
    return mine


def _sorted(text: str) -> str:
    found = yaml.load(text, yaml.BaseLoader)  # times stay text
    return json.dumps(
        sorted(found, key=lambda each: json.dumps(each, sort_keys=True)), sort_keys=True
    )


def refused(daemon: Daemon, *words: str) -> str:
    done = daemon.lxpy(*words, check=False)
    assert done.returncode == 1, done.stdout
    return done.stderr


def test_forward(daemon: Daemon, network: str) -> None:
    noun = ("network", "forward")
    on = (network, "198.19.31.1")
    assert daemon.lxpy(*noun, "create", *on, "user.x=1").stdout == (
        "Network forward 198.19.31.1 created\n"
    )
    daemon.lxpy(*noun, "set", *on, "target_address=198.19.30.9")
    daemon.lxpy(*noun, "port", "add", *on, "tcp", "80,443", "198.19.30.9", "8080,8443")
    daemon.lxpy(*noun, "port", "add", *on, "udp", "53", "198.19.30.9")
    for form in ("table", "csv", "json", "yaml", "compact"):
        same(daemon, *noun, "list", network, "--format", form)
    assert "listen_port: 80,443" in same(daemon, *noun, "show", *on)
    assert same(daemon, *noun, "get", *on, "user.x") == "1\n"
    assert "No matching port(s) found" in refused(daemon, *noun, "port", "remove", *on, "tcp", "1")
    assert "Multiple ports match. Use --force" in refused(daemon, *noun, "port", "remove", *on)
    daemon.lxpy(*noun, "port", "remove", *on, "udp")
    text = daemon.lxpy(*noun, "show", *on).stdout.replace('description: ""', "description: mine")
    daemon.lxpy(*noun, "edit", *on, input=text)
    daemon.lxpy(*noun, "unset", *on, "user.x")
    assert same(daemon, *noun, "list", network, "-f", "csv") == "198.19.31.1,mine,198.19.30.9,1\n"
    assert daemon.lxpy(*noun, "rm", *on).stdout == "Network forward 198.19.31.1 deleted\n"
    assert "Network forward not found" in refused(daemon, *noun, "show", *on)


def test_acl(daemon: Daemon, network: str) -> None:
    noun = ("network", "acl")
    assert daemon.lxpy(*noun, "create", "cli", "user.x=1").stdout == "Network ACL cli created\n"
    add = (*noun, "rule", "add", "cli")
    daemon.lxpy(*add, "ingress", "action=allow", "protocol=tcp", "destination_port=80")
    daemon.lxpy(*add, "ingress", "action=allow", "protocol=tcp", "destination_port=443")
    daemon.lxpy(*add, "egress", "action=drop", "state=logged", "destination=198.19.32.0/24")
    assert "Unknown key: foo" in refused(daemon, *add, "egress", "foo=1")
    assert "one of: ingress, egress" in refused(daemon, *add, "up", "action=drop")
    daemon.lxpy("network", "set", network, "security.acls=cli")
    for form in ("table", "csv", "json", "yaml"):
        same(daemon, *noun, "list", "--format", form)
    same(daemon, *noun, "show", "cli")
    assert same(daemon, *noun, "show-log", "cli") == ""
    remove = (*noun, "rule", "remove", "cli", "ingress")
    assert "Multiple rules match. Use --force" in refused(daemon, *remove, "protocol=tcp")
    daemon.lxpy(*remove, "destination_port=80")
    daemon.lxpy(*remove, "--force")
    daemon.lxpy("network", "unset", network, "security.acls")
    assert daemon.lxpy(*noun, "mv", "cli", "cli2").stdout == "Network ACL cli renamed to cli2\n"
    assert daemon.lxpy(*noun, "delete", "cli2").stdout == "Network ACL cli2 deleted\n"


def test_network(daemon: Daemon, network: str) -> None:
    for verb in ("show", "info", "list-leases"):
        same(daemon, "network", verb, network)
    for form in ("table", "csv", "json", "yaml", "compact"):
        same(daemon, "network", "list", "--format", form)
    same(daemon, "network", "info", "lo")


def test_what_is_not_there(daemon: Daemon) -> None:
    for noun, name in (("zone", "network_dns"), ("peer", "network_peer")):
        for words in (("list",), ("create", "x", "--target", "y"), ("show", "a", "b")):
            assert f'missing the required "{name}" API' in refused(daemon, "network", noun, *words)
