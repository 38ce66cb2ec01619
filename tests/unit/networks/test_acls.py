"""ACLs: what is refused, in LXD's words, and what rules they come to; their log."""

from __future__ import annotations

import pytest

from lxpy.errors import BadRequest
from lxpy.networks import acllog, acls
from lxpy.networks.acls import Acl, Rule
from lxpy.networks.keys import Bridge

NETWORK = Bridge("net0", {"ipv4.address": "10.1.1.1/24", "ipv6.address": "none"})


def test_rules_in_order() -> None:
    acl = Acl(
        "web",
        ingress=(
            Rule("allow", source="10.0.0.0/8,1.2.3.4", protocol="tcp", destination_port="80, 443"),
            Rule("allow", state="disabled"),
            Rule("allow", source="@external", protocol="udp"),
        ),
        egress=(
            Rule("drop", state="logged", protocol="icmp4", icmp_type="8", icmp_code="0"),
            Rule("reject", destination="10.1.1.1-10.1.1.9"),
            Rule("allow", destination="10.0.0.1,fd00::1"),
        ),
    )
    acls.validate(acl)
    assert list(acls.lines([acl], NETWORK)) == [
        'iifname "net0" icmp type 8 icmp code 0 log prefix "lxpy acl web egress 0 drop: " drop',
        'iifname "net0" ip daddr { 10.1.1.1-10.1.1.9 } reject',
        'oifname "net0" ip saddr { 10.0.0.0/8, 1.2.3.4 } tcp dport { 80, 443 } accept',
        'oifname "net0" ip saddr != 10.1.1.0/24 meta l4proto udp accept',
        'iifname "net0" ip daddr { 10.0.0.1 } accept',
        'iifname "net0" ip6 daddr { fd00::1 } accept',
        'oifname "net0" reject',
        'iifname "net0" reject',
    ]


def test_defaults() -> None:
    config = {
        "security.acls.default.ingress.action": "drop",
        "security.acls.default.egress.action": "allow",
        "security.acls.default.ingress.logged": "true",
    }
    assert list(acls.lines([Acl("a")], Bridge("net0", config))) == [
        'oifname "net0" log prefix "lxpy acl net0 ingress default drop: " drop',
        'iifname "net0" accept',
    ]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Rule("foo"), "Invalid egress rule 0: Action must be one of: allow, drop, reject"),
        (Rule("allow", state="on"), "State must be one of"),
        (Rule("allow", source="nobody"), 'Invalid Source: Invalid subject "nobody"'),
        (Rule("allow", source="abc!"), 'Invalid Source: Invalid subject "abc!"'),
        (Rule("allow", destination="10.0.0.9-10.0.0.1"), "Invalid Destination: Invalid subject"),
        (Rule("allow", source="fe80::1%x }-fe80::2"), "Invalid Source: Invalid subject"),
        (Rule("allow", source="fe80::1%x"), "Invalid Source: Invalid subject"),
        (Rule("allow", destination_port="80"),
         "Destination port cannot be used without specifying protocol"),
        (Rule("allow", protocol="tcp", source_port="x"), 'Invalid port "x"'),
        (Rule("allow", protocol="tcp", icmp_type="8"),
         "ICMP type cannot be used with non-ICMP protocol"),
        (Rule("allow", protocol="icmp4", icmp_type="999"), 'Invalid ICMP type "999"'),
        (Rule("allow", protocol="gre"), "Protocol must be one of"),
    ],
)  # fmt: skip
def test_refused(rule: Rule, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        acls.validate(Acl("a", egress=(rule,)))
    assert text in str(caught.value)


def test_rules_are_there_once() -> None:
    rule = Rule("allow", source="10.0.0.1")
    with pytest.raises(BadRequest, match="Duplicate of ingress rule 1"):
        acls.validate(Acl("a", ingress=(Rule("drop"), rule, rule)))


def test_names() -> None:
    acls.check_name("web-1")
    for name in ("", "a b", "1a", "a" * 64, "a_b"):
        with pytest.raises(BadRequest):
            acls.check_name(name)
    with pytest.raises(BadRequest, match='Invalid config option "x"'):
        acls.validate(Acl("a", config={"x": "1"}))


def test_subjects_that_a_bridge_does_not_know() -> None:
    acl = Acl("a", ingress=(Rule("allow", source="other, 10.0.0.1"),))
    acls.validate(acl, ["other"])
    assert acl.mentioned() == {"other"}
    with pytest.raises(BadRequest, match='Unsupported nftables subject "other"'):
        acls.check_usable(acl, "net0")
    acls.check_usable(Acl("a", ingress=(Rule("allow", source="@internal"),)), "net0")


def test_log() -> None:
    records = [
        "4,10,5000000,-;lxpy acl web egress 0 drop: IN=net0 OUT=eth0 SRC=10.1.1.5 DST=192.0.2.1 "
        "LEN=84 PROTO=ICMP TYPE=8 CODE=0 \n SUBSYSTEM=x",
        "4,11,5000000,-;lxpy acl web2 egress 0 drop: IN=net0 PROTO=TCP",
        "6,12,5000001,-;something else",
    ]
    (entry,) = acllog.entries(records, "web", 1000.0)
    assert entry == {
        "time": "1970-01-01T00:16:45.000+00:00", "direction": "egress", "rule": "0",
        "action": "drop", "proto": "ICMP", "src": "10.1.1.5", "dst": "192.0.2.1",
        "icmp_type": "8", "icmp_code": "0", "in": "net0", "out": "eth0",
    }  # fmt: skip
