"""ACLs: rules for what enters a network (ingress) and what leaves it (egress).

They judge what passes between a network and the host or other networks; guests of one bridge reach
each other past them. Source: LXD docs, "How to configure network ACLs".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from lxpy.errors import BadRequest, InvalidConfig
from lxpy.networks import addresses
from lxpy.networks.forwards import parse_ports
from lxpy.networks.keys import Bridge
from lxpy.networks.nic import words

DIRECTIONS = ("ingress", "egress")
_ACTIONS = ("drop", "reject", "allow")  # in the order in which they are looked at
_STATES = ("enabled", "disabled", "logged")
_ICMP = {"icmp4": "icmp", "icmp6": "icmpv6"}
_PROTOCOLS = ("tcp", "udp", *_ICMP)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_SUBJECT_NAME = re.compile(r"@?[A-Za-z][A-Za-z0-9-]*(/[A-Za-z0-9-]+)?")
_GROUPS = ("@internal", "@external")
_VERDICTS = {"allow": "accept", "drop": "drop", "reject": "reject"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; "" for what it does not look at."""

    action: str
    state: str = "enabled"
    source: str = ""
    destination: str = ""
    protocol: str = ""
    source_port: str = ""
    destination_port: str = ""
    icmp_type: str = ""
    icmp_code: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Acl:
    """Rules by a name."""

    name: str
    description: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()

    def rules(self, direction: str) -> tuple[Rule, ...]:
        """Return the rules of "ingress" or "egress"."""
        return self.ingress if direction == "ingress" else self.egress

    def mentioned(self) -> set[str]:
        """Return the names of ACLs that rules of this one speak of."""
        return {
            each
            for direction in DIRECTIONS
            for rule in self.rules(direction)
            for each in words(f"{rule.source},{rule.destination}")
            if _NAME.fullmatch(each)
        }


def check_name(name: str) -> None:
    """Raise BadRequest, in LXD's words, unless that is the name of an ACL."""
    if not name:
        raise BadRequest("Name is required")
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise BadRequest("Name can only contain alphanumeric and hyphen characters")
    if not _NAME.fullmatch(name):
        raise BadRequest("Name must start with a letter, and have 63 characters at most")


def validate(acl: Acl, others: Iterable[str] = ()) -> None:
    """Raise BadRequest, in LXD's words, at the first option or rule that is not right.

    `others` are the names of ACLs that rules may speak of, besides its own.
    """
    names = {acl.name, *others, *_GROUPS}
    for key in acl.config:
        if not key.startswith("user."):
            raise BadRequest(f'Invalid config option "{key}"')
    for direction in DIRECTIONS:
        rules = acl.rules(direction)
        for number, rule in enumerate(rules):
            if rule in rules[:number]:
                raise BadRequest(f"Duplicate of {direction} rule {rules.index(rule)}")
            try:
                _check(rule, names)
            except InvalidConfig as error:
                raise BadRequest(f"Invalid {direction} rule {number}: {error}") from error


def _check(rule: Rule, names: Set[str]) -> None:
    if rule.action not in _ACTIONS:
        raise InvalidConfig("Action must be one of: allow, drop, reject")
    if rule.state not in _STATES:
        raise InvalidConfig("State must be one of: disabled, enabled, logged")
    for name, text in (("Source", rule.source), ("Destination", rule.destination)):
        for each in words(text):
            _check_subject(name, each, names)
    if rule.protocol and rule.protocol not in _PROTOCOLS:
        raise InvalidConfig("Protocol must be one of: icmp4, icmp6, tcp, udp")
    ports = (("Source port", rule.source_port), ("Destination port", rule.destination_port))
    for name, text in ports:
        if text and not rule.protocol:
            raise InvalidConfig(f"{name} cannot be used without specifying protocol")
        if text and rule.protocol in _ICMP:
            raise InvalidConfig(f"{name} cannot be used with {rule.protocol} protocol")
        parse_ports(text)
    for name, text in (("ICMP type", rule.icmp_type), ("ICMP code", rule.icmp_code)):
        if text and rule.protocol not in _ICMP:
            raise InvalidConfig(f"{name} cannot be used with non-ICMP protocol")
        if text and not (text.isascii() and text.isdigit() and int(text) < 256):
            raise InvalidConfig(f'Invalid {name} "{text}": it is a number below 256')


def _check_subject(name: str, text: str, names: Set[str]) -> None:
    if text in names:
        return
    try:
        _parse(text)
    except ValueError:
        raise InvalidConfig(f'Invalid {name}: Invalid subject "{text}"') from None


