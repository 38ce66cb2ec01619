"""The supervisor's end of the connection to the daemon: one daemon at a time, the latest wins."""

from __future__ import annotations

import _socket
import os

from lxpy.runtime import frames
from lxpy.runtime.loop import IN, OUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lxpy.runtime.frames import Message
    from lxpy.runtime.loop import Loop

_BATCH = 64  # messages read before others get their turn


class Peer:
    """Reads requests and sends answers and events; never blocks.

    `on_message` owns the descriptors it is given. `on_gone` is called when the daemon is gone, or
    another one has come.
    """

    def __init__(
        self,
        loop: Loop,
        listener: _socket.socket,
        on_message: Callable[[Message, list[int]], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._on_message = on_message
        self._on_gone = on_gone
        self._client: _socket.socket | None = None
        self._outbox: list[tuple[bytes, list[int]]] = []
        loop.watch(listener.fileno(), self._accept)

    @property
    def connected(self) -> bool:
        """Tell whether there is a daemon."""
        return self._client is not None

    def _accept(self, _: int) -> None:
        fd, _address = self._listener._accept()  # type: ignore[attr-defined]
        self._disconnect()
        self._client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        self._client.setblocking(False)
        os.set_inheritable(fd, False)
        self._loop.watch(fd, self._ready)

    def _disconnect(self) -> None:
        if self._client is None:
            return
        self._loop.forget(self._client.fileno())
        self._client.close()
        self._client = None
        for _, fds in self._outbox:
            frames.close_all(fds)
        self._outbox.clear()
        self._on_gone()

    def _ready(self, events: int) -> None:
        if events & OUT:
            self._flush()
        client = self._client
        for _ in range(_BATCH):
            if client is None or client is not self._client:
                return
            try:
                received = frames.receive(client)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self._disconnect()
                return
            self._on_message(*received)

    def send(self, message: Message, fds: list[int] | None = None) -> None:
        """Send to the daemon, if there is one."""
        if self._client is None:
            return
        data, attached, spare = frames.pack(message, fds or [])
        try:
            if not self._outbox:
                try:
                    frames.send_packed(self._client, data, attached)
                    return
                except BlockingIOError:
                    self._loop.watch(self._client.fileno(), self._ready, IN | OUT)
            self._outbox.append((data, [os.dup(fd) for fd in attached]))
        except OSError:
            return  # it is gone: the loop will hear of it
        finally:
            if spare >= 0:
                os.close(spare)

    def _flush(self) -> None:
        while self._outbox and self._client is not None:
            data, fds = self._outbox[0]
            try:
                frames.send_packed(self._client, data, fds)
            except BlockingIOError:
                return
            except OSError:
                pass  # the end of the connection will be read
            frames.close_all(fds)
            self._outbox.pop(0)
        if self._client is not None:
            self._loop.watch(self._client.fileno(), self._ready, IN)
