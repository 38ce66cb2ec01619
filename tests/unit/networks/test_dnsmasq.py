"""dnsmasq's configuration, its lease file, its reservations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.networks import leases
from lxpy.networks.dnsmasq import can_be_watched, configuration, find_process
from lxpy.networks.keys import Bridge
from lxpy.networks.leases import Hosts, Lease, Reservation

CONFIG = {"ipv4.address": "10.1.1.1/24", "ipv6.address": "fd42:1::1/64"}


def lines(**more: str) -> list[str]:
    given = {key.replace("__", "."): value for key, value in more.items()}
    bridge = Bridge("br0", {**CONFIG, **given})
    return configuration(bridge, Path("/state/networks/br0"), "nobody").splitlines()


def test_defaults() -> None:
    found = lines()
    assert "interface=br0" in found and "bind-interfaces" in found
    assert "dhcp-range=10.1.1.2,10.1.1.254,255.255.255.0,1h" in found
    assert "dhcp-range=::,constructor:br0,ra-stateless,ra-names" in found
    assert "domain=lxpy" in found and "interface-name=_gateway.lxpy,br0" in found
    assert "dhcp-leasefile=/state/networks/br0/dnsmasq.leases" in found
    assert "dhcp-lease-max=253" in found
    assert not any(line.startswith("conf-file") or "mtu" in line for line in found)


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("bridge.mtu", "1400", "dhcp-option-force=option:mtu,1400"),
        ("dns.mode", "none", "port=0"),
        ("dns.domain", "x.net", "local=/x.net/"),
        ("dns.search", "a.b,c.d", "dhcp-option=option:domain-search,a.b,c.d"),
        ("ipv4.dhcp.gateway", "10.1.1.9", "dhcp-option=option:router,10.1.1.9"),
        ("ipv4.dhcp.expiry", "30m", "dhcp-range=10.1.1.2,10.1.1.254,255.255.255.0,30m"),
        ("ipv4.dhcp.ranges", "10.1.1.5-10.1.1.9",
         "dhcp-range=10.1.1.5,10.1.1.9,255.255.255.0,1h"),
        ("ipv6.dhcp", "false", "dhcp-range=::,constructor:br0,ra-only"),
        ("ipv6.dhcp.stateful", "true", "dhcp-range=fd42:1::2,fd42:1::ffff:ffff:ffff:ffff,64,1h"),
        ("raw.dnsmasq", "cname=a,b", "conf-file=/state/networks/br0/dnsmasq.raw"),
    ],
)  # fmt: skip
def test_options(option: str, value: str, line: str) -> None:
    assert line in lines(**{option: value})


def test_families_that_are_off() -> None:
    assert not any("10.1.1" in line for line in lines(**{"ipv4.address": "none"}))
    found = lines(**{"ipv6.address": "none", "ipv4.dhcp": "false"})
    assert "enable-ra" not in found and not any(x.startswith("dhcp-range") for x in found)


def test_leases() -> None:
    text = """1796000000 00:16:3E:00:00:01 10.1.1.7 c1 01:00:16:3e:00:00:01
1796000000 00:16:3e:00:00:02 10.1.1.8 * *
duid 00:01:00:01:31:0a:0b:0c:00:16:3e:00:00:03
1796000000 1234 fd42:1::5 c1 00:01:00:01:31:0a:0b:0c:00:16:3e:00:00:01
1796000000 1234 fd42:1::6 * 00:02:00:00:ab:11
broken
"""
    assert list(leases.parse_leases(text)) == [
        Lease("10.1.1.7", "00:16:3e:00:00:01", "c1", "01:00:16:3e:00:00:01"),
        Lease("10.1.1.8", "00:16:3e:00:00:02", ""),
        Lease("fd42:1::5", "00:16:3e:00:00:01", "c1", "00:01:00:01:31:0a:0b:0c:00:16:3e:00:00:01"),
        Lease("fd42:1::6", "", "", "00:02:00:00:ab:11"),
    ]


@given(st.text())
def test_leases_of_anything(text: str) -> None:
    list(leases.parse_leases(text))


@given(
    st.sampled_from(["", "c1", "c1-project"]),
    st.sampled_from(["", "10.1.1.7"]),
    st.sampled_from(["", "fd42::7"]),
)
def test_reservation_is_read_as_written(hostname: str, ipv4: str, ipv6: str) -> None:
    reservation = Reservation("c1", "00:16:3e:00:00:01", hostname, ipv4, ipv6, "/eth_0.5:x")
    assert leases.parse_reservation(reservation.file, reservation.line()) == reservation


def test_hosts(tmp_path: Path) -> None:
    directory = tmp_path / "dnsmasq.hosts"
    directory.mkdir()
    hosts = Hosts(directory)
    one = Reservation("c1", "00:16:3e:00:00:01", "c1", "10.1.1.7", device="eth0")
    two = Reservation("c1.p_c1", "00:16:3e:00:00:02", "c1-p", device="eth0")
    assert hosts.write(one) and not hosts.write(one)
    assert hosts.of("c1") == [one] and hosts.of("c") == []
    other = replace(one, hwaddr="00:16:3e:00:00:03", device="eth1")
    assert hosts.write(other) and hosts.of("c1") == [one, other]
    assert hosts.replace([one], "c1")
    taken = replace(two, ipv4=one.ipv4)
    assert not hosts.replace([taken], "c1.p_c1") and hosts.of("c1.p_c1") == []
    assert not hosts.replace([taken, one]) and hosts.read() == [one]
    assert not hosts.replace([replace(two, hwaddr=one.hwaddr)], "c1.p_c1")
    assert hosts.replace([other], "c1") and not hosts.replace([other], "c1")
    assert [path.name for path in directory.iterdir()] == ["c1.eth1"]
    assert hosts.replace([one, two]) and not hosts.replace([two, one])
    assert hosts.read() == [one, two]
    assert hosts.replace([two]) and hosts.read() == [two]
    assert hosts.replace([], "c1.p_c1") and not hosts.replace([], "c1.p_c1")
    assert [path.name for path in tmp_path.iterdir()] == ["dnsmasq.hosts"]


def test_release_message() -> None:
    lease = Lease("10.1.1.7", "00:16:3e:00:00:01", "c1", "01:00:16:3e:00:00:01")
    message = leases.release_message(lease, "10.1.1.1")
    assert len(message) == 300 and message[:3] == b"\x01\x01\x06"
    assert message[12:16] == bytes((10, 1, 1, 7))
    assert message[28:34] == bytes.fromhex("00163e000001")
    assert message[236:243] == bytes.fromhex("63825363350107")


def test_a_list_of_name_servers_that_is_not_there(tmp_path: Path) -> None:
    found = tmp_path / "resolv.conf"
    assert can_be_watched(found)
    found.symlink_to("run/stub.conf")
    assert not can_be_watched(found)
    (tmp_path / "run").mkdir()
    assert can_be_watched(found)


def test_no_process(tmp_path: Path) -> None:
    (tmp_path / "dnsmasq.pid").write_text("1\n")
    assert find_process(tmp_path / "dnsmasq.conf") == 0
