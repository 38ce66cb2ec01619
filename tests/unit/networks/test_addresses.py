"""Subnets that collide with nothing, addresses that are free."""

from __future__ import annotations

import random
import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.errors import InvalidConfig
from lxpy.networks import addresses

networks_v4 = st.builds(
    lambda number, bits: IPv4Network((number, bits), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
networks_v6 = st.builds(
    lambda number, bits: IPv6Network((number, bits), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)


@given(st.lists(networks_v4, max_size=30), st.integers())
def test_free_ipv4_overlaps_with_nothing(taken: list[IPv4Network], seed: int) -> None:
    try:
        found = addresses.free_ipv4(taken, random.Random(seed))
    except addresses.NoFreeSubnet:
        return
    assert found.network.prefixlen == 24 and found.ip == found.network[1]
    assert found.network.subnet_of(IPv4Network("10.0.0.0/8"))
    assert not any(found.network.overlaps(each) for each in taken if each.prefixlen)


@given(st.lists(networks_v6, max_size=30), st.integers())
def test_free_ipv6_overlaps_with_nothing(taken: list[IPv6Network], seed: int) -> None:
    found = addresses.free_ipv6(
        [each for each in taken if each.prefixlen > 16], random.Random(seed)
    )
    assert found.network.prefixlen == 64 and found.ip == found.network[1]
    assert found.network.subnet_of(IPv6Network("fd42::/16"))
    assert not any(found.network.overlaps(each) for each in taken if each.prefixlen > 16)


def test_a_default_route_takes_nothing() -> None:
    assert addresses.free_ipv4([ip_network("0.0.0.0/0")])
    assert addresses.free_ipv6([ip_network("::/0")])


def test_no_free_subnet() -> None:
    with pytest.raises(addresses.NoFreeSubnet, match=r"unused IPv4 subnet.*set ipv4\.address"):
        addresses.free_ipv4([ip_network("10.0.0.0/8")])


@given(st.integers())
def test_free_hwaddr(seed: int) -> None:
    first = addresses.free_hwaddr((), random.Random(seed))
    second = addresses.free_hwaddr({first}, random.Random(seed))
    assert re.fullmatch(r"00:16:3e(:[0-9a-f]{2}){3}", first)
    assert first != second
    assert addresses.host_end_hwaddr(first) > first


def test_stable_hwaddr() -> None:
    assert addresses.stable_hwaddr("/a", "br0") == addresses.stable_hwaddr("/a", "br0")
    assert addresses.stable_hwaddr("/a", "br0") != addresses.stable_hwaddr("/b", "br0")


def test_eui64() -> None:
    found = addresses.eui64(IPv6Network("fd42:1::/64"), "00:16:3e:00:00:01")
    assert str(found) == "fd42:1::216:3eff:fe00:1"


@pytest.mark.parametrize(
    ("text", "subnet", "expected"),
    [
        ("", "10.1.1.0/24", [("10.1.1.2", "10.1.1.254")]),
        ("", "10.1.1.0/30", [("10.1.1.2", "10.1.1.2")]),
        ("", "10.1.1.0/31", []),
        ("10.1.1.5-10.1.1.9, 10.1.1.20-10.1.1.20", "10.1.1.0/24",
         [("10.1.1.5", "10.1.1.9"), ("10.1.1.20", "10.1.1.20")]),
        ("fd42::10-fd42::20", "fd42::/64", [("fd42::10", "fd42::20")]),
    ],
)  # fmt: skip
def test_ranges(text: str, subnet: str, expected: list[tuple[str, str]]) -> None:
    found = addresses.ranges(text, ip_network(subnet))
    assert [(str(first), str(last)) for first, last in found] == expected


@pytest.mark.parametrize("text", ["10.1.1.9-10.1.1.5", "10.1.2.1-10.1.2.3", "10.1.1.1", "x-y"])
def test_bad_ranges(text: str) -> None:
    with pytest.raises(InvalidConfig):
        addresses.ranges(text, ip_network("10.1.1.0/24"))


@given(st.sets(st.integers(0, 13), max_size=14), st.integers(0, 255))
def test_free_address_is_found_if_there_is_one(taken: set[int], last: int) -> None:
    found = addresses.ranges("10.1.1.2-10.1.1.9,10.1.1.20-10.1.1.25", ip_network("10.1.1.0/24"))
    everything = [f"10.1.1.{n}" for n in (*range(2, 10), *range(20, 26))]
    busy = {everything[number] for number in taken}
    hwaddr = f"00:16:3e:00:00:{last:02x}"
    if len(busy) == len(everything):
        with pytest.raises(addresses.NoFreeAddress):
            addresses.free_address("n", found, busy.__contains__, hwaddr)
        return
    address = addresses.free_address("n", found, busy.__contains__, hwaddr)
    assert address in everything and address not in busy
    assert addresses.within(address, found)
    assert addresses.free_address("n", found, busy.__contains__, hwaddr) == address


def test_within() -> None:
    found = addresses.ranges("", ip_network("10.1.1.0/24"))
    assert not addresses.within("", found)
    assert not addresses.within("10.1.1.1", found)
    assert not addresses.within("fd42::5", found)
    assert addresses.size(found) == 253
    assert ip_address("10.1.1.2") == found[0][0]
