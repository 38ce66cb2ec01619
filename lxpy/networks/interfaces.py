"""Reads interfaces, addresses and counters of the host and of guests: rtnetlink by hand.

A guest's namespace is named by an id (RTM_GETNSID), so that nothing forks and nobody enters it.
One socket, one thread, no waiting: the kernel answers a request before `send` returns. Decoding
only what is shown, this reads a guest in a tenth of a millisecond; a general netlink library needs
some milliseconds. Source: rtnetlink(7), include/uapi/linux/{if_link,net_namespace}.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

_NETLINK_ROUTE = 0
_SOL_NETLINK, _STRICT_CHECK = 270, 12
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_GETLINK, _GETADDR, _NEWNSID, _GETNSID = 18, 22, 88, 90
_NESTED = 0x3FFF  # the bits of an attribute's type that are its number

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_U16, _U32, _S32 = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=i")
_STATS = struct.Struct("=8Q")

_UP, _BROADCAST, _LOOPBACK, _POINT_TO_POINT = 0x1, 0x2, 0x8, 0x10
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "local"}
_BUFFER_BYTES = 1 << 18

#: indexes from here on are those of interfaces that lxpy made, on the host and in guests
FIRST_INDEX = 1_000_000


@dataclass(frozen=True, slots=True)
class Counters:
    """What went through an interface, as seen from where it is."""

    bytes_received: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    packets_sent: int = 0
    errors_received: int = 0
    errors_sent: int = 0
    packets_dropped_inbound: int = 0
    packets_dropped_outbound: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """One address; `prefix` is its length in bits, `scope` global, link or local."""

    family: str
    address: str
    prefix: int
    scope: str


@dataclass(frozen=True, slots=True)
class BridgeInfo:
    """How a bridge is set; times in hundredths of a second."""

    id: str
    stp: bool
    forward_delay: int
    vlan_default: int
    vlan_filtering: bool


@dataclass(slots=True)
class Interface:
    """An interface. `kind` is "" for hardware, else "bridge", "veth", "vlan" ...

    `peer` and `master` are indexes, 0 for none; `alias` is the note that lxpy left on it.
    """

    index: int
    name: str
    flags: int
    hwaddr: str = ""
    mtu: int = 0
    master: int = 0
    peer: int = 0
    peer_elsewhere: bool = False
    kind: str = ""
    alias: str = ""
    counters: Counters = Counters()
    bridge: BridgeInfo | None = None
    vlan: int = 0
    addresses: list[Address] = field(default_factory=list)

    @property
    def up(self) -> bool:
        """Whether it is switched on."""
        return bool(self.flags & _UP)

    @property
    def loopback(self) -> bool:
        """Whether it leads back to where it is."""
        return bool(self.flags & _LOOPBACK)

    @property
    def type(self) -> str:
        """What LXD's state calls its type."""
        if self.loopback:
            return "loopback"
        if self.flags & _POINT_TO_POINT:
            return "point-to-point"
        return "broadcast" if self.flags & _BROADCAST else "unknown"


