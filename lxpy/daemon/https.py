"""The API over HTTPS: a listener whose address can change at any time."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import cast

import structlog

from lxpy.daemon.gate import HANDSHAKE_S, Gate
from lxpy.daemon.tls import Context
from lxpy.errors import BadRequest
from lxpy.services.server.certificate import ServerCertificate

_BACKLOG = 1024
PORT = 8443

_log = structlog.get_logger()


class Listener:
    """Listens where it is told to, until it is told otherwise.

    `what` names it in errors; `own` returns the addresses of the host that others may reach.
    """

    def __init__(
        self,
        certificate: ServerCertificate,
        own: Callable[[], Iterable[str]],
        what: str,
        port: int = PORT,
    ) -> None:
        self._certificate = certificate
        self._own = own
        self._what = what
        self._port = port
        self._serve: Callable[[], asyncio.Protocol] | None = None
        self._server: asyncio.Server | None = None
        self._wish = ""

    async def begin(self, serve: Callable[[], asyncio.Protocol], address: str) -> None:
        """Begin to listen; `serve` makes the protocol of a connection. Why it cannot is logged."""
        self._serve = Gate(serve)
        try:
            await self.move(address)
        except BadRequest as error:
            _log.error("not reachable over the network", reason=str(error))

    async def move(self, address: str) -> None:
        """Listen at `address` instead ("" is nowhere). Raises BadRequest, and stays as it was."""
        if self._serve is None or (address == self._wish and self._server is not None):
            return
        before = self._wish if self._server is not None else ""
        self.close()
        if not address:
            return
        try:
            await self._open(address)
        except OSError as error:
            if before:
                with contextlib.suppress(OSError):
                    await self._open(before)
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise BadRequest(f'Cannot listen on {self._what} "{address}": {reason}') from error

    async def _open(self, address: str) -> None:
        sock = await asyncio.to_thread(_listen, *split(address, self._port))
        # In all that asyncio uses of one it is an SSLContext.
        context = cast(ssl.SSLContext, Context(self._certificate.file, self._certificate.key))
        assert self._serve is not None
        self._server = await asyncio.get_running_loop().create_server(
            self._serve, sock=sock, backlog=_BACKLOG, ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S,
        )  # fmt: skip
        self._wish = address

    def close(self) -> None:
        """Listen no more; connections go on."""
        if self._server is not None:
            self._server.close()
        self._server, self._wish = None, ""

    def addresses(self) -> list[str]:
        """Return where clients reach it: "IP:PORT"; a wildcard is all addresses of the host."""
        if self._server is None:
            return []
        host, port = split(self._wish, self._port)
        if host in ("", "::"):
            return [_joined(each, port) for each in self._own()]
        if host == "0.0.0.0":  # compared, not listened on
            return [_joined(each, port) for each in self._own() if ":" not in each]
        return [_joined(host, port)]


def split(address: str, port: int = PORT) -> tuple[str, int]:
    """Return host ("" for every one) and port of "HOST:PORT", ":PORT", "[::1]:PORT" or "HOST".

    Raises BadRequest.
    """
    text = address.strip()
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text.strip("[]"))), port
    host, colon, number = text.rpartition(":")
    if not colon:
        host, number = text, str(port)
    bare = host.strip("[]")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if not number.isdigit() or not 0 < int(number) < 65536 or (":" in bare) != is_bracketed:
        raise BadRequest(
            f'Invalid address "{address}": write ADDRESS:PORT, such as 10.0.0.1:{port}'
        )
    return bare, int(number)


def _listen(host: str, port: int) -> socket.socket:
    if host in ("", "::") and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
        )
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    return socket.create_server((str(place[0]), port), family=family, backlog=_BACKLOG)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
