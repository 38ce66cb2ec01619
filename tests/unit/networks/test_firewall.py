"""The rules of a network and of its interfaces, and what others' chains ask for."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from lxpy.networks import firewall, linkrules, xtables
from lxpy.networks.acls import Acl, Rule
from lxpy.networks.firewall import Allowed, Foreign, ForeignChain
from lxpy.networks.forwards import Forward
from lxpy.networks.keys import Bridge
from lxpy.networks.nic import Nic
from lxpy.networks.policy import Policy

CONFIG = {"ipv4.address": "10.1.1.1/24", "ipv4.nat": "true", "ipv6.address": "none"}
FORWARD = ForeignChain("inet", "firewalld", "filter_FORWARD", "forward")
INPUT = ForeignChain("inet", "firewalld", "filter_INPUT", "input")


def nic(kind: str = "bridged", **options: str) -> Nic:
    given = {key.replace("__", "."): value for key, value in options.items()}
    return Nic("c1", "c1", "eth0", "eth0", "00:16:3e:00:00:01", kind, options=given)


def test_bridge_rules() -> None:
    rules = firewall.bridge_rules(Bridge("br0", CONFIG))
    assert rules.startswith("add table inet lxpy_br0\ndelete table inet lxpy_br0\n")
    assert 'iifname "br0" udp dport { 53, 67 } accept' in rules
    assert "ip saddr 10.1.1.0/24 ip daddr != 10.1.1.0/24 masquerade" in rules
    assert "ip6" not in rules and "547" not in rules


@pytest.mark.parametrize(
    ("more", "inside", "outside"),
    [
        ({"ipv4.nat": "false"}, "accept", "masquerade"),
        ({"ipv4.nat.address": "192.0.2.9"}, "snat ip to 192.0.2.9", "masquerade"),
        ({"ipv4.nat.order": "after"}, "priority 101", "priority 99"),
        ({"ipv4.firewall": "false"}, "masquerade", "dport"),
        ({"ipv4.routing": "false"}, 'oifname != "br0" meta nfproto ipv4 drop', "nfproto ipv4 acc"),
        ({"ipv6.address": "fd42::1/64", "ipv6.nat": "true"}, "ip6 saddr fd42::/64", "snat"),
    ],
)
def test_bridge_options(more: dict[str, str], inside: str, outside: str) -> None:
    rules = firewall.bridge_rules(Bridge("br0", {**CONFIG, **more}))
    assert inside in rules
    assert outside not in rules.replace("tcp dport", "") or outside == "masquerade"


def ruleset(*items: dict[str, Any]) -> bytes:
    return json.dumps({"nftables": [{"metainfo": {}}, *items]}).encode()


def chain(table: str, name: str, hook: str, policy: str, family: str = "inet") -> dict[str, Any]:
    base = {"type": "filter", "hook": hook, "prio": 0, "policy": policy}
    return {"chain": {"family": family, "table": table, "name": name, **base}}


def rule(table: str, name: str, *expr: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"family": "inet", "table": table, "chain": name, "handle": 7, "expr": list(expr)}
    return {"rule": {**base, **more}}


@pytest.mark.parametrize(
    ("items", "names"),
    [
        ([chain("t", "f", "forward", "drop")], ["f"]),
        ([chain("t", "f", "forward", "accept")], []),
        ([chain("t", "f", "output", "drop")], []),
        ([chain("t", "f", "forward", "drop", "bridge")], []),
        ([chain("lxpy_other", "forward", "forward", "drop")], []),
        ([chain("t", "i", "input", "accept"), rule("t", "i", {"drop": None})], ["i"]),
        ([chain("t", "i", "input", "accept"),
          rule("t", "i", {"counter": {}}, {"reject": {"type": "icmpx"}})], ["i"]),
        ([chain("t", "i", "input", "accept"),
          rule("t", "i", {"match": {"op": "=="}}, {"drop": None})], []),
        ([chain("t", "i", "input", "accept"), rule("t", "i", {"jump": {"target": "x"}})], []),
    ],
)  # fmt: skip
def test_chains_that_drop(items: list[dict[str, Any]], names: list[str]) -> None:
    found = firewall.find_foreign(ruleset(*items), "br0")
    assert [each.name for each in found.chains] == names


def test_our_rules_are_found_by_their_comment() -> None:
    items = [
        chain("t", "f", "forward", "drop"),
        rule("t", "f", {"accept": None}, comment="lxpy br0"),
        rule("t", "f", {"accept": None}, comment="lxpy br00"),
    ]
    assert firewall.find_foreign(ruleset(*items), "br0").ours == (("inet", "t", "f", 7),)
    assert firewall.find_foreign(b"", "br0") == Foreign()


def test_accepts() -> None:
    foreign = Foreign((FORWARD, INPUT), (("inet", "firewalld", "filter_FORWARD", 9),))
    lines = list(firewall.accepts(Bridge("br0", CONFIG), foreign))
    assert lines[0] == "delete rule inet firewalld filter_FORWARD handle 9"
    assert (
        'insert rule inet firewalld filter_FORWARD oifname "br0" meta nfproto ipv4 '
        'ct state established,related accept comment "lxpy br0"'
    ) in lines
    assert sum("filter_INPUT" in line for line in lines) == 3
    assert not any("ipv6" in line for line in lines)


def test_accepts_of_routed_guests_and_of_none() -> None:
    foreign = Foreign((FORWARD,))
    routed = [IPv4Network("198.51.100.0/28")]
    open_ = list(firewall.accepts(Bridge("br0", CONFIG), foreign, routed))
    assert not any("ct state" in line for line in open_)
    closed = Bridge("br0", {**CONFIG, "ipv4.firewall": "false"})
    assert not list(firewall.accepts(closed, foreign))


def test_accepts_of_forwards() -> None:
    foreign = Foreign((FORWARD, INPUT))
    plain = list(firewall.accepts(Bridge("br0", CONFIG), foreign))
    lines = list(firewall.accepts(Bridge("br0", CONFIG), foreign, forwarded={4}))
    (more,) = set(lines) - set(plain)
    assert more == (
        'insert rule inet firewalld filter_FORWARD oifname "br0" meta nfproto ipv4 '
        'ct status dnat accept comment "lxpy br0"'
    )


def test_rules_of_links() -> None:
    assert linkrules.rules_of(nic(kind="p2p")) == []
    assert len(linkrules.rules_of(nic(kind="routed"))) == 2
    rules = linkrules.rules_of(nic(kind="p2p", limits__max="10Mbit", limits__priority="65543"))
    assert rules == [
        "meta priority set 1:7", "limit rate over 1250000 bytes/second burst 125000 bytes drop"
    ]  # fmt: skip


def test_policy_in_the_table() -> None:
    forward = Forward("192.0.2.1", config={"target_address": "10.1.1.9"})
    policy = Policy((forward,), (Acl("web", ingress=(Rule("allow", source="192.0.2.0/24"),)),))
    text = firewall.bridge_rules(Bridge("br0", CONFIG), policy)
    assert "ip daddr 192.0.2.1 dnat ip to 10.1.1.9" in text
    assert 'oifname "br0" ip saddr { 192.0.2.0/24 } accept' in text and "jump acls" in text
    assert "dnat" not in firewall.bridge_rules(Bridge("br0", CONFIG))
    assert "acls" not in firewall.bridge_rules(Bridge("br0", CONFIG), Policy())


def test_nic_rules() -> None:
    assert not firewall.needs_rules(nic())
    assert not firewall.needs_rules(nic(limits__ingress="10Mbit"))
    assert firewall.needs_rules(nic(limits__egress="10Mbit"))
    rules = firewall.nic_rules(nic(limits__max="10Mbit"), Allowed())
    assert rules == ["limit rate over 1250000 bytes/second burst 125000 bytes drop"]
    rules = firewall.nic_rules(nic(security__mac_filtering="true"), Allowed())
    assert rules[0] == "ether saddr != 00:16:3e:00:00:01 drop"


def test_nic_rules_of_addresses() -> None:
    one = nic(security__ipv4_filtering="true", security__ipv6_filtering="true")
    own = (IPv4Network("10.1.1.5/32"), IPv4Network("10.1.1.4/30"), IPv4Network("10.9.0.0/24"))
    rules = firewall.nic_rules(one, Allowed(own, (IPv6Network("fd42::5/128"),)))
    assert "ether type ip ip saddr != { 0.0.0.0, 10.1.1.4/30, 10.9.0.0/24 } drop" in rules
    assert "ether type ip6 ip6 saddr != { ::, fe80::/10, fd42::5 } drop" in rules
    assert any("@th,64,128 != 0xfd420000000000000000000000000005" in each for each in rules)
    assert not any(each.endswith("accept") for each in rules), "an accept would skip the limit"
    nothing = firewall.nic_rules(one, Allowed((), ()))
    assert "ether type { arp, ip } drop" in nothing and "ether type ip6 drop" in nothing


LISTED = """-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-A FORWARD -i br0 -m comment --comment "lxpy br0" -j ACCEPT
-A FORWARD -i br00 -m comment --comment "lxpy br00" -j ACCEPT
-A FORWARD -j DOCKER-USER
"""


def test_iptables() -> None:
    wanted = [("INPUT", "-i br0 -p icmp"), ("FORWARD", "-i br0")]
    lines = xtables.transaction(LISTED, "br0", wanted)
    assert lines == [
        '-D FORWARD -i br0 -m comment --comment "lxpy br0" -j ACCEPT',
        '-I FORWARD -i br0 -m comment --comment "lxpy br0" -j ACCEPT',
    ]
    assert xtables.transaction("-P FORWARD ACCEPT\n-P INPUT ACCEPT\n", "br0", wanted) == []
    rejecting = "-P INPUT ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n"
    assert len(xtables.transaction(rejecting, "br0", wanted)) == 1
