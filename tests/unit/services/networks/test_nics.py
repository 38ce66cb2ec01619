"""Nics of instances: what does not fit a network, or is taken, is refused in LXD's words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lxpy.db.rows import ProfileRow
from lxpy.errors import LxpyError
from lxpy.instances.devices import nic as devices
from lxpy.instances.model import Instance
from lxpy.services.networks import nics
from lxpy.services.networks.nics import Network

NETWORKS = {
    each.name: each
    for each in (
        Network("net0", config={"ipv4.address": "10.1.1.1/24", "ipv6.address": "fd42::1/64"}),
        Network("off0", config={"ipv4.address": "10.2.1.1/24", "ipv4.dhcp": "false"}),
        Network("mac0", "macvlan", config={"parent": "eno1"}),
    )
}


def instance(name: str, number: int = 1, project: str = "default", **options: str) -> Instance:
    given = {key.replace("__", "."): value for key, value in options.items()}
    nic = {"type": "nic", **({} if "nictype" in given else {"network": "net0"}), **given}
    config = {"volatile.eth0.hwaddr": f"00:16:3e:00:00:{number:02x}"}
    eth0 = {"eth0": nic}
    return Instance(
        number, project, name, "x86_64", config, eth0, config, eth0, (), datetime.now(UTC)
    )


def check(one: Instance, *others: Instance) -> None:
    plans = devices.plan(one.config, nics.nic_devices(one))
    nics.check(one, plans, NETWORKS, [one, *others])


@pytest.mark.parametrize(
    "options",
    [
        {}, {"ipv4__address": "10.1.1.7"}, {"ipv4__address": "none"},
        {"network": "off0", "ipv4__address": "10.2.1.7", "security__ipv4_filtering": "true"},
        {"nictype": "bridged", "parent": "br9"},
    ],
)  # fmt: skip
def test_good(options: dict[str, str]) -> None:
    check(instance("c1", **options), instance("c2", 2))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"network": "no0"},
            'Failed to load network "no0" for project "default": Network not found',
        ),
        ({"ipv4__address": "10.9.1.7"}, 'IP address "10.9.1.7" not within network "net0" subnet'),
        ({"ipv4__address": "10.1.1.1"}, 'is the address of network "net0" itself'),
        ({"network": "off0", "ipv4__address": "10.2.1.7"}, "when DHCP is disabled"),
        ({"ipv6__address": "fd42::7"}, '"ipv6.dhcp.stateful" are disabled'),
    ],
)
def test_bad(options: dict[str, str], text: str) -> None:
    with pytest.raises(LxpyError) as caught:
        check(instance("c1", **options))
    assert str(caught.value).startswith('Device validation failed for "eth0": ')
    assert text in str(caught.value)


def test_options_of_a_networks_type() -> None:
    check(instance("c1", network="mac0", boot__priority="5"))
    with pytest.raises(LxpyError, match='Invalid device option "ipv4.address"'):
        check(instance("c1", network="mac0", ipv4__address="10.1.1.7"))


def test_taken() -> None:
    one = instance("c1", ipv4__address="10.1.1.7")
    check(one, instance("c2", 2, ipv4__address="10.1.1.8"))
    with pytest.raises(LxpyError, match='"10.1.1.7" already defined on another NIC.*"c2"'):
        check(one, instance("c2", 2, ipv4__address="10.1.1.7"))
    with pytest.raises(LxpyError, match="MAC address.*already defined on another NIC"):
        check(one, instance("c2", 1))
    check(one, instance("c2", 1, nictype="bridged", parent="br9"))
    routed = {"nictype": "routed", "ipv4__address": "192.0.2.1,192.0.2.2"}
    with pytest.raises(LxpyError, match='"192.0.2.2" already defined on another NIC'):
        other = {**routed, "ipv4__address": "192.0.2.2", "parent": "br9"}
        check(instance("c1", **routed), instance("c2", 2, **other))


def test_twice_on_one_network() -> None:
    one = instance("c1")
    more = {"type": "nic", "nictype": "bridged", "parent": "net0"}
    both = {**one.expanded_devices, "eth1": more}
    config = {**one.config, "volatile.eth1.hwaddr": "00:16:3e:00:00:99"}
    with pytest.raises(LxpyError, match='"c1" already used on network: device "eth0"'):
        check(replace(one, expanded_devices=both, devices=both, config=config))


def test_names_in_projects() -> None:
    (one,) = nics.nics_of(instance("c1", project="web"))
    assert one.nic.instance == "web_c1" and one.nic.hostname == "c1-web"
    (one,) = nics.nics_of(instance("c1"))
    assert one.nic.instance == "c1" and one.nic.hostname == "c1"


def test_an_instance_without_hwaddr_has_no_nics_yet() -> None:
    one = instance("c1")
    bare = Instance(
        1, "default", "c1", "x86_64", {}, one.devices, {}, one.devices, (), one.created_at
    )
    assert not list(nics.nics_of(bare)) and not list(nics.hwaddrs([bare]))


def test_used_by() -> None:
    profile = ProfileRow(
        project="default", name="p", config={}, devices={"e": {"type": "nic", "network": "net0"}}
    )
    found = nics.used_by("net0", [instance("c1"), instance("c2", 2, project="web")], [profile])
    assert found == [
        "/1.0/instances/c1", "/1.0/instances/c2?project=web", "/1.0/profiles/p"
    ]  # fmt: skip
    assert not nics.used_by("net1", [instance("c1")], [profile])
    assert nics.used_by("br9", [instance("c1", nictype="bridged", parent="br9")], [])
