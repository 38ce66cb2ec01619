"""Forwards: addresses of the host whose connections go on to guests of a network.

Source: LXD docs, "How to configure network forwards".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lxpy.errors import BadRequest, InvalidConfig
from lxpy.networks import addresses
from lxpy.networks.keys import Bridge
from lxpy.networks.nic import words

_PROTOCOLS = ("tcp", "udp")
_MAX_PORTS = 65_535


@dataclass(frozen=True, slots=True)
class ForwardPort:
    """Ports of the listen address that lead to a target; "" for `target_port`: the same ones."""

    protocol: str
    listen_port: str
    target_address: str
    target_port: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Forward:
    """One listen address; what no port says goes to `target_address` of the config, if set."""

    listen_address: str
    description: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[ForwardPort, ...] = ()

    @property
    def target(self) -> str:
        """Where everything else goes, "" for nowhere."""
        return self.config.get("target_address", "")


def parse_ports(text: str) -> list[int]:
    """Return the ports of "80,90-92", in their order. Raises InvalidConfig."""
    found: list[int] = []
    for part in words(text):
        first, dash, last = part.partition("-")
        if not all(each.strip().isascii() and each.strip().isdigit() for each in
                   ((first, last) if dash else (first,))):  # fmt: skip
            raise InvalidConfig(f'Invalid port "{part}": write a number, or FIRST-LAST')
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= _MAX_PORTS:
            raise InvalidConfig(f'Invalid port "{part}": ports are between 1 and {_MAX_PORTS}')
        found += range(low, high + 1)
    return found


def check_address(text: str, network: Bridge) -> str:
    """Return a listen address as it is kept. Raises BadRequest when a network cannot have it."""
    try:
        address = addresses.parse(text)
    except ValueError:
        raise BadRequest(
            f'Failed parsing address forward listen address "{text}": it is no IP address'
        ) from None
    own = network.ipv4 if address.version == 4 else network.ipv6
    if own is None:
        raise BadRequest(
            f'Cannot forward IPv{address.version} address "{text}": network "{network.name}" has '
            f"no ipv{address.version}.address"
        )
    if address.is_unspecified or address.is_multicast:
        raise BadRequest(f'Listen address "{text}" cannot be forwarded: it is that of no host')
    return str(address)


def validate(forward: Forward, network: Bridge) -> None:
    """Raise BadRequest, in LXD's words, when targets or ports are not right."""
    for key in forward.config:
        if key != "target_address" and not key.startswith("user."):
            raise BadRequest(f'Invalid option "{key}"')
    if forward.target and not _is_inside(forward.target, forward, network):
        raise BadRequest("Default target address is not within the network subnet")
    taken: set[tuple[str, int]] = set()
    for number, port in enumerate(forward.ports):
        _check_port(port, forward, network, f"in port specification {number}", taken)


def _check_port(
    port: ForwardPort, forward: Forward, network: Bridge, where: str, taken: set[tuple[str, int]]
) -> None:
    if port.protocol not in _PROTOCOLS:
        known = ", ".join(_PROTOCOLS)
        raise BadRequest(f"Invalid port protocol {where}, protocol must be one of: {known}")
    if not port.target_address or not _is_inside(port.target_address, forward, network):
        raise BadRequest(f"Target address is not within the network subnet {where}")
    try:
        listens, targets = parse_ports(port.listen_port), parse_ports(port.target_port)
    except InvalidConfig as error:
        raise BadRequest(f"{error} {where}") from error
    if not listens:
        raise BadRequest(f"Missing listen port {where}")
    if len(targets) > 1 and len(targets) != len(listens):
        raise BadRequest(f"Mismatch of listen port(s) and target port(s) count {where}")
    for each in listens:
        if (port.protocol, each) in taken:
            raise BadRequest(f'Duplicate listen port {each} for protocol "{port.protocol}" {where}')
        taken.add((port.protocol, each))


def _is_inside(text: str, forward: Forward, network: Bridge) -> bool:
    try:
        address = addresses.parse(text)
    except ValueError:
        return False
    listen = ipaddress.ip_address(forward.listen_address)
    own = network.ipv4 if address.version == 4 else network.ipv6
    return own is not None and address.version == listen.version and address in own.network


@dataclass(frozen=True, slots=True)
class Translation:
    """One rule: packets to `listen` with `ports` go to `target`; "" and () for all packets.

    `first_target` is the port that the first of `ports` becomes, 0 where they stay the same.
    """

    family: str
    listen: str
    target: str
    protocol: str = ""
    ports: tuple[int, int] = (0, 0)
    first_target: int = 0

    @property
    def match(self) -> str:
        """What of nft selects the packets by their destination."""
        found = f"{self.family} daddr {self.listen}"
        return f"{found} {self.protocol} dport {_range(*self.ports)}" if self.protocol else found

    @property
    def destination(self) -> str:
        """Where nft sends them."""
        shown = f"[{self.target}]" if self.family == "ip6" else self.target
        if not self.first_target:
            return self.target
        return f"{shown}:{self.first_target}"

    @property
    def hairpin(self) -> str:
        """What of nft selects packets of a target to itself, after they were sent there."""
        found = f"{self.family} saddr {self.target} {self.family} daddr {self.target}"
        if not self.protocol:
            return found
        first = self.first_target or self.ports[0]
        last = first if self.first_target else self.ports[1]
        return f"{found} {self.protocol} dport {_range(first, last)}"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def translations(forwards: Iterable[Forward]) -> Iterator[Translation]:
    """Yield the rules of forwards, those of ports before those of whole addresses."""
    for forward in forwards:
        family = "ip6" if ":" in forward.listen_address else "ip"
        for port in forward.ports:
            yield from _of_port(forward.listen_address, family, port)
    for forward in forwards:
        family = "ip6" if ":" in forward.listen_address else "ip"
        if forward.target:
            yield Translation(family, forward.listen_address, forward.target)


def _of_port(listen: str, family: str, port: ForwardPort) -> Iterator[Translation]:
    listens, targets = parse_ports(port.listen_port), parse_ports(port.target_port)
    if not targets or targets == listens:
        for part in words(port.listen_port):
            first, _, last = part.partition("-")
            ports = int(first), int(last or first)
            yield Translation(family, listen, port.target_address, port.protocol, ports)
        return
    if len(targets) == 1:
        targets *= len(listens)
    for each, target in zip(listens, targets, strict=True):
        yield Translation(family, listen, port.target_address, port.protocol, (each, each), target)
