"""Who is let in from the network: so many at a time, and nobody who does not say what they want.

aiohttp has no limit of connections, nor one of how long a request's head may take. What follows the
first head, its keep-alive timeout bounds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

MOST = 4096
HEAD_S = 30.0
HANDSHAKE_S = 10.0
_END = b"\r\n\r\n"
_HEAD_BYTES = 1 << 17


class Gate:
    """Makes protocols of connections, as `serve` does, for up to `most` connections."""

    def __init__(
        self, serve: Callable[[], asyncio.Protocol], *, most: int = MOST, head_s: float = HEAD_S
    ) -> None:
        self._serve = serve
        self._most = most
        self.head_s = head_s
        self._open: set[Guarded] = set()
        self._coming: dict[Guarded, float] = {}  # in the handshake, since when

    def __call__(self) -> asyncio.Protocol:
        """Return a new connection's protocol. Raises ConnectionAbortedError: asyncio hangs up."""
        now = time.monotonic()
        # Nobody is told of a handshake that has failed.
        self._coming = {k: v for k, v in self._coming.items() if now - v < HANDSHAKE_S}
        if len(self._open) + len(self._coming) >= self._most:
            raise ConnectionAbortedError(f"there are {self._most} connections already")
        found = Guarded(self, self._serve())
        self._coming[found] = now
        return found

    def enter(self, one: Guarded) -> None:
        """Count a connection that is made."""
        self._coming.pop(one, None)
        self._open.add(one)

    def leave(self, one: Guarded) -> None:
        """Count a connection no more."""
        self._open.discard(one)


class Guarded(asyncio.Protocol):
    """Passes everything on, and hangs up on who has not sent the head of a request in time."""

    def __init__(self, gate: Gate, inner: asyncio.Protocol) -> None:
        self._gate = gate
        self._inner = inner
        self._timer: asyncio.TimerHandle | None = None
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. Source: asyncio.Protocol, as all of these."""
        self._gate.enter(self)
        assert isinstance(transport, asyncio.Transport)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._gate.head_s, transport.abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what has come."""
        if self._timer is not None:
            self._head = (self._head + data)[-_HEAD_BYTES:]
            if _END in self._head:
                self._stop()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass on that the other side sends no more."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop()
        self._gate.leave(self)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the other side reads too slowly."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it has caught up."""
        self._inner.resume_writing()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._head = None, b""
