"""A bridge's config: what is refused in LXD's words, and what the rest means."""

from __future__ import annotations

import pytest

from lxpy.errors import BadRequest, Failed, NotSupported
from lxpy.networks import keys, parentkeys
from lxpy.networks.keys import Bridge


@pytest.mark.parametrize("name", ["br0", "lxpybr0", "lxpy-ab12cd34", "a.b_c", "x" * 15])
def test_good_names(name: str) -> None:
    keys.check_name(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x" * 16, "Network interface is too long (maximum 15 characters)"),
        ("x", "Network interface is too short"),
        ("", "No name provided"),
        ("a/b", "contains invalid characters"),
        ("a b", "contains invalid characters"),
        ("ö0", "contains invalid characters"),
        ('a"b', "contains invalid characters"),
        ("-ab", "another meaning"),
        ("..", "another meaning"),
        ("lo", "another meaning"),
    ],
)
def test_bad_names(name: str, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        keys.check_name(name)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"ipv4.address": "10.1.1.1/24", "ipv4.nat": "true", "ipv6.address": "none"},
        {"ipv4.address": "auto", "ipv6.address": "fd42::1/64", "ipv6.dhcp.stateful": "true"},
        {"ipv4.address": "10.1.1.1/24", "ipv4.dhcp.ranges": "10.1.1.5-10.1.1.9"},
        {"bridge.mtu": "9000", "dns.domain": "guests.example.net", "dns.search": "a.b, c.d"},
        {"user.anything": "x\ny", "raw.dnsmasq": "address=/x/10.0.0.1", "ipv4.dhcp.expiry": "30m"},
        {"bridge.driver": "native", "bridge.hwaddr": "00:16:3e:01:02:03"},
    ],
)
def test_good_config(config: dict[str, str]) -> None:
    keys.validate("br0", config)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"no.such": "1"}, 'Invalid option for network "br0" option "no.such"'),
        ({"ipv4.address": "x"}, 'Invalid value for network "br0" option "ipv4.address"'),
        ({"ipv4.address": "10.1.1.0/24"}, "is the subnet, not an address"),
        ({"ipv4.address": "fd42::1/64"}, 'option "ipv4.address"'),
        ({"ipv4.address": "224.0.0.1/24"}, "cannot be an interface's"),
        ({"ipv4.nat": "perhaps"}, 'option "ipv4.nat"'),
        ({"bridge.mtu": "70000"}, 'option "bridge.mtu"'),
        ({"dns.domain": "a\nb"}, 'option "dns.domain"'),
        ({"dns.domain": "-a"}, 'option "dns.domain"'),
        ({"ipv4.dhcp.expiry": "soon"}, 'option "ipv4.dhcp.expiry"'),
        ({"ipv4.address": "10.1.1.1/24", "ipv4.dhcp.ranges": "10.2.1.1-10.2.1.2"},
         'option "ipv4.dhcp.ranges"'),
    ],
)  # fmt: skip
def test_bad_config(config: dict[str, str], text: str) -> None:
    with pytest.raises(Failed) as caught:
        keys.validate("br0", config)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"bridge.driver": "openvswitch"}, {"bridge.mode": "fan"},
        {"dns.zone.forward": "x"}, {"bgp.peers.a.asn": "1"},
    ],
)  # fmt: skip
def test_refused_by_name(config: dict[str, str]) -> None:
    with pytest.raises(NotSupported, match="remove the option"):
        keys.validate("br0", config)


def test_every_key_takes_effect_at_once() -> None:
    assert all(key.live for key in keys.BRIDGE)


def test_bridge() -> None:
    bridge = Bridge("br0", {"ipv4.address": "10.1.1.1/24", "dns.search": "a.b, c.d"})
    assert str(bridge.ipv4) == "10.1.1.1/24" and bridge.ipv6 is None
    assert bridge.mtu == 1500 and bridge.flag("ipv4.dhcp") and not bridge.flag("ipv4.nat")
    assert bridge.items("dns.search") == ["a.b", "c.d"] and bridge.text("dns.domain") == "lxpy"
    assert [str(last) for _, last in bridge.dhcp_ranges("ipv4")] == ["10.1.1.254"]
    assert bridge.dhcp_ranges("ipv6") == []
    assert not Bridge("br0", {"ipv4.address": "10.1.1.1/24", "ipv4.dhcp": "no"}).dhcp_ranges("ipv4")
    assert Bridge("br0", {"ipv4.address": "none"}).subnets == set()


@pytest.mark.parametrize("kind", sorted(parentkeys.KEYS))
def test_options_of_uplinks_are_refused(kind: str) -> None:
    """What is for OVN and MAAS says so."""
    for key in parentkeys.KEYS[kind]:
        if key.name.startswith(parentkeys.LATER):
            name = key.name.replace("*", "x")
            with pytest.raises(NotSupported, match="neither OVN nor MAAS"):
                parentkeys.validate("n0", kind, {"parent": "eth9", name: "x"})
