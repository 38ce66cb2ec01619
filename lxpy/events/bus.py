"""Fan-out of events to listeners: encoded once, queued within bounds, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from typing import Any

import msgspec

from lxpy.api.events import Event

_WAITING_EVENTS = 8192
_encode = msgspec.json.Encoder().encode


class Listener:
    """Events of some types and of one project (None: of all), as JSON texts.

    A listener that falls too far behind is closed: it would lose events and not know.
    """

    def __init__(self, bus: Bus, types: Collection[str], project: str | None) -> None:
        self._bus = bus
        self._types = frozenset(types)
        self._project = project
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._closed = False

    def wants(self, kind: str, project: str) -> bool:
        """Tell whether an event is for this listener."""
        return kind in self._types and (not project or self._project in (None, project))

    def offer(self, data: bytes) -> None:
        """Queue an event."""
        if len(self._waiting) >= _WAITING_EVENTS:
            self.close()
            return
        self._waiting.append(data)
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield events until the listener is closed."""
        while not self._closed:
            while self._waiting:
                yield self._waiting.popleft()
            self._news.clear()
            if not self._closed:
                await self._news.wait()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._closed = True
        self._waiting.clear()
        self._news.set()
        self._bus.leave(self)


class Bus:
    """All listeners of the daemon."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def listen(self, types: Collection[str], project: str | None) -> Listener:
        """Hear events from now on; the caller closes the listener."""
        listener = Listener(self, types, project)
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Forget a listener."""
        self._listeners.discard(listener)

    def publish(self, kind: str, metadata: Any, project: str = "") -> None:
        """Send an event; `project` is "" where it concerns the whole server."""
        self.send(kind, metadata, project, location="none", project=project)

    def send(self, kind: str, metadata: Any, scope: str, **fields: str) -> None:
        """Send an event to those who listen to a scope; `fields` are told besides."""
        ears = [each for each in self._listeners if each.wants(kind, scope)]
        if not ears:
            return
        event = Event(type=kind, timestamp=datetime.now(UTC), metadata=metadata, **fields)
        data = _encode(event)
        for each in ears:
            each.offer(data)

    def close(self) -> None:
        """End every listener: the daemon stops."""
        for each in list(self._listeners):
            each.close()
