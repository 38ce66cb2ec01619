"""Networks that are an interface of the host: what their config takes."""

from __future__ import annotations

import pytest

from lxpy.errors import LxpyError
from lxpy.networks import keys


def test_good() -> None:
    for kind in ("macvlan", "physical", "sriov"):
        config = {"parent": "eno1", "mtu": "1400", "vlan": "5", "user.x": "y"}
        keys.validate("net0", config, kind)
    keys.validate("net0", {"parent": "eno1", "gvrp": "true"}, "macvlan")


@pytest.mark.parametrize(
    ("kind", "config", "text"),
    [
        ("macvlan", {}, 'option "parent": Required value'),
        ("macvlan", {"parent": "x", "ipv4.address": "10.0.0.1/24"}, "Invalid option for network"),
        ("sriov", {"parent": "x", "gvrp": "true"}, "Invalid option for network"),
        ("physical", {"parent": "x", "vlan": "9999"}, "Invalid value for network"),
        ("physical", {"parent": "x", "ipv4.gateway": "10.0.0.1/24"}, "neither OVN"),
    ],
)
def test_bad(kind: str, config: dict[str, str], text: str) -> None:
    with pytest.raises(LxpyError, match=text):
        keys.validate("net0", config, kind)
