"""TLS that asks clients for a certificate and leaves it to the daemon whom to trust.

Python's ssl module either verifies a client's certificate against authorities or never gets to see
it; LXD's clients have certificates that they signed themselves. So pyOpenSSL does the handshakes,
in the shape in which asyncio expects an ssl.SSLContext (docs/adr/0007).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from OpenSSL import SSL

T = TypeVar("T")
_CHUNK = 1 << 18
_RECORD = 1 << 14


class Context:
    """What asyncio makes TLS connections from, instead of an ssl.SSLContext."""

    def __init__(self, certificate: Path, key: Path, *, oldest: int = SSL.TLS1_3_VERSION) -> None:
        """Load a certificate and its key. Raises OSError, SSL.Error."""
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.set_min_proto_version(oldest)
        self._context.use_certificate_chain_file(str(certificate))
        self._context.use_privatekey_file(str(key))
        self._context.set_verify(SSL.VERIFY_PEER, _anyone)
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: object = None,
    ) -> Connection:
        """Return a connection between two buffers. Source: ssl.SSLContext.wrap_bio."""
        return Connection(self._context, incoming, outgoing)


def _anyone(*_: object) -> bool:
    return True


class Connection:
    """One connection: the methods of an ssl.SSLObject that asyncio calls."""

    def __init__(
        self, context: SSL.Context, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self._connection = SSL.Connection(context, None)
        self._connection.set_accept_state()
        self._incoming = incoming
        self._outgoing = outgoing

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises as all of these: ssl.SSLWantReadError, ssl.SSLError."""
        self._turn(self._connection.do_handshake)

    def read(self, size: int, buffer: memoryview | None = None) -> bytes | int:
        """Return up to `size` bytes, or how many were put into the buffer; none at the end."""
        try:
            data = self._turn(lambda: self._connection.recv(size))
        except ssl.SSLZeroReturnError:
            data = b""
        if buffer is None:
            return data
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: bytes | memoryview) -> int:
        """Send; return how many bytes were taken: all, as the buffer to the peer has no end."""
        return self._turn(lambda: self._send(memoryview(data)))

    def _send(self, rest: memoryview) -> int:
        size = len(rest)
        while rest:  # one record at a time
            rest = rest[self._connection.send(rest[:_RECORD]) :]
        return size

    def pending(self) -> int:
        """Return how many bytes can be read at once."""
        return self._connection.pending()

    def unwrap(self) -> None:
        """End the connection, and wait for the peer to do so."""
        if not self._turn(self._connection.shutdown):
            raise ssl.SSLWantReadError

    def getpeercert(self, binary_form: bool = False) -> bytes | dict[str, str] | None:
        """Return the client's certificate as DER, where one was shown. Source: ssl.SSLObject."""
        if not binary_form:
            return {}
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return None
        from cryptography.hazmat.primitives.serialization import Encoding

        return certificate.public_bytes(Encoding.DER)

    def cipher(self) -> tuple[str, str, int] | None:
        """Return name, protocol and bits of the cipher."""
        name = self._connection.get_cipher_name()
        if name is None:
            return None
        version = self._connection.get_cipher_version() or ""
        return name, version, self._connection.get_cipher_bits() or 0

    def compression(self) -> None:
        """Return that nothing is compressed."""

    def _turn(self, call: Callable[[], T]) -> T:
        """Call with what has come in, then let out what is to be sent."""
        if data := self._incoming.read():
            self._feed(data)
        try:
            return call()
        except SSL.WantReadError:
            raise ssl.SSLWantReadError from None
        except SSL.WantWriteError:
            raise ssl.SSLWantWriteError from None
        except SSL.ZeroReturnError:
            raise ssl.SSLZeroReturnError from None
        except SSL.SysCallError as error:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, str(error)) from None
        except SSL.Error as error:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, _text(error)) from None
        finally:
            self._drain()

    def _feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._connection.bio_write(bytes(view[:_CHUNK])) :]

    def _drain(self) -> None:
        while True:
            try:
                self._outgoing.write(self._connection.bio_read(_CHUNK))
            except SSL.WantReadError:
                return


def _text(error: SSL.Error) -> str:
    reasons = error.args[0] if error.args else []
    return "; ".join(str(each[-1]) for each in reasons) or "the handshake failed"
