"""Reading interfaces needs no privileges: the host's own loopback is always there."""

from __future__ import annotations

import os

import pytest

from lxpy.networks.interfaces import Interface, Interfaces
from lxpy.networks.nic import Nic


def test_loopback() -> None:
    with Interfaces() as interfaces:
        found = {each.name: each for each in interfaces.host()}
        lo = found["lo"]
        assert lo.index == 1 and lo.loopback and lo.type == "loopback" and lo.mtu >= 65536
        one = interfaces.find("lo")
        assert one is not None and one.addresses == lo.addresses
        assert interfaces.find("nosuch0") is None


def test_the_namespace_of_this_process() -> None:
    with Interfaces() as interfaces:
        try:
            found = interfaces.guest(os.getpid())
        except PermissionError:
            pytest.skip("naming a namespace needs root")
        assert {each.name for each in found} == {each.name for each in interfaces.host()}


def test_a_process_that_is_gone() -> None:
    with Interfaces() as interfaces, pytest.raises(OSError):
        interfaces.guest(2**22 + 1)


@pytest.mark.parametrize(
    ("flags", "kind"),
    [(0x1 | 0x8, "loopback"), (0x1 | 0x10, "point-to-point"), (0x2, "broadcast"), (0, "unknown")],
)
def test_type(flags: int, kind: str) -> None:
    found = Interface(1, "x", flags)
    assert found.type == kind and found.up == bool(flags & 1)


def test_nic() -> None:
    options = {
        "limits.max": "10Mbit", "limits.egress": "1Mbit", "security.ipv4_filtering": "true",
        "ipv4.routes": "10.1.0.0/24, 10.2.0.0/24", "ipv6.routes.external": "fd42::/64",
    }  # fmt: skip
    nic = Nic("c1", "c1", "eth0", "eth0", "00:16:3e:00:00:01", options=options)
    assert nic.ingress_bits == 10_000_000 and nic.egress_bits == 1_000_000
    assert nic.filters_mac and nic.filters_ipv4 and not nic.filters_ipv6
    assert nic.routes == ("10.1.0.0/24", "10.2.0.0/24", "fd42::/64")
