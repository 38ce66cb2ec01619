"""Chains of iptables that drop: packets pass them as they pass ours, and an accept there counts.

Those of iptables-legacy are not shown by nft; those of iptables-nft are, but a rule put in by nft
makes the whole table unreadable for iptables, and so for Docker. Both are changed by iptables'
own programs: rules that bear our comment are put first.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import structlog

from lxpy.errors import MissingTool
from lxpy.networks.keys import Bridge
from lxpy.programs import run
from lxpy.threads import in_thread

_log = structlog.get_logger()

_CHAINS = ("INPUT", "FORWARD")


@dataclass(frozen=True, slots=True)
class Family:
    """IPv4 or IPv6, as iptables sees it."""

    name: str
    version: int
    program: str
    icmp: str
    dhcp_port: str
    legacy_tables: Path


FAMILIES = {
    "ip": Family("ipv4", 4, "iptables", "icmp", "67", Path("/proc/net/ip_tables_names")),
    "ip6": Family("ipv6", 6, "ip6tables", "ipv6-icmp", "547", Path("/proc/net/ip6_tables_names")),
}


def manages(family: str, table: str, chain: str) -> bool:
    """Tell whether a chain that nft shows is one of iptables-nft, whose program is installed."""
    return (
        family in FAMILIES
        and table == "filter"
        and chain in _CHAINS
        and shutil.which(f"{FAMILIES[family].program}-nft") is not None
    )


async def apply(
    config: Bridge,
    subnets: Sequence[IPv4Network | IPv6Network],
    managed: Collection[str],
    forwarded: Collection[int] = (),
) -> None:
    """Let a network's traffic pass where such chains drop.

    `managed` are the families ("ip", "ip6") in which iptables-nft has chains, `forwarded` the IP
    versions of forwards. Logs when a program
    is missing.
    """
    for key, family in FAMILIES.items():
        routed = any(each.version == family.version for each in subnets)
        wanted = list(_wanted(config, family, routed=routed))
        if wanted and family.version in forwarded:
            wanted.append(("FORWARD", f"-o {config.name} -m conntrack --ctstate DNAT"))
        await _change(family, config.name, wanted, nft=key in managed)


async def remove(bridge: str, managed: Collection[str]) -> None:
    """Take back what `apply` has put in."""
    for key, family in FAMILIES.items():
        await _change(family, bridge, [], nft=key in managed)


async def _change(family: Family, bridge: str, wanted: list[tuple[str, str]], *, nft: bool) -> None:
    if nft:
        await _transact(f"{family.program}-nft", bridge, wanted)
    if await in_thread(_in_use, family.legacy_tables):
        await _transact(f"{family.program}-legacy", bridge, wanted)


async def _transact(program: str, bridge: str, wanted: list[tuple[str, str]]) -> None:
    try:
        listed = await run(program, "-w", "-S")
        lines = transaction(listed.stdout.decode(errors="replace"), bridge, wanted)
        if lines:
            text = "\n".join(["*filter", *lines, "COMMIT", ""])
            await run(f"{program}-restore", "-w", "--noflush", input=text.encode())
    except MissingTool as error:
        _log.warning("rules of iptables not looked at", network=bridge, error=str(error))


def _in_use(tables: Path) -> bool:
    try:
        return "filter" in tables.read_text().split()
    except OSError:
        return False


def transaction(listed: str, bridge: str, wanted: list[tuple[str, str]]) -> list[str]:
    """Return what `iptables-restore` is to do, given the output of `iptables -S`.

    `wanted` are pairs of chain and match; only chains that drop get them.
    """
    lines = listed.splitlines()
    lines_of_ours = [line for line in lines if _is_ours(line, bridge)]
    gone = ["-D" + line.removeprefix("-A") for line in lines_of_ours]
    dropping = {chain for chain in _CHAINS if _drops(lines, chain)}
    comment = f'-m comment --comment "lxpy {bridge}" -j ACCEPT'
    new = [f"-I {chain} {match} {comment}" for chain, match in wanted if chain in dropping]
    return gone + new


def _is_ours(line: str, bridge: str) -> bool:
    words = shlex.split(line)
    return (
        words[:1] == ["-A"]
        and "--comment" in words[:-1]
        and words[words.index("--comment") + 1] == f"lxpy {bridge}"
    )


def _drops(lines: list[str], chain: str) -> bool:
    """Whether a chain drops or rejects what reaches its end."""
    ends = (f"-A {chain} -j DROP", f"-A {chain} -j REJECT")
    return f"-P {chain} DROP" in lines or any(line.startswith(ends) for line in lines)


def _wanted(config: Bridge, family: Family, *, routed: bool) -> Iterator[tuple[str, str]]:
    address = config.ipv4 if family.version == 4 else config.ipv6
    if address is None or not config.flag(f"{family.name}.firewall"):
        return
    inside = f"-i {config.name}"
    for port in ("53", family.dhcp_port):
        yield "INPUT", f"{inside} -p udp -m udp --dport {port}"
    yield "INPUT", f"{inside} -p tcp -m tcp --dport 53"
    yield "INPUT", f"{inside} -p {family.icmp}"
    if config.flag(f"{family.name}.routing"):
        answers = "" if routed or not config.flag(f"{family.name}.nat") else (
            " -m conntrack --ctstate RELATED,ESTABLISHED"
        )  # fmt: skip
        yield "FORWARD", inside
        yield "FORWARD", f"-o {config.name}{answers}"
