"""nftables: one table of our own per network, changed in one transaction; nobody else's is flushed.

A packet must be accepted by every base chain it passes: where Docker, ufw or firewalld drop what
they do not know, our own accept is not enough. There, rules that bear our comment are put first.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Network,
    IPv6Network,
    collapse_addresses,
)
from typing import Any

from lxpy.errors import Failed
from lxpy.networks import xtables
from lxpy.networks.keys import Bridge
from lxpy.networks.nic import Nic
from lxpy.networks.policy import Policy
from lxpy.networks.render import render
from lxpy.programs import run
from lxpy.threads import in_thread

_FAMILIES = ("ip", "ip6", "inet")
_TRIES = 3
_HOOKS = ("forward", "input")
_MIN_BURST = 64 * 1024  # the largest packet that a veth hands over in one piece


def table_name(bridge: str) -> str:
    """Return the name of a network's tables (families inet and bridge)."""
    return f"lxpy_{bridge}"


@dataclass(frozen=True, slots=True)
class ForeignChain:
    """A base chain of somebody else that drops what it does not know."""

    family: str
    table: str
    name: str
    hook: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """What of others concerns us: chains that drop, our own rules in them (by handle), and the
    families in which iptables-nft has chains.
    """

    chains: tuple[ForeignChain, ...] = ()
    ours: tuple[tuple[str, str, str, int], ...] = ()
    iptables: frozenset[str] = frozenset()


async def apply(
    config: Bridge,
    subnets: Sequence[IPv4Network | IPv6Network] = (),
    policy: Policy | None = None,
) -> Foreign:
    """Make the tables of a network what its config and policy ask for; return what others drop.

    `subnets` are routed to its guests besides its own. Raises MissingTool, Failed.
    """
    policy = policy or Policy()
    forwarded = policy.versions
    own = await in_thread(bridge_rules, config, policy)
    for attempt in range(_TRIES):
        foreign = await read_foreign(config.name)
        rules = own + "".join(f"{line}\n" for line in accepts(config, foreign, subnets, forwarded))
        try:
            await run_nft(rules)
            break
        except Failed:  # somebody has changed his chains since we looked
            if attempt == _TRIES - 1:
                raise
    await xtables.apply(config, subnets, foreign.iptables, forwarded)
    return foreign


async def remove(bridge: str) -> None:
    """Remove everything that a network has in the firewall. Raises MissingTool, Failed."""
    foreign = await read_foreign(bridge)
    lines = [*_drop_table("inet", bridge), *_drop_table("bridge", bridge), *_withdrawn(foreign)]
    await run_nft("\n".join(lines) + "\n")
    await xtables.remove(bridge, foreign.iptables)


async def read_foreign(bridge: str) -> Foreign:
    """Look at the rules of others. Raises MissingTool, Failed."""
    done = await run("nft", "-j", "-t", "list", "ruleset")
    return await in_thread(find_foreign, done.stdout, bridge)


def find_foreign(ruleset: bytes, bridge: str) -> Foreign:
    """Find what concerns a network in the output of `nft -j list ruleset`."""
    chains: dict[tuple[str, str, str], tuple[ForeignChain, bool]] = {}
    ours: list[tuple[str, str, str, int]] = []
    iptables: set[str] = set()
    for item in json.loads(ruleset or b"{}").get("nftables", []):
        if "chain" in item and _is_foreign(item["chain"]):
            chain = item["chain"]
            key = (chain["family"], chain["table"], chain["name"])
            if xtables.manages(*key):
                iptables.add(chain["family"])
            else:
                chains[key] = (ForeignChain(*key, chain["hook"]), chain.get("policy") == "drop")
        elif "rule" in item:
            rule = item["rule"]
            key = (rule["family"], rule["table"], rule["chain"])
            if rule.get("comment") == _comment(bridge):
                ours.append((*key, rule["handle"]))
            elif key in chains and _drops_all(rule["expr"]):
                chains[key] = (chains[key][0], True)
    dropping = tuple(chain for chain, drops in chains.values() if drops)
    return Foreign(dropping, tuple(ours), frozenset(iptables))


def _is_foreign(chain: Mapping[str, Any]) -> bool:
    return (
        chain.get("hook") in _HOOKS
        and chain["family"] in _FAMILIES
        and not chain["table"].startswith("lxpy_")
    )


