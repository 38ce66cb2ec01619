"""What ip(8) is told inside, by kind of nic."""

from __future__ import annotations

from lxpy.networks import makers
from lxpy.networks.nic import Nic


def nic(kind: str, ipv4: str = "", ipv6: str = "", **options: str) -> Nic:
    given = {key.replace("__", "."): value for key, value in options.items()}
    return Nic(
        "c1", "c1", "eth0", "eth0", "00:16:3e:00:00:01", kind, ipv4=ipv4, ipv6=ipv6, options=given
    )


def test_routed() -> None:
    one = nic("routed", "192.0.2.1, 192.0.2.2", "fd42::1")
    assert list(makers.routed_inside(one, ["ipv4", "ipv6"])) == [
        "address add 192.0.2.1/32 dev eth0",
        "address add 192.0.2.2/32 dev eth0",
        "route add 169.254.0.1 dev eth0",
        "route add default via 169.254.0.1 dev eth0",
        "address add fd42::1/128 dev eth0 nodad",
        "route add default via fe80::1 dev eth0",
    ]
    one = nic("routed", "192.0.2.1", ipv4__gateway="none", ipv4__host_address="10.0.0.1")
    assert list(makers.routed_inside(one, ["ipv4"])) == ["address add 192.0.2.1/32 dev eth0"]


def test_ipvlan() -> None:
    one = nic("ipvlan", "192.0.2.1", "fd42::1")
    assert list(makers.ipvlan_inside(one, ["ipv4", "ipv6"], "l3s")) == [
        "address add 192.0.2.1/32 dev eth0", "route add 0.0.0.0/0 dev eth0",
        "address add fd42::1/128 dev eth0", "route add ::/0 dev eth0",
    ]  # fmt: skip
    one = nic("ipvlan", "192.0.2.1,192.0.2.9/28", ipv4__gateway="192.0.2.14")
    assert list(makers.ipvlan_inside(one, ["ipv4"], "l2")) == [
        "address add 192.0.2.1/24 dev eth0", "address add 192.0.2.9/28 dev eth0",
        "route add default via 192.0.2.14 dev eth0",
    ]  # fmt: skip
    assert len(list(makers.ipvlan_inside(nic("ipvlan", "192.0.2.1"), ["ipv4"], "l2"))) == 1
