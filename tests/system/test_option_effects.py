"""Options of nics, networks and limits that no other test speaks of: what the kernel has."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import CGROUPS, Daemon
from tests.support.fixtures import Launch, change

LINKS = Path("/sys/class/net")
HAS_IPV6 = Path("/proc/sys/net/ipv6/conf").exists()


def shown(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def options(**given: str) -> dict[str, str]:
    return {key.replace("__", "."): value for key, value in given.items()}


def host_name(daemon: Daemon, name: str, link: str) -> str:
    return str(daemon.state(name)["network"][link]["host_name"])


@pytest.fixture
def network(daemon: Daemon) -> Iterator[str]:
    """A network with subnets of its own, deleted after the test."""
    name = daemon.bridge_name()
    config = {"ipv4.address": "198.19.44.1/24", "ipv4.nat": "true"}
    config |= {"ipv6.address": "fd42:44::1/64", "ipv6.nat": "true"} if HAS_IPV6 else {}
    daemon.api.post("/1.0/networks", {"name": name, "config": config})
    yield name
    for instance in daemon.instances():
        daemon.delete(instance)
    daemon.api.delete(f"/1.0/networks/{name}")
    daemon.bridges.discard(name)


# -- nics


def test_queue_and_priority(daemon: Daemon, launch: Launch) -> None:
    given = options(queue__tx__length="777", limits__priority="5", boot__priority="3")
    name = launch(devices={"p": {"type": "nic", "nictype": "p2p", "name": "p0", **given}})
    host = host_name(daemon, name, "p0")
    assert (LINKS / host / "tx_queue_len").read_text().strip() == "777"
    assert daemon.out(name, "cat", "/sys/class/net/p0/tx_queue_len") == "777"
    assert "meta priority set" in shown("nft", "list", "table", "netdev", f"lxpy_{host}")
    kept = daemon.api.get(f"/1.0/instances/{name}")["expanded_devices"]["p"]
    assert kept["boot.priority"] == "3"


def test_routes_of_a_bridged_nic(daemon: Daemon, launch: Launch, network: str) -> None:
    """To the instance, those that others are told of likewise; changed on the same link."""
    given = options(ipv4__address="198.19.44.7", ipv4__routes="198.18.44.0/28",
                    ipv4__routes__external="198.18.45.0/28")  # fmt: skip
    if HAS_IPV6:
        given |= options(ipv6__routes="fd42:45::/64", ipv6__routes__external="fd42:46::/64")
    nic = {"type": "nic", "network": network, "name": "eth0"}
    name = launch(devices={"eth0": nic | given})
    host = host_name(daemon, name, "eth0")
    found = shown("ip", "route", "show", "dev", network)
    assert "198.18.44.0/28" in found and "198.18.45.0/28" in found
    if HAS_IPV6:
        found = shown("ip", "-6", "route", "show", "dev", network)
        assert "fd42:45::/64" in found and "fd42:46::/64" in found
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"eth0": nic}})
    for family in ("-4", "-6") if HAS_IPV6 else ("-4",):
        found = shown("ip", family, "route", "show", "dev", network)
        assert not any(each in found for each in ("198.18.4", "fd42:45::", "fd42:46::"))
    assert host_name(daemon, name, "eth0") == host


def test_hosts_end_of_a_routed_nic(daemon: Daemon, launch: Launch) -> None:
    """Its addresses, no default route where none is wanted, one more table."""
    given = options(ipv4__address="198.18.47.7", ipv4__host_address="169.254.7.1")
    if HAS_IPV6:
        given |= options(ipv6__address="fd42:47::7", ipv6__host_address="fe80::7",
                         ipv6__gateway="none", ipv6__host_table="4747",
                         ipv6__neighbor_probe="false")  # fmt: skip
    nic = {"type": "nic", "nictype": "routed", "name": "r0"}
    name = launch(devices={"eth0": {"type": "none"}, "r": nic | given})
    host = host_name(daemon, name, "r0")
    assert "inet 169.254.7.1/32" in shown("ip", "addr", "show", "dev", host)
    assert "default via 169.254.7.1" in daemon.out(name, "ip", "route")
    if HAS_IPV6:
        assert "inet6 fe80::7/128" in shown("ip", "addr", "show", "dev", host)
        assert "default" not in daemon.out(name, "ip", "-6", "route")
        assert "fd42:47::7" in shown("ip", "-6", "route", "show", "dev", host, "table", "4747")
    given |= {"ipv4.gateway": "none"}
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"r": nic | given}})
    assert "default" not in daemon.out(name, "ip", "route")


# -- networks


@pytest.mark.skipif(not HAS_IPV6, reason="this host has no IPv6")
def test_ipv6_of_a_bridge(daemon: Daemon, network: str) -> None:
    table = ("nft", "list", "table", "inet", f"lxpy_{network}")
    conf = daemon.directory / "networks" / network / "dnsmasq.conf"

    def patch(**given: str) -> None:
        daemon.api.patch(f"/1.0/networks/{network}", {"config": options(**given)})

    assert "ra-stateless" in conf.read_text()
    patch(ipv6__dhcp="false")
    assert "ra-stateless" not in conf.read_text() and "ra-only" in conf.read_text()
    patch(ipv6__nat__order="after", ipv6__nat__address="fd42:48::9")
    assert "snat ip6 to fd42:48::9" in shown(*table) and "srcnat + 1" in shown(*table)
    patch(ipv6__routes="fd42:49::/64")
    assert "fd42:49::/64" in shown("ip", "-6", "route", "show", "dev", network)
    patch(ipv6__firewall="false")
    assert "nfproto ipv6 accept" not in shown(*table)
    patch(ipv6__routing="false")
    assert "nfproto ipv6 drop" in shown(*table)


def test_defaults_of_acls(daemon: Daemon, network: str) -> None:
    daemon.api.post("/1.0/network-acls", {"name": "defaults"})
    table = ("nft", "list", "table", "inet", f"lxpy_{network}")
    path = f"/1.0/networks/{network}"
    try:
        daemon.api.patch(path, {"config": {"security.acls": "defaults"}})
        assert shown(*table).count("reject") >= 2 and "log" not in shown(*table)
        defaults = {f"security.acls.default.{way}.{what}": value
                    for way in ("egress", "ingress")
                    for what, value in (("action", "drop"), ("logged", "true"))}  # fmt: skip
        daemon.api.patch(path, {"config": defaults})
        found = shown(*table)
        assert found.count(" drop") >= 2 and "log prefix" in found and "reject" not in found
        daemon.api.patch(path, {"config": {"security.acls.default.egress.action": "allow"}})
        assert shown(*table).count(" drop") < found.count(" drop")
        daemon.api.patch(path, {"config": {"security.acls": ""}})
    finally:
        daemon.api.delete("/1.0/network-acls/defaults")


# -- limits


def _control(daemon: Daemon, name: str, *files: str) -> str:
    """What the first of these control files says."""
    for file in files:
        for base in (CGROUPS, *CGROUPS.iterdir()):
            path = base / daemon.cgroup / name / file
            if path.exists():
                return path.read_text().strip()
    pytest.skip(f"this kernel has none of {', '.join(files)}")


def test_soft_memory(daemon: Daemon, launch: Launch) -> None:
    """It slows down, or gives back first, and is not killed; without a limit of swap either."""
    name = launch(config=options(limits__memory="64MiB", limits__memory__enforce="soft"))
    assert _control(daemon, name, "memory.high", "memory.soft_limit_in_bytes") == str(64 << 20)
    assert _control(daemon, name, "memory.max", "memory.limit_in_bytes") != str(64 << 20)
    daemon.api.patch(f"/1.0/instances/{name}", {"config": {"limits.memory.enforce": "hard"}})
    assert _control(daemon, name, "memory.max", "memory.limit_in_bytes") == str(64 << 20)


def test_no_swap(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"limits.memory.swap": "false"})
    assert _control(daemon, name, "memory.swap.max", "memory.swappiness") == "0"
    daemon.api.patch(f"/1.0/instances/{name}", {"config": {"limits.memory": "64MiB"}})
    both = _control(daemon, name, "memory.swap.max", "memory.memsw.limit_in_bytes")
    assert both in ("0", str(64 << 20))
    daemon.api.patch(f"/1.0/instances/{name}", {"config": {"limits.memory.swap": "true"}})
    assert _control(daemon, name, "memory.swap.max", "memory.swappiness") != "0"


KERNEL = {"as": "Max address space", "cpu": "Max cpu time", "data": "Max data size",
          "fsize": "Max file size", "memlock": "Max locked memory",
          "msgqueue": "Max msgqueue size", "nice": "Max nice priority",
          "nproc": "Max processes", "rss": "Max resident set",
          "rtprio": "Max realtime priority", "rttime": "Max realtime timeout",
          "sigpending": "Max pending signals", "stack": "Max stack size"}  # fmt: skip


def test_limits_of_the_kernel(daemon: Daemon, launch: Launch) -> None:
    """Each has a number of its own, seen by init and by commands; the host's are the most."""
    wanted = {}
    for number, key in enumerate(KERNEL):
        _, most = resource.getrlimit(getattr(resource, f"RLIMIT_{key.upper()}"))
        value = 4_000_000_000 + number
        wanted[key] = value if most == resource.RLIM_INFINITY else min(value, max(most - number, 0))
    name = launch(config={f"limits.kernel.{key}": str(value) for key, value in wanted.items()})
    for process in ("1", "self"):
        lines = daemon.out(name, "cat", f"/proc/{process}/limits").splitlines()
        found = {line[:26].strip(): line[26:].split()[:2] for line in lines}
        for key, title in KERNEL.items():
            assert found[title] == [str(wanted[key])] * 2, title
    change(daemon, name, "stop")
