"""What dnsmasq has lent, and what is reserved: its lease file and its file for each instance."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from urllib.parse import quote, unquote

_LEASE_TIME = re.compile(r"[0-9]+")
_RELEASE = 7
_MAGIC = bytes((0x63, 0x82, 0x53, 0x63))
_BOOTP = struct.Struct("!4BIHH4s4s4s4s16s192x")


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that a guest has; `hwaddr` is "" where its identifier does not tell."""

    address: str
    hwaddr: str
    hostname: str
    client_id: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The name and addresses of an instance's nic, `device`; "" for an address not reserved."""

    instance: str
    hwaddr: str
    hostname: str = ""
    ipv4: str = ""
    ipv6: str = ""
    device: str = ""

    @property
    def file(self) -> str:
        """The name of its file, as LXD's: [PROJECT_]INSTANCE.DEVICE; "_" of a device is escaped."""
        return f"{self.instance}.{quote(self.device, safe='').replace('_', '%5F')}"

    def clashes(self, other: Reservation) -> bool:
        """Tell whether two have the same address."""
        return bool(
            self.hwaddr == other.hwaddr
            or (self.ipv4 and self.ipv4 == other.ipv4)
            or (self.ipv6 and self.ipv6 == other.ipv6)
        )

    def line(self) -> str:
        """Return the line of dnsmasq's --dhcp-hostsfile."""
        parts = [self.hwaddr, self.ipv4, f"[{self.ipv6}]" if self.ipv6 else "", self.hostname]
        return ",".join(part for part in parts if part) + "\n"


def parse_leases(text: str) -> Iterator[Lease]:
    """Yield the leases of dnsmasq's lease file.

    A line is expiry, MAC (IPv6: identity association), address, name or "*", client id or DUID.
    """
    for line in text.splitlines():
        parts = line.split()
        if len(parts) < 5 or not _LEASE_TIME.fullmatch(parts[0]):
            continue
        _, hwaddr, address, hostname, client = parts[:5]
        if ":" in address:
            hwaddr = _duid_hwaddr(client)
        name = "" if hostname == "*" else hostname
        yield Lease(address, hwaddr.lower(), name, "" if client == "*" else client)


def _duid_hwaddr(duid: str) -> str:
    """Return the MAC of a DUID of type 1 (with time) or 3, for Ethernet. Source: RFC 8415."""
    if duid.startswith("00:01:00:01:") and len(duid) == 41:
        return duid[24:]
    if duid.startswith("00:03:00:01:") and len(duid) == 29:
        return duid[12:]
    return ""


def parse_reservation(file: str, text: str) -> Reservation | None:
    """Return what an instance's file of that name reserves, None when it is empty."""
    parts = text.strip().split(",")
    if not parts[0]:
        return None
    ipv4 = ipv6 = hostname = ""
    for part in parts[1:]:
        if part.startswith("["):
            ipv6 = part[1:-1]
        elif part.count(".") == 3 and part.replace(".", "").isdigit():
            ipv4 = part
        else:
            hostname = part
    project, mark, name = file.rpartition("_")
    instance, _, device = name.partition(".")
    return Reservation(f"{project}{mark}{instance}", parts[0], hostname, ipv4, ipv6,
                       unquote(device))  # fmt: skip


class Hosts:
    """The directory with one file for each nic of an instance, read by dnsmasq. Blocking."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self) -> list[Reservation]:
        """Return all reservations, by instance."""
        found = []
        for path in sorted(self._directory.glob("*")):
            reservation = parse_reservation(path.name, _read(path))
            if reservation is not None:
                found.append(reservation)
        return found

    def of(self, instance: str) -> list[Reservation]:
        """Return an instance's reservations."""
        found = (parse_reservation(path.name, _read(path))
                 for path in sorted(self._directory.glob(f"{escape(instance)}.*")))  # fmt: skip
        return [each for each in found if each is not None and each.instance == instance]

    def write(self, reservation: Reservation) -> bool:
        """Write a reservation; False when nothing is different."""
        path, text = self._directory / reservation.file, reservation.line()
        if _read(path) == text:
            return False
        temporary = self._directory.with_name(f"dnsmasq.new.{reservation.instance}")
        temporary.write_text(text)
        temporary.chmod(0o644)
        temporary.rename(path)
        return True

    def replace(self, wanted: Iterable[Reservation], instance: str = "") -> bool:
        """Make these the only reservations (of an instance); False when nothing is different.

        What is reserved for one is not for another: who has it keeps it.
        """
        known = self.read()
        held = [each for each in known if instance and each.instance != instance]
        changed = False
        for reservation in sorted(wanted, key=lambda each: each not in known):
            if not any(map(reservation.clashes, held)):
                changed = self.write(reservation) or changed
                held.append(reservation)
        kept = {each.file for each in held}
        for path in self._directory.glob("*"):
            if path.name not in kept:
                path.unlink()
                changed = True
        return changed


def read_leases(path: Path) -> list[Lease]:
    """Return the leases of a file, none when it does not exist. Blocking."""
    return list(parse_leases(_read(path)))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def release_message(lease: Lease, server: str) -> bytes:
    """Return the DHCPRELEASE that a guest would send for its IPv4 lease. Source: RFC 2131."""
    packed, hwaddr = socket.inet_aton(lease.address), bytes.fromhex(lease.hwaddr.replace(":", ""))
    nothing = b"\0" * 4
    head = _BOOTP.pack(1, 1, 6, 0, 0, 0, 0, packed, nothing, nothing, nothing, hwaddr)
    options = bytes((53, 1, _RELEASE, 54, 4)) + socket.inet_aton(server)
    if lease.client_id:
        client = bytes.fromhex(lease.client_id.replace(":", ""))
        options += bytes((61, len(client))) + client
    return (head + _MAGIC + options + b"\xff").ljust(300, b"\0")


def release(bridge: str, server: str, leases: Iterable[Lease]) -> None:
    """Give IPv4 leases back to the dnsmasq that listens on a bridge. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode() + b"\0")
        for lease in leases:
            if ":" not in lease.address and lease.hwaddr:
                sender.sendto(release_message(lease, server), (server, 67))
