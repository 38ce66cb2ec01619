"""HTTP/1.1 over a unix socket, or TLS: one connection, one exchange at a time.

http.client does the same, but importing it (email, ssl, urllib) takes 20 ms, as long as a whole
`lxc exec`.
"""

from __future__ import annotations

import json
import os
import socket

from lxpy.errors import Refused, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lxpy.client.secure import Secure

BLOCK_BYTES = 256 * 1024
_MAX_PATH_BYTES = 107  # sun_path holds 108 with its end
_MAX_HEAD_BYTES = 256 * 1024
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Upload:
    """A request body that is produced piece by piece; its length in bytes, -1 for unknown."""

    __slots__ = ("length", "pieces")

    def __init__(self, length: int, pieces: Iterable[bytes]) -> None:
        self.length = length
        self.pieces = pieces


def quote(text: str, safe: bytes = b"") -> str:
    """Percent-encode a path segment or a query value."""
    data = text.encode("utf-8", "surrogateescape")
    if all(byte in _UNRESERVED for byte in data):
        return text
    keep = _UNRESERVED.union(safe)
    return "".join(chr(byte) if byte in keep else f"%{byte:02X}" for byte in data)


def query(parameters: dict[str, str]) -> str:
    """Return "?a=b&c=d" of those parameters that have a value, or nothing."""
    pairs = [f"{quote(key)}={quote(value)}" for key, value in parameters.items() if value]
    return f"?{'&'.join(pairs)}" if pairs else ""


def refusal(status: int, body: str) -> Refused:
    """Return the error that an answer other than success stands for: an envelope or plain text."""
    try:
        text = json.loads(body).get("error")
    except (ValueError, AttributeError):
        text = body.strip()
    return Refused(text or f"The server answered with HTTP status {status}", status)


def connect(path: str) -> socket.socket:
    """Connect to a daemon's socket. Raises Unreachable."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
            sock.connect(path)
        else:
            _connect_in(sock, path)
    except OSError as error:
        sock.close()
        raise Unreachable(path, error.strerror or str(error)) from error
    return sock


def _connect_in(sock: socket.socket, path: str) -> None:
    """Reach a socket whose path is too long for the kernel through its directory."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)


def _chunked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Wrap the pieces of a body whose length nobody knows."""
    for piece in filter(None, pieces):
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


class Connection:
    """A connection to the daemon at `path`; used for one request after another, or upgraded.

    `secure` is how to reach one that is not behind a unix socket.
    """

    __slots__ = ("_tunnel", "buffer", "path", "sock")

    def __init__(self, path: str, secure: Secure | None = None) -> None:
        self.path = path
        self._tunnel = secure.connect() if secure is not None else None
        self.sock = connect(path) if self._tunnel is None else self._tunnel.near
        self.buffer = bytearray()  # received, not yet consumed

    def fileno(self) -> int:
        """The socket's descriptor, for poll()."""
        return self.sock.fileno()

    def close(self) -> None:
        """End the connection."""
        if self._tunnel is not None:
            self._tunnel.close()
        self.sock.close()

    def send(
        self, method: str, target: str, headers: dict[str, str], body: bytes | Upload | None = None
    ) -> None:
        """Send a request. A server that answers before it has read everything may do so."""
        lines = [f"{method} {target} HTTP/1.1", "Host: lxpy"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        length = body.length if isinstance(body, Upload) else len(body or b"")
        if length < 0:
            lines.append("Transfer-Encoding: chunked")
        elif body is not None:
            lines.append(f"Content-Length: {length}")
        elif method in ("POST", "PUT", "PATCH"):
            lines.append("Content-Length: 0")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        try:
            if isinstance(body, Upload):
                self.sock.sendall(head)
                for piece in _chunked(body.pieces) if length < 0 else body.pieces:
                    self.sock.sendall(piece)
            else:
                self.sock.sendall(head + (body or b""))
        except (BrokenPipeError, ConnectionResetError):
            return  # the answer tells why it stopped reading

    def response(self) -> Response:
        """Read status and headers of the answer. Raises Refused when the daemon goes away."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > _MAX_HEAD_BYTES or not self._fill():
                raise Refused(f"The daemon at {self.path} closed the connection without an answer")
        status, *lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        del self.buffer[: end + 4]
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        words = status.split(None, 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise Refused(f"What answers at {self.path} does not speak HTTP: {status[:80]!r}")
        return Response(self, int(words[1]), fields)

    def take(self, size: int) -> bytes:
        """Return up to `size` bytes, at least one unless the peer has closed."""
        if not self.buffer and not self._fill(max(size, 4096)):
            return b""
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def line(self) -> bytes:
        """Return a line without its end."""
        while (end := self.buffer.find(b"\r\n")) < 0:
            if not self._fill():
                raise Refused(f"The daemon at {self.path} closed the connection within an answer")
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 2]
        return line

    def _fill(self, size: int = 65536) -> bool:
        try:
            data = self.sock.recv(min(size, BLOCK_BYTES))
        except ConnectionResetError:
            return False
        self.buffer += data
        return bool(data)


class Response:
    """Status, headers (names in lower case) and body of an answer."""

    __slots__ = ("_connection", "_length", "headers", "status")

    def __init__(self, connection: Connection, status: int, headers: dict[str, str]) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        length = headers.get("content-length", "")
        self._length = int(length) if length.isdigit() else -1

    @property
    def length(self) -> int:
        """The body's length in bytes, -1 when the server does not say."""
        return self._length

    def close(self) -> None:
        """Leave the body unread."""
        self._connection.close()

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes, then close. Raises Refused when it is cut short."""
        try:
            yield from self._body()
        finally:
            self._connection.close()

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._connection.line().split(b";")[0], 16):
                yield from self._exactly(size)
                self._connection.line()
            while self._connection.line():
                continue
        elif self._length >= 0:
            yield from self._exactly(self._length)
        else:
            while piece := self._connection.take(BLOCK_BYTES):
                yield piece

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._connection.take(min(left, BLOCK_BYTES))
            if not piece:
                raise Refused("The daemon closed the connection within an answer")
            left -= len(piece)
            yield piece

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.pieces())
