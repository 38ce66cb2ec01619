"""Subnets and addresses: free ones are found by looking at what the host knows, never by asking
the wire (a gateway that answers for every address would leave none).
"""

from __future__ import annotations

import hashlib
import ipaddress
import random
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from lxpy.errors import Failed, InvalidConfig, Unavailable

Subnet = IPv4Network | IPv6Network
Range = tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]

HWADDR_PREFIX = "00:16:3e"
_TRIES = 1000


class NoFreeSubnet(Unavailable):
    """Every subnet that was tried overlaps with one that the host uses."""

    def __init__(self, family: str, tried: int) -> None:
        super().__init__(
            f"Failed to automatically find an unused {family} subnet: {tried} were tried and all "
            f"overlap with routes or addresses of this host; set {family.lower()}.address"
        )


class NoFreeAddress(Unavailable):
    """Every address of the network is taken."""

    def __init__(self, network: str, subnet: object) -> None:
        super().__init__(
            f'No free address in {subnet} of network "{network}": delete instances, or give the '
            "network a larger subnet (ipv4.address)"
        )


def free_ipv4(taken: Iterable[Subnet], rng: random.Random | None = None) -> IPv4Interface:
    """Return a gateway's address 10.x.y.1/24 whose subnet overlaps with none of `taken`.

    Raises NoFreeSubnet.
    """
    pick = rng or random.SystemRandom()
    used = [each for each in taken if isinstance(each, IPv4Network) and each.prefixlen > 0]
    for _ in range(_TRIES):
        address = IPv4Interface(f"10.{pick.randint(0, 255)}.{pick.randint(1, 255)}.1/24")
        if not any(address.network.overlaps(each) for each in used):
            return address
    raise NoFreeSubnet("IPv4", _TRIES)


def free_ipv6(taken: Iterable[Subnet], rng: random.Random | None = None) -> IPv6Interface:
    """Return a gateway's address fd42:a:b:c::1/64 whose subnet overlaps with none of `taken`.

    Raises NoFreeSubnet.
    """
    pick = rng or random.SystemRandom()
    used = [each for each in taken if isinstance(each, IPv6Network) and each.prefixlen > 0]
    for _ in range(_TRIES):
        groups = ":".join(f"{pick.getrandbits(16):x}" for _ in range(3))
        address = IPv6Interface(f"fd42:{groups}::1/64")
        if not any(address.network.overlaps(each) for each in used):
            return address
    raise NoFreeSubnet("IPv6", _TRIES)


def free_hwaddr(taken: Collection[str], rng: random.Random | None = None) -> str:
    """Return a random MAC address 00:16:3e:xx:xx:xx (lower case) that is not in `taken`.

    Raises Failed.
    """
    pick = rng or random.SystemRandom()
    for _ in range(_TRIES):
        found = _hwaddr(pick.getrandbits(24))
        if found not in taken:
            return found
    raise Failed("No free MAC address was found: too many instances have one, set hwaddr")


def stable_hwaddr(*names: str) -> str:
    """Return a MAC address that depends on names only: a bridge's own stays the same."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return _hwaddr(int.from_bytes(digest[:3], "big"))


def host_end_hwaddr(hwaddr: str) -> str:
    """Return the MAC of the host's end of an interface.

    A bridge without an address of its own takes the lowest of its ports: ours is never that.
    """
    return f"fe:{hwaddr[3:]}"


def _hwaddr(number: int) -> str:
    return f"{HWADDR_PREFIX}:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


def eui64(subnet: IPv6Network, hwaddr: str) -> IPv6Address:
    """Return the address that a MAC gives itself in a /64 (RFC 4291, appendix A)."""
    octets = bytes.fromhex(hwaddr.replace(":", ""))
    suffix = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return subnet[int.from_bytes(suffix, "big")]


def parse(text: str) -> IPv4Address | IPv6Address:
    """Return a plain address: one with a scope, which may be any text, is none.

    Raises ValueError.
    """
    if "%" in text:
        raise ValueError(text)
    return ipaddress.ip_address(text)


def interface(text: str) -> IPv4Interface | IPv6Interface | None:
    """Return the address of a config value, None for "", "none" and "auto"."""
    return None if text in ("", "none", "auto") else ipaddress.ip_interface(text)


def whole_range(subnet: Subnet) -> Range | None:
    """Return the first and last address that guests may have: not the network's first two.

    None where the subnet has no room for guests.
    """
    if isinstance(subnet, IPv4Network):
        return None if subnet.prefixlen > 30 else (subnet[2], subnet[-2])
    return None if subnet.prefixlen > 126 else (subnet[2], subnet[-1])


def ranges(text: str, subnet: Subnet) -> list[Range]:
    """Return the ranges of "A-B,C-D", by default the whole subnet.

    Raises InvalidConfig when one is reversed or outside of the subnet.
    """
    if not text:
        whole = whole_range(subnet)
        return [] if whole is None else [whole]
    return [_range(part.strip(), subnet) for part in text.split(",")]


def _range(text: str, subnet: Subnet) -> Range:
    try:
        first, last = (ipaddress.ip_address(each.strip()) for each in text.split("-"))
    except ValueError:
        raise InvalidConfig(f'Invalid address range "{text}": write FIRST-LAST') from None
    if first not in subnet or last not in subnet:
        raise InvalidConfig(f'Address range "{text}" is outside of the subnet {subnet}')
    if isinstance(first, IPv4Address) and isinstance(last, IPv4Address) and first <= last:
        return first, last
    if isinstance(first, IPv6Address) and isinstance(last, IPv6Address) and first <= last:
        return first, last
    raise InvalidConfig(f'Address range "{text}" ends before it begins')


def size(found: Iterable[Range]) -> int:
    """Return how many addresses ranges have."""
    return sum(int(last) - int(first) + 1 for first, last in found)


def within(address: str, found: Iterable[Range]) -> bool:
    """Tell whether an address ("" is none) is in one of some ranges."""
    if not address:
        return False
    wanted = ipaddress.ip_address(address)
    return any(
        wanted.version == first.version and int(first) <= int(wanted) <= int(last)
        for first, last in found
    )


def free_address(
    network: str, found: Iterable[Range], is_taken: Callable[[str], bool], hwaddr: str
) -> str:
    """Return an address of IPv4 ranges that is not taken; a MAC gets the same one again.

    Raises NoFreeAddress.
    """
    wanted = list(found)
    for address in _from_hash(wanted, hwaddr):
        if not is_taken(address):
            return address
    raise NoFreeAddress(network, ", ".join(f"{first}-{last}" for first, last in wanted))


def _from_hash(found: list[Range], hwaddr: str) -> Iterator[str]:
    """Yield every address of ranges once, beginning at a place that depends on the MAC."""
    total = size(found)
    start = int.from_bytes(hashlib.sha256(hwaddr.encode()).digest()[:8], "big") % max(total, 1)
    for step in range(total):
        place = (start + step) % total
        for first, last in found:
            length = int(last) - int(first) + 1
            if place < length:
                yield str(first + place)
                break
            place -= length