def _parse(text: str) -> tuple[int, str]:
    """Return version and nft's words for an address, a subnet or a range. Raises ValueError."""
    first, dash, last = text.partition("-")
    if "%" in text:  # a scope, which may be any text
        raise ValueError(text)
    if not dash:
        network = ipaddress.ip_network(text, strict=False)
        plain = network.prefixlen == network.max_prefixlen
        return network.version, str(network.network_address if plain else network)
    low, high = addresses.parse(first.strip()), addresses.parse(last.strip())
    if low.version != high.version or int(low) > int(high):
        raise ValueError(text)
    return low.version, f"{low}-{high}"


def check_usable(acl: Acl, network: str) -> None:
    """Raise BadRequest when an ACL has rules that cannot be kept on a bridge."""
    for direction in DIRECTIONS:
        for rule in acl.rules(direction):
            for each in words(f"{rule.source},{rule.destination}"):
                if _SUBJECT_NAME.fullmatch(each) and each not in _GROUPS:
                    raise BadRequest(
                        f'Unsupported nftables subject "{each}": ACL "{acl.name}" cannot be put '
                        f'on network "{network}", as only OVN knows the nics of an ACL; '
                        "write addresses"
                    )


# Rules of nft


def lines(acls: Sequence[Acl], network: Bridge) -> Iterator[str]:
    """Yield the rules of ACLs on a network, in the order in which they are looked at."""
    for action in _ACTIONS:
        for acl in acls:
            for direction in DIRECTIONS:
                for number, rule in enumerate(acl.rules(direction)):
                    if rule.action == action and rule.state != "disabled":
                        prefix = log_prefix(acl.name, direction, str(number), action)
                        yield from _rule(rule, direction, prefix, network)
    for direction in DIRECTIONS:
        action = network.text(f"security.acls.default.{direction}.action") or "reject"
        rule = Rule(action)
        if network.flag(f"security.acls.default.{direction}.logged"):
            rule = Rule(action, state="logged")
        prefix = log_prefix(network.name, direction, "default", action)
        yield from _rule(rule, direction, prefix, network)


def log_prefix(acl: str, direction: str, number: str, action: str) -> str:
    """Return how a line of the kernel's log begins that a rule has written."""
    return f"lxpy acl {acl} {direction} {number} {action}: "


def _rule(rule: Rule, direction: str, prefix: str, network: Bridge) -> Iterator[str]:
    interface = "oifname" if direction == "ingress" else "iifname"
    log = f'log prefix "{prefix}" ' if rule.state == "logged" else ""
    for match in _matches(rule, network):
        yield f'{interface} "{network.name}" {match}{log}{_VERDICTS[rule.action]}'


def _matches(rule: Rule, network: Bridge) -> Iterator[str]:
    """Yield what selects the packets of a rule, by IP version where addresses are looked at."""
    end = _protocol(rule)
    if not rule.source and not rule.destination:
        yield end
        return
    for version, family in ((4, "ip"), (6, "ip6")):
        parts = []
        for key, text in (("saddr", rule.source), ("daddr", rule.destination)):
            if text:
                parts.append(_addresses(family, version, key, text, network))
        if all(parts):
            yield "".join(parts) + end


def _addresses(family: str, version: int, key: str, text: str, network: Bridge) -> str:
    """Return nft's words for addresses of one version, "" when there are none."""
    own = network.ipv4 if version == 4 else network.ipv6
    found = []
    for each in words(text):
        if each == "@internal" and own is not None:
            found.append(str(own.network))
        elif each == "@external":
            return f"{family} {key} != {own.network} " if own is not None else ""
        elif not each.startswith("@"):
            kind, shown = _parse(each)
            if kind == version:
                found.append(shown)
    return f"{family} {key} {{ {', '.join(found)} }} " if found else ""


def _protocol(rule: Rule) -> str:
    if not rule.protocol:
        return ""
    if rule.protocol in _ICMP:
        name = _ICMP[rule.protocol]
        found = f"{name} type {rule.icmp_type} " if rule.icmp_type else f"meta l4proto {name} "
        return f"{found}{name} code {rule.icmp_code} " if rule.icmp_code else found
    found = ""
    for key, text in (("sport", rule.source_port), ("dport", rule.destination_port)):
        if text:
            found += f"{rule.protocol} {key} {{ {', '.join(_compact(words(text)))} }} "
    return found or f"meta l4proto {rule.protocol} "


def _compact(parts: Iterable[str]) -> Iterator[str]:
    for part in parts:
        yield part.replace(" ", "")