def _drops_all(expressions: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a rule drops or rejects whatever reaches it."""
    words = [word for each in expressions for word in each]
    last = {"drop", "reject"}
    return bool(last.intersection(words)) and not set(words) - {*last, "counter", "log"}


def bridge_rules(config: Bridge, policy: Policy | None = None) -> str:
    """Return the transaction that makes a network's own table."""
    return render(
        "bridge.nft.j2",
        table=table_name(config.name),
        bridge=config.name,
        ipv4=_family(config, "ipv4"),
        ipv6=_family(config, "ipv6"),
        translations=policy.translations() if policy else [],
        rules=list(policy.rules(config)) if policy else [],
    )


def _family(config: Bridge, family: str) -> dict[str, Any] | None:
    address = config.ipv4 if family == "ipv4" else config.ipv6
    if address is None:
        return None
    return {
        "firewall": config.flag(f"{family}.firewall"),
        "routing": config.flag(f"{family}.routing"),
        "nat": config.flag(f"{family}.nat"),
        "nat_before": config.text(f"{family}.nat.order") == "before",
        "nat_address": config.text(f"{family}.nat.address"),
        "subnet": str(address.network),
    }


def accepts(
    config: Bridge,
    foreign: Foreign,
    subnets: Sequence[IPv4Network | IPv6Network] = (),
    forwarded: Collection[int] = (),
) -> Iterator[str]:
    """Yield what lets a network's traffic pass the chains of others, old rules withdrawn.

    Guests behind NAT get answers, and what is `forwarded` (IP versions); those with routed
    addresses can be reached.
    """
    yield from _withdrawn(foreign)
    for chain in foreign.chains:
        for family, nfproto in (("ipv4", "ip"), ("ipv6", "ip6")):
            kind = _family(config, family)
            if kind is None or not kind["firewall"] or chain.family not in (nfproto, "inet"):
                continue
            version = 4 if family == "ipv4" else 6
            routed = any(each.version == version for each in subnets)
            proto = f" meta nfproto {family}" if chain.family == "inet" else ""
            matches = [*_matches(config.name, chain.hook, family, kind, routed)]
            if version in forwarded and chain.hook == "forward":
                matches.append(f'oifname "{config.name}"| ct status dnat')
            for match in matches:
                interface, _, rest = match.partition("|")
                yield (
                    f"insert rule {chain.family} {_quoted(chain.table)} {_quoted(chain.name)} "
                    f'{interface}{proto}{rest} accept comment "{_comment(config.name)}"'
                )


def _matches(
    bridge: str, hook: str, family: str, kind: Mapping[str, Any], routed: bool
) -> Iterator[str]:
    """Yield what to accept: "INTERFACE|REST"."""
    inside, outside = f'iifname "{bridge}"|', f'oifname "{bridge}"|'
    if hook == "input":
        yield f"{inside} udp dport {'{ 53, 67 }' if family == 'ipv4' else '{ 53, 547 }'}"
        yield f"{inside} tcp dport 53"
        yield f"{inside} meta l4proto {'icmp' if family == 'ipv4' else 'icmpv6'}"
    elif kind["routing"]:
        yield inside
        answers_only = kind["nat"] and not routed
        yield f"{outside} ct state established,related" if answers_only else outside


def _withdrawn(foreign: Foreign) -> Iterator[str]:
    for family, table, chain, handle in foreign.ours:
        yield f"delete rule {family} {_quoted(table)} {_quoted(chain)} handle {handle}"


def _comment(bridge: str) -> str:
    return f"lxpy {bridge}"


def _quoted(name: str) -> str:
    """Return a name of others as nft takes it: letters, digits and a few signs need no quotes."""
    return name if name.replace("_", "").replace("-", "").isalnum() else f'"{name}"'


def _drop_table(family: str, bridge: str) -> tuple[str, str]:
    """Delete a table that perhaps is not there: `destroy` needs a newer nft than Debian 12 has."""
    name = table_name(bridge)
    return f"add table {family} {name}", f"delete table {family} {name}"


async def run_nft(rules: str) -> None:
    """Change the rules, in one transaction. Raises MissingTool, Failed."""
    await run("nft", "-f", "-", input=rules.encode())


@dataclass(frozen=True, slots=True)
class Allowed:
    """The addresses that may leave an interface; None where its family is not filtered."""

    ipv4: tuple[IPv4Network, ...] | None = None
    ipv6: tuple[IPv6Network, ...] | None = None


def needs_rules(nic: Nic) -> bool:
    """Tell whether an interface needs a chain of its own."""
    return nic.filters_mac or nic.egress_bits > 0 or nic.priority > 0


def nic_rules(nic: Nic, allowed: Allowed) -> list[str]:
    """Return the rules of what an interface may send, in order."""
    rules: list[str] = []
    if nic.filters_mac:
        rules += [
            f"ether saddr != {nic.hwaddr} drop",
            f"ether type arp arp saddr ether != {nic.hwaddr} drop",
            "ether type { 0x8100, 0x88a8 } drop",  # a tag would hide what the others look at
        ]
    if allowed.ipv4 is not None and allowed.ipv6 is not None:
        rules.append("ether type != { arp, ip, ip6 } drop")
    if allowed.ipv4 is not None:
        rules += _ipv4_rules(allowed.ipv4)
    if allowed.ipv6 is not None:
        rules += _ipv6_rules(allowed.ipv6)
    return rules + limit_rules(nic)


def limit_rules(nic: Nic) -> list[str]:
    """Return the rules of how much an interface may send, and how urgent that is."""
    rules: list[str] = []
    if nic.priority:
        rules.append(f"meta priority set {nic.priority >> 16:x}:{nic.priority & 0xFFFF:x}")
    if nic.egress_bits:
        rate = max(1, nic.egress_bits // 8)
        burst = max(rate // 10, _MIN_BURST)
        rules.append(f"limit rate over {rate} bytes/second burst {burst} bytes drop")
    return rules


def _ipv4_rules(allowed: tuple[IPv4Network, ...]) -> list[str]:
    """Let out its own addresses, and what asks for one: DHCP, and ARP probes."""
    if not allowed:
        return ["ether type { arp, ip } drop"]
    shown = ", ".join(map(_shown, collapse_addresses(allowed)))
    return [
        f"ether type arp arp saddr ip != {{ 0.0.0.0, {shown} }} drop",
        f"ether type ip ip saddr != {{ 0.0.0.0, {shown} }} drop",
        "ip saddr 0.0.0.0 ip daddr != 255.255.255.255 drop",
        "ip saddr 0.0.0.0 ip protocol != udp drop",
        "ip saddr 0.0.0.0 udp dport != 67 drop",
    ]


def _ipv6_rules(allowed: tuple[IPv6Network, ...]) -> list[str]:
    """Let out its own and link-local addresses; no claim to be a router or somebody else."""
    if not allowed:
        return ["ether type ip6 drop"]
    known = list(collapse_addresses(allowed))
    shown = ", ".join(map(_shown, known))
    # The address that is claimed: 16 bytes, 8 bytes into the message.
    others = " ".join(
        f"@th,64,{bits} != 0x{int(each.network_address) >> (128 - bits):x}"
        for each in known
        if (bits := each.prefixlen)
    )
    return [
        f"ether type ip6 ip6 saddr != {{ ::, fe80::/10, {shown} }} drop",
        "icmpv6 type { nd-router-advert, nd-redirect } drop",
        f"icmpv6 type nd-neighbor-advert @th,64,10 != 0x3fa {others} drop",
    ]


def _shown(subnet: IPv4Network | IPv6Network) -> str:
    return str(subnet.network_address if subnet.prefixlen == subnet.max_prefixlen else subnet)


async def add_nic(bridge: str, host_name: str, nic: Nic, allowed: Allowed) -> None:
    """Filter what comes from the host's end of an interface. Raises MissingTool, Failed."""
    rules = await in_thread(
        render, "nic.nft.j2", table=table_name(bridge), chain=_chain(host_name),
        host_name=host_name, rules=nic_rules(nic, allowed),
    )  # fmt: skip
    await run_nft(rules)


async def remove_nic(bridge: str, host_name: str, *, last: bool) -> None:
    """Stop filtering an interface; with the `last` one its table goes. Raises Failed."""
    if last:
        await run_nft("\n".join(_drop_table("bridge", bridge)) + "\n")
        return
    table, chain = f"bridge {table_name(bridge)}", _chain(host_name)
    await run_nft(
        f'delete element {table} nics {{ "{host_name}" }}\n'
        f"flush chain {table} {chain}\ndelete chain {table} {chain}\n"
    )


async def filtered_bridges() -> set[str]:
    """Return the bridges that have filters of interfaces. Raises MissingTool, Failed."""
    done = await run("nft", "-j", "list", "tables", "bridge")
    tables = [each["table"]["name"] for each in json.loads(done.stdout)["nftables"][1:]]
    return {name.removeprefix("lxpy_") for name in tables if name.startswith("lxpy_")}


async def forget_nics(bridge: str) -> None:
    """Remove the filters of all interfaces of a network. Raises MissingTool, Failed."""
    await run_nft("\n".join(_drop_table("bridge", bridge)) + "\n")


def _chain(host_name: str) -> str:
    """Return a chain's name for an interface's: other signs than letters and digits are coded."""
    return "nic_" + "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in host_name)
