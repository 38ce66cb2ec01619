"""HTTP on a unix socket at hardly any cost of its own: the server is what is measured."""

from __future__ import annotations

import json
import re
import socket
import struct
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Connection:
    """One kept-alive connection; opened again when the server has closed it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(self._path)
        self._buffer = b""

    @property
    def peer(self) -> int:
        """The server's pid."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("3i", credentials)[0])

    def request(self, method: str, url: str, body: object = None) -> tuple[int, bytes]:
        """Send a request; status and body of its reply."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {url} HTTP/1.1\r\nHost: lxd\r\nContent-Length: {len(data)}\r\n\r\n"
        try:
            self._socket.sendall(head.encode() + data)
            return self._reply()
        except ConnectionError:
            self._open()
            self._socket.sendall(head.encode() + data)
            return self._reply()

    def call(self, method: str, url: str, body: object = None) -> Any:
        """The reply's metadata, of an operation once it has ended well."""
        reply = json.loads(self.request(method, url, body)[1])
        if reply["type"] == "async":
            url = f"{reply['operation'].split('?')[0]}/wait"
            reply = json.loads(self.request("GET", url)[1])
            if reply["metadata"]["status_code"] != 200:
                raise RuntimeError(reply["metadata"]["err"])
        if reply["type"] == "error":
            raise RuntimeError(f"{method} {url}: {reply['error']}")
        return reply["metadata"]

    def _more(self) -> None:
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError
        self._buffer += data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        found, self._buffer = self._buffer.split(mark, 1)
        return found

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _reply(self) -> tuple[int, bytes]:
        head = self._until(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if found := _LENGTH.search(head):
            return status, self._take(int(found[1]))
        if not _CHUNKED.search(head):
            raise RuntimeError("a reply without length")
        parts = []
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            parts.append(self._take(size))
            self._take(2)
        self._take(2)
        return status, b"".join(parts)
