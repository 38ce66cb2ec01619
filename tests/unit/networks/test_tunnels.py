"""Tunnels: what a bridge's config asks the kernel for."""

from __future__ import annotations

import pytest

from lxpy.errors import LxpyError
from lxpy.networks import keys, tunnels
from lxpy.networks.keys import Bridge


def attributes(**settings: str) -> dict[str, object]:
    config = {f"tunnel.a.{key}": value for key, value in settings.items()}
    keys.validate("net0", config)
    (tunnel,) = tunnels.of(Bridge("net0", config))
    assert tunnel.link == "net0-a"
    return tunnel.attributes()


def test_vxlan() -> None:
    found = attributes(protocol="vxlan", local="192.0.2.1", remote="192.0.2.2", id="7", port="4789")
    assert found == {
        "kind": "vxlan", "vxlan_id": 7, "vxlan_port": 4789, "vxlan_ttl": 1,
        "vxlan_group": "192.0.2.2", "vxlan_local": "192.0.2.1",
    }  # fmt: skip
    found = attributes(protocol="vxlan", interface="lo", ttl="5")
    assert found["vxlan_group"] == "239.0.0.1" and found["vxlan_link"] == 1
    assert found["vxlan_ttl"] == 5 and found["vxlan_port"] == 8472
    found = attributes(protocol="vxlan", local="fd00::1", remote="fd00::2")
    assert found["vxlan_group6"] == "fd00::2" and found["vxlan_local6"] == "fd00::1"


def test_gre() -> None:
    assert attributes(protocol="gre", local="192.0.2.1", remote="192.0.2.2", ttl="9") == {
        "kind": "gretap", "gre_local": "192.0.2.1", "gre_remote": "192.0.2.2", "gre_ttl": 9
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"local": "192.0.2.1"}, "tunnel.a.protocol is missing"),
        ({"protocol": "gre", "local": "192.0.2.1"}, "GRE needs"),
        ({"protocol": "vxlan", "remote": "192.0.2.1"}, "needs tunnel.a.local"),
        ({"protocol": "vxlan"}, "multicast needs tunnel.a.interface"),
        ({"protocol": "vxlan", "local": "fd00::1", "remote": "192.0.2.1"}, "different IP versions"),
        ({"protocol": "ipip"}, "tunnel.a.protocol"),
        ({"protocol": "vxlan", "foo": "1"}, "Invalid option"),
    ],
)
def test_refused(settings: dict[str, str], text: str) -> None:
    with pytest.raises(LxpyError) as caught:
        attributes(**settings)
    assert text in str(caught.value)


def test_names_are_short() -> None:
    config = {"tunnel.faraway.protocol": "vxlan", "tunnel.faraway.interface": "lo"}
    with pytest.raises(LxpyError, match="more than 15 characters"):
        tunnels.of(Bridge("longname0", config))
    assert Bridge("net0", config).mtu == 1400
    assert Bridge("net0", {**config, "bridge.mtu": "9000"}).mtu == 9000
