"""A websocket client for tests: blocking, on a unix socket, no code shared with lxpy."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.utilities import LocalProtocolError

from tests.support.api import ApiError


class WebSocket:
    """One websocket. Frames are bytes (binary) or str (text)."""

    def __init__(self, path: Path, url: str, timeout_s: float = 30) -> None:
        """Connect and shake hands; raise ApiError when the server refuses."""
        self.timeout_s = timeout_s
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout_s)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        self._parts: list[bytes] | list[str] = []
        try:
            self.socket.connect(str(path))
            self._send(Request(host="lxd", target=url))
            self._shake(url)
        except BaseException:
            self.socket.close()
            raise

    def _shake(self, url: str) -> None:
        status, refusal = 0, b""
        while True:
            event = self._next(time.monotonic() + self.timeout_s)
            if isinstance(event, AcceptConnection):
                return
            if isinstance(event, RejectConnection):
                status = event.status_code
                if not event.has_body:
                    raise ApiError(status, url)
            elif isinstance(event, RejectData):
                refusal += event.data
                if event.body_finished:
                    raise ApiError(status, refusal.decode(errors="replace"))
            elif event is None:
                raise ApiError(status, f"{url}: closed during the handshake")

    def _send(self, event: Event) -> None:
        self.socket.sendall(self._protocol.send(event))

    def _next(self, end: float) -> Event | None:
        """The next event; None when the connection has ended. Raises TimeoutError."""
        while not self._events:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError("no frame in time")
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionError:
                data = b""
            self._protocol.receive_data(data or None)
            self._events += list(self._protocol.events())
            if not data:
                return self._events.pop(0) if self._events else None
        return self._events.pop(0)

    def send(self, data: bytes | str) -> None:
        """Send one frame: binary for bytes, text for str."""
        self._send(BytesMessage(data) if isinstance(data, bytes) else Message(data))

    def receive(self, timeout_s: float | None = None) -> bytes | str | None:
        """The next frame, whole; None at the end. Answers pings. Raises TimeoutError."""
        end = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while (event := self._next(end)) is not None:
            if isinstance(event, Ping | CloseConnection):
                self._answer(event)
                if isinstance(event, CloseConnection):
                    return None
            elif isinstance(event, Message):
                self._parts.append(event.data)
                if event.message_finished:
                    whole = self._parts[0][:0].join(self._parts)
                    self._parts = []
                    return bytes(whole) if not isinstance(whole, str) else whole
        return None

    def _answer(self, event: Ping | CloseConnection) -> None:
        try:
            self._send(event.response())
        except (OSError, LocalProtocolError):
            return  # the other side did not wait for it

    def objects(self, timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Text frames as JSON objects, to the end or until none has come in time."""
        while True:
            try:
                frame = self.receive(timeout_s)
            except TimeoutError:
                return
            if frame is None:
                return
            yield json.loads(frame)

    def close(self) -> None:
        """Say goodbye and hang up."""
        try:
            self._send(CloseConnection(code=1000))
        except (OSError, LocalProtocolError):
            pass
        self.socket.close()

    def abort(self) -> None:
        """Hang up without a word, as a killed client does."""
        self.socket.close()

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