class Interfaces:
    """Reads interfaces through one socket."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE
        )
        self._socket.setblocking(False)
        # Without it the kernel ignores the namespace in a request for addresses.
        self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        self._socket.bind((0, 0))
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def host(self, *, addresses: bool = True) -> list[Interface]:
        """Return the host's interfaces. Raises OSError."""
        return self._read(None, addresses)

    def guest(self, pid: int) -> list[Interface]:
        """Return the interfaces in the network namespace of a process. Raises OSError."""
        return self._read(self._namespace_id(pid), True)

    def find(self, name: str) -> Interface | None:
        """Return the host's interface of that name, with its addresses. Raises OSError."""
        request = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        request += _attribute(3, name.encode()[:15] + b"\0")
        try:
            payloads = self._exchange(_GETLINK, _REQUEST, request)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return None
        found = _interface(payloads[0])
        self._add_addresses({found.index: found}, None, found.index)
        return found

    def ports(self, bridge: int) -> list[Interface]:
        """Return the interfaces that are ports of the host's bridge of that index."""
        return [each for each in self.host(addresses=False) if each.master == bridge]

    def _read(self, namespace: int | None, addresses: bool) -> list[Interface]:
        target = b"" if namespace is None else _attribute(46, _S32.pack(namespace))
        request = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + target
        links = {link.index: link for link in map(_interface, self._dump(_GETLINK, request))}
        if addresses:
            self._add_addresses(links, namespace, 0)
        return list(links.values())

    def _add_addresses(
        self, links: dict[int, Interface], namespace: int | None, index: int
    ) -> None:
        """Fill in addresses: those of one interface, or (index 0) of all."""
        target = b"" if namespace is None else _attribute(10, _S32.pack(namespace))
        request = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, index) + target
        for payload in self._dump(_GETADDR, request):
            number, address = _address(payload)
            if number in links:
                links[number].addresses.append(address)

    def _namespace_id(self, pid: int) -> int:
        """Return this namespace's id for that of a process; the kernel makes one at first."""
        found = self._get_namespace_id(pid)
        if found < 0:
            attributes = _attribute(1, _S32.pack(-1)) + _attribute(2, _U32.pack(pid))
            try:
                self._exchange(_NEWNSID, _REQUEST | _ACK, b"\0\0\0\0" + attributes)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
            found = self._get_namespace_id(pid)
        return found

    def _get_namespace_id(self, pid: int) -> int:
        payloads = self._exchange(_GETNSID, _REQUEST, b"\0\0\0\0" + _attribute(2, _U32.pack(pid)))
        for number, value in _attributes(payloads[0], 4):
            if number == 1:
                return int(_S32.unpack(value)[0])
        return -1

    def _dump(self, kind: int, payload: bytes) -> list[memoryview]:
        for _ in range(5):
            try:
                return self._exchange(kind, _REQUEST | _DUMP, payload)
            except InterruptedError:  # something changed in between: the dump may lack a part
                continue
        return self._exchange(kind, _REQUEST | _DUMP, payload, exact=False)

    def _exchange(
        self, kind: int, flags: int, payload: bytes, *, exact: bool = True
    ) -> list[memoryview]:
        """Send a request, return the payloads of the answer. Raises OSError."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        header = _HEADER.pack(_HEADER.size + len(payload), kind, flags, self._sequence, 0)
        self._drain()
        self._socket.send(header + payload)
        found: list[memoryview] = []
        interrupted = False
        while True:
            size = self._socket.recv_into(self._buffer)
            for type_, flag, sequence, body in _messages(bytes(self._buffer[:size])):
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(flag & 0x10)
                if type_ == _ERROR:
                    _raise(int(_S32.unpack_from(body)[0]), kind)
                    return found
                if type_ == _DONE:
                    _raise(int(_S32.unpack_from(body)[0]) if len(body) >= 4 else 0, kind)
                    if interrupted and exact:
                        raise InterruptedError(errno.EINTR, "netlink dump")
                    return found
                found.append(body)
            if not flags & _DUMP and not flags & _ACK:
                return found

    def _drain(self) -> None:
        """Drop what an exchange that failed half-way has left."""
        try:
            while True:
                self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return


def _raise(code: int, kind: int) -> None:
    if code:
        raise OSError(-code, f"netlink request {kind}: {os.strerror(-code)}")


def _attribute(number: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), number) + value + b"\0" * (-len(value) % 4)


def _messages(data: bytes) -> Iterator[tuple[int, int, int, memoryview]]:
    view, offset = memoryview(data), 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, view[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(data: memoryview, offset: int) -> Iterator[tuple[int, memoryview]]:
    end = len(data)
    while offset + 4 <= end:
        length, number = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield number & _NESTED, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _text(value: memoryview) -> str:
    return bytes(value).rstrip(b"\0").decode(errors="replace")


def _interface(data: memoryview) -> Interface:
    _, _, index, flags, _ = _LINK.unpack_from(data)
    found = Interface(index, "", flags)
    for number, value in _attributes(data, _LINK.size):
        if number == 1:
            found.hwaddr = value.hex(":")
        elif number == 3:
            found.name = _text(value)
        elif number == 4:
            found.mtu = _U32.unpack(value)[0]
        elif number == 5:
            found.peer = _U32.unpack(value)[0]
        elif number == 10:
            found.master = _U32.unpack(value)[0]
        elif number == 18:
            _read_kind(found, value)
        elif number == 20:
            found.alias = _text(value)
        elif number == 23:
            found.counters = _counters(value)
        elif number == 37:
            found.peer_elsewhere = True
    return found


def _read_kind(found: Interface, value: memoryview) -> None:
    parts = dict(_attributes(value, 0))
    if 1 in parts:
        found.kind = _text(parts[1])
    if 2 not in parts:
        return
    if found.kind == "vlan":
        found.vlan = next((_U16.unpack(v)[0] for n, v in _attributes(parts[2], 0) if n == 1), 0)
    elif found.kind == "bridge":
        data = dict(_attributes(parts[2], 0))
        identity = bytes(data.get(11, b"\0" * 8))
        found.bridge = BridgeInfo(
            id=f"{identity[:2].hex()}.{identity[2:].hex()}",
            stp=5 in data and _U32.unpack(data[5])[0] != 0,
            forward_delay=_U32.unpack(data[1])[0] if 1 in data else 0,
            vlan_default=_U16.unpack(data[39])[0] if 39 in data else 0,
            vlan_filtering=7 in data and bool(data[7][0]),
        )


def _counters(value: memoryview) -> Counters:
    rx, tx, rx_bytes, tx_bytes, rx_bad, tx_bad, rx_lost, tx_lost = _STATS.unpack_from(value)
    return Counters(rx_bytes, tx_bytes, rx, tx, rx_bad, tx_bad, rx_lost, tx_lost)


def _address(data: memoryview) -> tuple[int, Address]:
    family, prefix, _, scope, index = _ADDRESS.unpack_from(data)
    parts = dict(_attributes(data, _ADDRESS.size))
    packed = bytes(parts.get(2) or parts.get(1) or b"")
    text = socket.inet_ntop(family, packed)
    name = "inet" if family == socket.AF_INET else "inet6"
    return index, Address(name, text, prefix, _SCOPES.get(scope, "global"))
