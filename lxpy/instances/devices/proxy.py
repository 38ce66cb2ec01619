"""proxy: an address of the host that leads into the instance, or the other way round.

Source: LXD docs, "Proxy device".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from lxpy.errors import Failed, InvalidConfig
from lxpy.instances.devices.base import Kind, Options, options
from lxpy.keys import BOOL, MODE, UNIX_ID, Type
from lxpy.runtime.spec import Endpoint, Forwarding, Proxy
from lxpy.units import is_true

_PROTOCOLS = ("tcp", "udp", "unix")
_BINDS = ("host", "instance", "guest", "container")
_MAX_PORTS = 1024
_UNIX_BYTES = 107


@dataclass(frozen=True, slots=True)
class Address:
    """Taken apart: "tcp:ADDRESS:PORTS", "udp:...", "unix:/PATH" or "unix:@NAME"."""

    kind: Literal["tcp", "udp", "unix"]
    host: str
    ports: tuple[int, ...] = ()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return one endpoint for each port, one for a unix socket."""
        if self.kind == "unix":
            return (Endpoint("unix", self.host),)
        return tuple(Endpoint(self.kind, self.host, port) for port in self.ports)


@dataclass(frozen=True, slots=True)
class Translated:
    """A proxy of nat=true: packets to `listen` go to `target`, port by port."""

    device: str
    protocol: str
    listen: str
    target: str
    ports: tuple[tuple[int, int], ...]


def parse(text: str) -> Address:
    """Return an address taken apart. Raises InvalidConfig."""
    kind, colon, rest = text.partition(":")
    if not colon or kind not in _PROTOCOLS:
        raise InvalidConfig(
            f'Unknown protocol type "{kind}": write tcp:ADDRESS:PORT, udp:ADDRESS:PORT, '
            "unix:/PATH or unix:@NAME"
        )
    if kind == "unix":
        return Address("unix", _unix(rest))
    host, colon, ports = rest.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise InvalidConfig(f'Not an IP address "{host}": write {kind}:ADDRESS:PORT') from None
    if bracketed != (address.version == 6):
        raise InvalidConfig(f'Invalid address "{text}": brackets are for IPv6, which needs them')
    return Address("tcp" if kind == "tcp" else "udp", str(address), tuple(_ports(ports)))


def _unix(path: str) -> str:
    if not path.startswith(("/", "@")) or path in ("/", "@") or "\0" in path:
        raise InvalidConfig(
            f'Invalid address "unix:{path}": write an absolute path, or @NAME for an abstract one'
        )
    if len(path.encode()) > _UNIX_BYTES:
        raise InvalidConfig(f'Invalid address "unix:{path}": at most {_UNIX_BYTES} bytes')
    return path


def _ports(text: str) -> Iterator[int]:
    count = 0
    for part in text.split(","):
        first, dash, last = part.partition("-")
        words = (first, last) if dash else (first,)
        if not all(word.isascii() and word.isdigit() and len(word) < 6 for word in words):
            raise InvalidConfig(f'Invalid port range "{part}": write PORT, FIRST-LAST, or a list')
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= 65535:
            raise InvalidConfig(f'Invalid port range "{part}": ports are between 1 and 65535')
        count += high - low + 1
        if count > _MAX_PORTS:
            raise InvalidConfig(f'Invalid port range "{text}": at most {_MAX_PORTS} ports')
        yield from range(low, high + 1)


_ADDRESS = Type("string", parse)


def _bind(value: str) -> None:
    if value not in _BINDS:
        raise InvalidConfig(
            f'Invalid binding side given. Must be "host" or "instance", it is "{value}"'
        )


