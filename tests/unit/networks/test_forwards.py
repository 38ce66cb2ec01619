"""Forwards: what is refused, in LXD's words, and what rules they come to."""

from __future__ import annotations

import pytest

from lxpy.errors import BadRequest
from lxpy.networks import forwards
from lxpy.networks.forwards import Forward, ForwardPort, translations
from lxpy.networks.keys import Bridge

NETWORK = Bridge("net0", {"ipv4.address": "10.1.1.1/24", "ipv6.address": "fd42::1/64"})


def one(*ports: ForwardPort, target: str = "") -> Forward:
    return Forward("192.0.2.1", config={"target_address": target} if target else {}, ports=ports)


def rules(forward: Forward) -> list[tuple[str, str, str]]:
    return [(each.match, each.destination, each.hairpin) for each in translations([forward])]


def test_rules() -> None:
    web = ForwardPort("tcp", "80,90-92", "10.1.1.6", "8080,8090-8092")
    same = ForwardPort("udp", "100-102,110", "10.1.1.7")
    many = ForwardPort("tcp", "200-201", "10.1.1.8", "22")
    forward = one(web, same, many, target="10.1.1.9")
    forwards.validate(forward, NETWORK)
    found = rules(forward)
    assert found[0] == (
        "ip daddr 192.0.2.1 tcp dport 80", "10.1.1.6:8080",
        "ip saddr 10.1.1.6 ip daddr 10.1.1.6 tcp dport 8080",
    )  # fmt: skip
    assert [each[1] for each in found[1:4]] == [
        "10.1.1.6:8090", "10.1.1.6:8091", "10.1.1.6:8092"
    ]  # fmt: skip
    assert found[4] == (
        "ip daddr 192.0.2.1 udp dport 100-102", "10.1.1.7",
        "ip saddr 10.1.1.7 ip daddr 10.1.1.7 udp dport 100-102",
    )  # fmt: skip
    assert found[5][0] == "ip daddr 192.0.2.1 udp dport 110"
    assert [each[1] for each in found[6:8]] == ["10.1.1.8:22", "10.1.1.8:22"]
    assert found[8] == (
        "ip daddr 192.0.2.1", "10.1.1.9", "ip saddr 10.1.1.9 ip daddr 10.1.1.9"
    )  # fmt: skip


def test_ipv6() -> None:
    forward = Forward("2001:db8::1", ports=(ForwardPort("tcp", "80", "fd42::7", "8080"),))
    forwards.validate(forward, NETWORK)
    assert rules(forward)[0][:2] == ("ip6 daddr 2001:db8::1 tcp dport 80", "[fd42::7]:8080")


@pytest.mark.parametrize(
    ("forward", "text"),
    [
        (Forward("192.0.2.1", config={"foo": "1"}), 'Invalid option "foo"'),
        (one(target="10.2.2.2"), "Default target address is not within the network subnet"),
        (one(target="fd42::5"), "Default target address is not within the network subnet"),
        (one(ForwardPort("icmp", "1", "10.1.1.5")),
         "Invalid port protocol in port specification 0, protocol must be one of: tcp, udp"),
        (one(ForwardPort("tcp", "1", "10.9.1.5")),
         "Target address is not within the network subnet in port specification 0"),
        (one(ForwardPort("tcp", "1-3", "10.1.1.5", "5-6")),
         "Mismatch of listen port(s) and target port(s) count in port specification 0"),
        (one(ForwardPort("tcp", "1-3", "10.1.1.5"), ForwardPort("tcp", "3", "10.1.1.5")),
         'Duplicate listen port 3 for protocol "tcp" in port specification 1'),
        (one(ForwardPort("tcp", "0", "10.1.1.5")), 'Invalid port "0"'),
        (one(ForwardPort("tcp", "9-x", "10.1.1.5")), 'Invalid port "9-x"'),
        (one(ForwardPort("tcp", "", "10.1.1.5")), "Missing listen port"),
    ],
)  # fmt: skip
def test_refused(forward: Forward, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        forwards.validate(forward, NETWORK)
    assert text in str(caught.value)


def test_listen_addresses() -> None:
    assert forwards.check_address("2001:DB8::1", NETWORK) == "2001:db8::1"
    for text in ("abc", "fe80::1%a b", "10.0.0.0/8", "0.0.0.0", "224.0.0.1"):
        with pytest.raises(BadRequest):
            forwards.check_address(text, NETWORK)
    with pytest.raises(BadRequest, match="no ipv6.address"):
        forwards.check_address("2001:db8::1", Bridge("n", {"ipv6.address": "none"}))
