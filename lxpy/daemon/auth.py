"""Who a request comes from, and what strangers and restricted clients may ask for.

On the unix socket the kernel tells who it is, over HTTPS the client's certificate does.
Source: LXD docs, "Remote API authentication".
"""

from __future__ import annotations

import pwd
import re
import socket
import struct
from dataclasses import dataclass

from aiohttp import web

from lxpy.api.certificates import METRICS
from lxpy.api.events import Requestor
from lxpy.services.server.trust import Trust

_IDENTITY = "identity"
_READ = ("GET", "HEAD", "OPTIONS")

#: Whoever has no certificate, or an unknown one: the handlers ask for secrets and passwords.
_STRANGERS = (
    (_READ, r"/|/1\.0"),
    (("POST",), r"/1\.0/certificates"),
    (_READ, r"/1\.0/images(/.*)?"),
    (("POST",), r"/1\.0/images"),
    (_READ, r"/1\.0/operations/[^/]+/(wait|websocket)"),
)
#: Whoever is confined to projects: the handlers check which project is meant.
_RESTRICTED = (
    *_STRANGERS,
    (_READ, r"/1\.0/(resources|cluster|metrics|warnings|certificates|projects|events|lxpy)(/.*)?"),
    (_READ, r"/1\.0/storage-pools(/[^/]+(/resources)?)?"),
    (("PUT", "PATCH"), r"/1\.0/certificates/[^/]+"),
    (
        None,
        r"/1\.0/(instances|containers|virtual-machines|images|profiles|networks|network-acls"
        r"|network-zones|operations|storage-pools/[^/]+/(volumes|buckets))(/.*)?",
    ),
)
_METRICS = ((_READ, r"/|/1\.0|/1\.0/metrics"),)


@dataclass(frozen=True, slots=True)
class Identity:
    """The sender of a request. Everyone who can open the unix socket is trusted.

    `projects` are the only ones it may touch (None: all); `certificate` is the DER it has shown.
    """

    username: str
    protocol: str
    trusted: bool = True
    address: str = "@"
    projects: frozenset[str] | None = None
    metrics_only: bool = False
    certificate: bytes = b""

    def requestor(self) -> Requestor:
        """Return what lifecycle events say of it."""
        return Requestor(username=self.username, protocol=self.protocol, address=self.address)

    def may(self, method: str, path: str) -> bool:
        """Tell whether it may send such a request at all."""
        if not self.trusted:
            return _is_in(_STRANGERS, method, path)
        if self.metrics_only:
            return _is_in(_METRICS, method, path)
        if self.protocol != "unix" and path.startswith("/internal"):
            return False
        return self.projects is None or _is_in(_RESTRICTED, method, path)


def _is_in(table: tuple[tuple[tuple[str, ...] | None, str], ...], method: str, path: str) -> bool:
    return any(
        (methods is None or method in methods) and re.fullmatch(pattern, path)
        for methods, pattern in table
    )


def identify(request: web.Request) -> Identity:
    """Return who sends the request."""
    found: Identity = request[_IDENTITY]
    return found


def recognize(request: web.Request, trust: Trust) -> Identity:
    """Find out who sends the request, and keep that with it. Source: unix(7), SO_PEERCRED."""
    found = _recognized(request, trust)
    request[_IDENTITY] = found
    return found


def _recognized(request: web.Request, trust: Trust) -> Identity:
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport else None
    if transport is None or sock is None:
        return Identity("", "unknown", trusted=False)
    if sock.family == socket.AF_UNIX:
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Identity(_name(uid), "unix")
    address = _address(transport.get_extra_info("peername"))
    tls = transport.get_extra_info("ssl_object")
    der = (tls.getpeercert(True) if tls is not None else None) or b""
    known = trust.find(der) if der else None
    if known is None:
        return Identity("", "tls", trusted=False, address=address, certificate=der)
    return Identity(
        known.fingerprint, "tls", address=address, certificate=der,
        projects=frozenset(known.projects) if known.restricted else None,
        metrics_only=known.type == METRICS,
    )  # fmt: skip


def _address(peer: tuple[str, int] | None) -> str:
    if not peer:
        return ""
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _name(uid: int) -> str:
    if uid == 0:
        return "root"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
