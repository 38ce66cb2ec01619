"""The supervisor's event loop: epoll and timers, one thread, nothing that blocks."""

from __future__ import annotations

import heapq
import select
import sys
import time
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[int], None]

IN = select.EPOLLIN
OUT = select.EPOLLOUT


class Loop:
    """Calls back when a descriptor is ready or a time has come."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self.running = True

    def watch(self, fd: int, callback: Callback, events: int = IN) -> None:
        """Call `callback(events)` whenever `fd` is ready. Watching again changes both."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching; must come before the descriptor is closed. Idempotent."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call once, `delay_s` seconds from now."""
        self._sequence += 1
        heapq.heappush(self._timers, (time.monotonic() + delay_s, self._sequence, callback))

    def run(self) -> None:
        """Run until `running` is unset; an error in a callback is written to stderr."""
        while self.running:
            timeout = -1.0
            if self._timers:
                timeout = max(0.0, self._timers[0][0] - time.monotonic())
            for fd, events in self._epoll.poll(timeout):
                callback = self._callbacks.get(fd)
                if callback is not None:  # forgotten by an earlier one of this round
                    guarded(callback, events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                guarded(heapq.heappop(self._timers)[2])


def guarded(callback: Callable[..., None], *args: int) -> None:
    """Call; an error concerns one instance, never the others."""
    try:
        callback(*args)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
