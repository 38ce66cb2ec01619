"""The client's half of RFC 6455 over a connected socket, made for poll() loops.

wsproto does the same with more care for what a daemon never sends; importing it takes 15 ms.
No extension is offered, so no frame is compressed.
"""

from __future__ import annotations

import os
from socket import MSG_DONTWAIT, SHUT_RDWR

from lxpy.client.transport import Connection, refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT, BINARY = 1, 2
_CONTINUATION, _CLOSE, _PING, _PONG = 0, 8, 9, 10
_READ_BYTES = 256 * 1024

# The nonce guards against caching proxies, and there is none on a unix socket. A constant one saves
# importing a hash: this pair is the example of RFC 6455, section 1.3.
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def request(connection: Connection, target: str) -> None:
    """Ask for an upgrade; `WebSocket(connection)` reads the answer."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": _KEY,
    }
    connection.send("GET", target, headers)


class WebSocket:
    """Frames in, frames out. Nothing blocks but `send`, the constructor and `wait_closed`."""

    __slots__ = ("_connection", "_out", "_parts", "closed")

    def __init__(self, connection: Connection) -> None:
        """Complete the handshake. Raises Refused."""
        answer = connection.response()
        if answer.status != 101 or answer.headers.get("sec-websocket-accept") != _ACCEPT:
            text = answer.read().decode(errors="replace").strip()
            connection.close()
            raise refusal(answer.status, text)
        self._connection = connection
        self._out = bytearray()
        self._parts: tuple[int, bytearray] | None = None  # a message of several frames
        self.closed = False  # by the peer

    def fileno(self) -> int:
        """The socket's descriptor, for poll()."""
        return self._connection.fileno()

    # -- out

    @property
    def pending(self) -> int:
        """Bytes queued that the kernel did not take yet."""
        return len(self._out)

    def queue(self, payload: bytes, opcode: int = BINARY) -> None:
        """Append a message to what is to be sent, and send what the kernel takes at once."""
        size = len(payload)
        if size < 126:
            head = bytes((0x80 | opcode, 0x80 | size))
        elif size < 65536:
            head = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
        key = os.urandom(4)
        self._out += head + key + _mask(payload, key)
        self.flush()

    def flush(self) -> None:
        """Send what the kernel takes without waiting."""
        try:
            while self._out:
                sent = self._connection.sock.send(self._out, MSG_DONTWAIT)
                del self._out[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()  # the peer has gone: reading tells, after what it still said

    def send(self, payload: bytes, opcode: int = TEXT) -> None:
        """Send a message, waiting until the kernel has taken it."""
        self.queue(payload, opcode)
        if self._out:
            rest = bytes(self._out)
            self._out.clear()
            self._connection.sock.sendall(rest)

    def close(self) -> None:
        """Say goodbye, and end the connection."""
        if self._connection.fileno() < 0:
            return
        if not self.closed:
            self.queue(b"\x03\xe8", _CLOSE)  # 1000, normal closure
        try:
            self._connection.sock.shutdown(SHUT_RDWR)
        except OSError:
            pass
        self._connection.close()
        self.closed = True

    # -- in

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """Read once; yield the messages complete by now, as opcode (TEXT, BINARY) and payload.

        Sets `closed` when the peer has closed. Pings are answered.
        """
        try:
            data = self._connection.sock.recv(_READ_BYTES)
        except OSError:
            data = b""
        self._connection.buffer += data
        yield from self.messages()
        if not data:
            self.closed = True

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """Yield the messages that are complete in the buffer: some may come with the handshake."""
        while not self.closed and (frame := self._frame()) is not None:
            final, opcode, payload = frame
            if opcode == _PING:
                self.queue(payload, _PONG)
            elif opcode == _CLOSE:
                self.queue(payload[:2], _CLOSE)
                self.closed = True
            elif opcode == _CONTINUATION or not final:
                if (message := self._collect(final, opcode, payload)) is not None:
                    yield message
            elif opcode in (TEXT, BINARY):
                yield opcode, payload

    def _collect(self, final: bool, opcode: int, payload: bytes) -> tuple[int, bytes] | None:
        kind, parts = self._parts or (opcode, bytearray())
        parts += payload
        self._parts = None if final else (kind, parts)
        return (kind, bytes(parts)) if final else None

    def _frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._connection.buffer
        if len(buffer) < 2:
            return None
        start, size = 2, buffer[1] & 0x7F
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(buffer) < start:
                return None
            size = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + size:
            return None
        final, opcode = bool(buffer[0] & 0x80), buffer[0] & 0x0F
        payload = bytes(buffer[start : start + size])
        del buffer[: start + size]
        return final, opcode, payload


def _mask(payload: bytes, key: bytes) -> bytes:
    """XOR with the repeated key, as one big number: a megabyte takes a millisecond."""
    size = len(payload)
    stream = (key * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(stream, "little")
    return number.to_bytes(size, "little")
