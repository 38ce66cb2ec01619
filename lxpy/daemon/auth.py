"""Who a request comes from: on the unix socket the kernel tells."""

from __future__ import annotations

import pwd
import socket
import struct
from dataclasses import dataclass

from aiohttp import web

from lxpy.api.events import Requestor


@dataclass(frozen=True, slots=True)
class Identity:
    """The sender of a request. Everyone who can open the unix socket is trusted."""

    username: str
    protocol: str
    trusted: bool = True

    def requestor(self) -> Requestor:
        """Return what lifecycle events say of it."""
        return Requestor(username=self.username, protocol=self.protocol, address="@")


def identify(request: web.Request) -> Identity:
    """Return who sends the request. Source: unix(7), SO_PEERCRED."""
    sock = request.transport.get_extra_info("socket") if request.transport else None
    if sock is None or sock.family != socket.AF_UNIX:
        return Identity("", "unknown", trusted=False)
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Identity(_name(uid), "unix")


def _name(uid: int) -> str:
    if uid == 0:
        return "root"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
