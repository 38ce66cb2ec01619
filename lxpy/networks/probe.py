"""Asks the neighbours on an interface whether one of them has an address: ARP and NDP by hand.

Source: RFC 826, RFC 5227, RFC 4861.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from lxpy.networks.interfaces import Interface

_WAIT_S = 0.5
_ARP = 0x0806
_ARP_HEAD = struct.Struct("!HHBBH")
_SOLICIT, _ADVERT = 135, 136
_EVERYBODY = b"\xff" * 6


async def answers(interface: Interface, address: str) -> bool:
    """Tell whether somebody on an interface answers for an address within half a second.

    What cannot be asked, as the interface is off or has no address of its own, is not answered.
    """
    wanted = ipaddress.ip_address(address)
    with contextlib.suppress(OSError):
        if isinstance(wanted, IPv4Address):
            return await _ask_by_arp(interface, wanted)
        return await _ask_by_ndp(interface, wanted)
    return False


async def _ask_by_arp(interface: Interface, wanted: IPv4Address) -> bool:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP)) as link:
        link.setblocking(False)
        link.bind((interface.name, _ARP))
        link.send(arp_request(interface.hwaddr, wanted))
        return await _heard(link, lambda frame: is_arp_answer(frame, wanted))


def arp_request(hwaddr: str, wanted: IPv4Address) -> bytes:
    """Return the frame that asks who has an address, and claims none for itself."""
    own = bytes.fromhex(hwaddr.replace(":", ""))
    head = _EVERYBODY + own + struct.pack("!H", _ARP) + _ARP_HEAD.pack(1, 0x0800, 6, 4, 1)
    return (head + own + bytes(4) + bytes(6) + wanted.packed).ljust(60, b"\0")


def is_arp_answer(frame: bytes, wanted: IPv4Address) -> bool:
    """Tell whether a frame says that its sender has an address."""
    return len(frame) >= 42 and frame[20:22] == b"\0\2" and frame[28:32] == wanted.packed


async def _ask_by_ndp(interface: Interface, wanted: IPv6Address) -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as link:
        link.setblocking(False)
        device = interface.name.encode() + b"\0"
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        link.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        group = IPv6Address(b"\xff\x02" + bytes(9) + b"\x01\xff" + wanted.packed[-3:])
        link.sendto(solicitation(interface.hwaddr, wanted), (str(group), 0, 0, interface.index))
        return await _heard(link, lambda packet: is_advertisement(packet, wanted))


def solicitation(hwaddr: str, wanted: IPv6Address) -> bytes:
    """Return the ICMPv6 message that asks for a neighbour; the kernel fills in its checksum."""
    own = bytes.fromhex(hwaddr.replace(":", ""))
    return bytes((_SOLICIT, 0, 0, 0)) + bytes(4) + wanted.packed + b"\1\1" + own


def is_advertisement(packet: bytes, wanted: IPv6Address) -> bool:
    """Tell whether an ICMPv6 message says that its sender has an address."""
    return len(packet) >= 24 and packet[0] == _ADVERT and packet[8:24] == wanted.packed


async def _heard(link: socket.socket, is_answer: Callable[[bytes], bool]) -> bool:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_WAIT_S):
            while True:
                if is_answer(await loop.sock_recv(link, 2048)):
                    return True
    except TimeoutError:
        return False