def _check(given: Options) -> None:
    listen, connect = parse(given["listen"]), parse(given["connect"])
    is_path = listen.kind == "unix" and listen.host.startswith("/")
    if not is_path and any(given.get(key) for key in ("uid", "gid", "mode")):
        raise InvalidConfig(
            "Only proxy devices for non-abstract unix sockets can carry uid, gid, or mode "
            "properties"
        )
    nat = is_true(given.get("nat"))
    if is_true(given.get("proxy_protocol")) and (connect.kind != "tcp" or nat):
        raise InvalidConfig("The PROXY header can only be sent to tcp servers in non-nat mode")
    ins, outs = len(listen.endpoints()), len(connect.endpoints())
    if outs > ins:
        raise InvalidConfig(
            f"Cannot map a single port to multiple ports: {ins} listen, {outs} connect"
        )
    if outs not in (1, ins):
        raise InvalidConfig(
            f"Mismatch between listen port(s) and connect port(s) count: {ins} and {outs}"
        )
    if nat:
        _check_nat(given, listen, connect)


def _check_nat(given: Options, listen: Address, connect: Address) -> None:
    if given.get("bind", "host") not in ("", "host"):
        raise InvalidConfig("Only host-bound proxies can use NAT")
    if listen.kind != connect.kind or listen.kind == "unix":
        raise InvalidConfig(
            f"Proxying {listen.kind} <-> {connect.kind} is not supported when using NAT"
        )
    ours, theirs = ipaddress.ip_address(listen.host), ipaddress.ip_address(connect.host)
    if ours.is_unspecified:
        raise InvalidConfig(f'Cannot listen on wildcard address "{listen.host}" when in nat mode')
    if ours.version != theirs.version:
        raise InvalidConfig("Cannot mix IP versions between listen and connect in nat mode")


PROXY = Kind(
    "proxy",
    options(
        ("bind", Type("string", _bind), "host"),
        ("connect", _ADDRESS),
        ("gid", UNIX_ID, "0"),
        ("listen", _ADDRESS),
        ("mode", MODE, "0644"),
        ("nat", BOOL, "false"),
        ("proxy_protocol", BOOL, "false"),
        ("security.gid", UNIX_ID, "0"),
        ("security.uid", UNIX_ID, "0"),
        ("uid", UNIX_ID, "0"),
    ),
    required=("listen", "connect"),
    check=_check,
)


def is_nat(given: Options) -> bool:
    """Whether a device is a proxy that the firewall does."""
    return given.get("type") == "proxy" and is_true(given.get("nat"))


def plan(device: str, given: Options) -> Proxy:
    """Return what the forwarder is to do for a proxy without nat."""
    listen, connect = parse(given["listen"]).endpoints(), parse(given["connect"]).endpoints()
    targets = connect * len(listen) if len(connect) == 1 else connect
    on_host = (given.get("bind") or "host") == "host"
    return Proxy(
        name=device,
        side="host" if on_host else "instance",
        forwardings=tuple(map(Forwarding, listen, targets)),
        proxy_protocol=is_true(given.get("proxy_protocol")),
        mode=int(given.get("mode") or "0644", 8),
        uid=int(given.get("uid") or 0),
        gid=int(given.get("gid") or 0),
        security_uid=int(given.get("security.uid") or 0),
        security_gid=int(given.get("security.gid") or 0),
    )


def translated(device: str, given: Options, nics: Mapping[str, Options]) -> Translated:
    """Return what the firewall is to do for a proxy of nat=true.

    `nics` are the instance's. Raises Failed unless one has the address as a static one.
    """
    listen, connect = parse(given["listen"]), parse(given["connect"])
    version = ipaddress.ip_address(connect.host).version
    key = f"ipv{version}.address"
    static = [nic[key] for nic in nics.values() if nic.get(key) not in (None, "", "none")]
    addresses = [part.strip() for each in static for part in each.split(",")]
    unspecified = ipaddress.ip_address(connect.host).is_unspecified
    target = addresses[0] if unspecified and addresses else connect.host
    if target not in [str(ipaddress.ip_address(each)) for each in addresses]:
        raise Failed(
            f'Failed start validation for device "{device}": Connect IP "{connect.host}" must be '
            f"one of the instance's static IPv{version} addresses: set {key} on one of its nics"
        )
    targets = connect.ports * len(listen.ports) if len(connect.ports) == 1 else connect.ports
    ports = tuple(zip(listen.ports, targets, strict=True))
    return Translated(device, listen.kind, listen.host, target, ports)
