"""The daemon's end of the connection to the supervisor: requests with answers, and events."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

from lxpy.errors import Failed, LxpyError
from lxpy.runtime import frames

Event = Callable[[dict[str, Any], list[int]], None]


class StartFailed(Failed):
    """A start, or another request to the supervisor, failed in a named step."""

    def __init__(self, step: str, text: str, number: int | None = None) -> None:
        super().__init__(f"{step}: {text}")
        self.step = step
        self.text = text
        self.number = number


class SupervisorLost(LxpyError):
    """The supervisor ended while it worked for us."""

    def __init__(self) -> None:
        super().__init__("The supervisor ended unexpectedly: try again")


class Link:
    """One connection. `on_event` and `on_lost` are called in the loop."""

    def __init__(self, sock: socket.socket, on_event: Event, on_lost: Callable[[], None]) -> None:
        self._sock = sock
        self._on_event = on_event
        self._on_lost = on_lost
        self._next = 0
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._outbox: list[tuple[bytes, list[int], int]] = []
        self._loop = asyncio.get_running_loop()
        self.closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def number(self) -> int:
        """Return the next request's number."""
        self._next += 1
        return self._next

    async def request(
        self, op: str, fds: Sequence[int] = (), *, number: int = 0, **values: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """Ask and wait for the answer and its descriptors.

        Raises StartFailed when refused, SupervisorLost when the connection ends before.
        """
        number = number or self.number()
        future: asyncio.Future[tuple[dict[str, Any], list[int]]] = self._loop.create_future()
        self._waiting[number] = future
        try:
            self.tell(op, fds, id=number, **values)
            return await future
        finally:
            self._waiting.pop(number, None)
            if future.cancelled():
                pass
            elif future.done() and future.exception() is None and _abandoned():
                frames.close_all(future.result()[1])

    def tell(self, op: str, fds: Sequence[int] = (), **values: Any) -> None:
        """Ask without waiting. Raises SupervisorLost."""
        if self.closed:
            raise SupervisorLost
        data, attached, spare = frames.pack({"op": op, **values}, fds)
        if not self._outbox:
            try:
                frames.send_packed(self._sock, data, attached)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._writable)
            except OSError:
                self._lose()
                raise SupervisorLost from None
            else:
                if spare >= 0:
                    frames.close_all([spare])
                return
        copies = [socket.dup(fd) for fd in attached]
        self._outbox.append((data, copies, -1))
        if spare >= 0:
            frames.close_all([spare])

    def _writable(self) -> None:
        while self._outbox:
            data, fds, _ = self._outbox[0]
            try:
                frames.send_packed(self._sock, data, fds)
            except BlockingIOError:
                return
            except OSError:
                self._lose()
                return
            frames.close_all(fds)
            self._outbox.pop(0)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(64):
            try:
                received = frames.receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self._lose()
                return
            self._dispatch(*received)
            if self.closed:
                return

    def _dispatch(self, message: dict[str, Any], fds: list[int]) -> None:
        if "event" in message:
            self._on_event(message, fds)
            return
        future = self._waiting.get(message.get("id", 0))
        if future is None or future.done():
            frames.close_all(fds)
        elif "error" in message:
            error = message["error"]
            future.set_exception(StartFailed(error["step"], error["text"], error["errno"]))
        else:
            future.set_result((message["ok"], fds))

    def _lose(self) -> None:
        if not self.closed:
            self.close()
            self._on_lost()

    def close(self) -> None:
        """Close the connection; whoever waits gets SupervisorLost. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds, _ in self._outbox:
            frames.close_all(fds)
        self._outbox.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SupervisorLost())


def _abandoned() -> bool:
    """Tell whether the task that waits has been cancelled after its answer came."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
