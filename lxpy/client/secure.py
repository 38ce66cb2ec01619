"""HTTPS: the user's certificate, the server's one that was once accepted, and the TLS between them.

Everything else here is made for sockets that the kernel polls and that take flags, so TLS is kept
out of sight: a thread carries bytes between it and one end of a socket pair.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from urllib.parse import urlsplit

from lxpy.errors import Refused, Unreachable

PORT = 8443
_CONNECT_S = 10
_AHEAD_BYTES = 1 << 20
_READ_BYTES = 1 << 16
_GOODBYE_S = 2.0


class NoAnswer(Unreachable):
    """No server answers at a URL."""

    def __init__(self, url: str, cause: str) -> None:
        Exception.__init__(self, f"Unable to connect to {url}: {cause}")


class NotTrusted(Refused):
    """A server shows a certificate that nobody has accepted."""


class Secure:
    """How to reach a server.

    url: "https://HOST:PORT"; pin: file of the only certificate it may show, if there is that file;
    otherwise the host's authorities decide; identity: directory of client.crt and client.key
    """

    __slots__ = ("_context", "identity", "pin", "url")

    def __init__(self, url: str, pin: str, identity: str = "") -> None:
        self.url = url
        self.pin = pin
        self.identity = identity
        self._context: ssl.SSLContext | None = None

    def connect(self) -> Tunnel:
        """Connect. Raises NoAnswer, NotTrusted."""
        pinned = _read(self.pin)
        if self._context is None:
            self._context = _context(self.identity, system=not pinned)
        secured = _dial(self.url, self._context)
        if pinned and secured.getpeercert(binary_form=True) != ssl.PEM_cert_to_DER_cert(pinned):
            secured.close()
            raise NotTrusted(
                f"The server at {self.url} shows another certificate than the one that was "
                f"accepted: if it has a new one, remove {self.pin} and add the remote again"
            )
        tunnel = Tunnel(secured)
        tunnel.start()
        return tunnel


def shown(url: str) -> bytes:
    """Return the certificate (DER) that a server shows, whoever has signed it. Raises NoAnswer."""
    secured = _dial(url, _context("", system=False))
    try:
        return secured.getpeercert(binary_form=True) or b""
    finally:
        secured.close()


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _context(identity: str, *, system: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not system:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = os.path.join(identity, "client.crt"), os.path.join(identity, "client.key")
    if identity and os.path.exists(certificate):
        context.load_cert_chain(certificate, key)
    return context


def _dial(url: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        plain = socket.create_connection((host, parts.port or PORT), _CONNECT_S)
    except OSError as error:
        raise NoAnswer(url, error.strerror or str(error)) from error
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        plain.close()
        raise NotTrusted(
            f"The certificate of {url} is not trusted ({error.verify_message}): add the remote "
            "again to accept it"
        ) from error
    except OSError as error:
        plain.close()
        raise NoAnswer(url, error.strerror or str(error)) from error


class Tunnel(threading.Thread):
    """Carries bytes between a TLS connection and `near`, an ordinary socket."""

    def __init__(self, secured: ssl.SSLSocket) -> None:
        super().__init__(daemon=True)
        self._far = secured
        self.near, self._inner = socket.socketpair()
        self._up, self._down = bytearray(), bytearray()
        self._far_ended = self._near_ended = False
        self._far.setblocking(False)
        self._inner.setblocking(False)

    def close(self) -> None:
        """Close `near`, and wait for a moment until what was sent is on its way."""
        self.near.close()
        self.join(_GOODBYE_S)

    def run(self) -> None:
        """Carry until one side has ended."""
        try:
            while not (self._far_ended and not self._down or self._near_ended and not self._up):
                if not self._turn():
                    self._wait()
            if not self._far_ended:
                self._far.unwrap()
        except OSError:
            return  # one side is gone, and the other one sees it by the end of this
        finally:
            self._inner.close()
            self._far.close()

    def _turn(self) -> int:
        """Move what can be moved now; how many bytes that were."""
        return self._receive() + self._deliver() + self._collect() + self._send()

    def _receive(self) -> int:
        moved = 0
        while not self._far_ended and len(self._down) < _AHEAD_BYTES:
            try:
                data = self._far.recv(_READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError:
                data = b""
            self._far_ended = not data
            self._down += data
            moved += len(data) or 1
        return moved

    def _deliver(self) -> int:
        moved = 0
        try:
            while self._down:
                sent = self._inner.send(self._down)
                del self._down[:sent]
                moved += sent
        except BlockingIOError:
            return moved
        except OSError:
            self._down.clear()  # nobody reads it; what was sent goes on its way yet
        return moved

    def _collect(self) -> int:
        if self._near_ended or len(self._up) >= _AHEAD_BYTES:
            return 0
        try:
            data = self._inner.recv(_READ_BYTES)
        except BlockingIOError:
            return 0
        except ConnectionResetError:
            data = b""
        self._near_ended = not data
        self._up += data
        return len(data) or 1

    def _send(self) -> int:
        moved = 0
        try:
            while self._up:
                sent = self._far.send(self._up[:_READ_BYTES])
                del self._up[:sent]
                moved += sent
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        return moved

    def _wait(self) -> None:
        poll = select.poll()
        reading = select.POLLIN if len(self._down) < _AHEAD_BYTES else 0
        poll.register(self._far, reading | (select.POLLOUT if self._up else 0))
        taking = select.POLLIN if len(self._up) < _AHEAD_BYTES and not self._near_ended else 0
        poll.register(self._inner, taking | (select.POLLOUT if self._down else 0))
        poll.poll()
