"""Bytes between the user's descriptors and an operation's websockets, in one poll() loop."""

from __future__ import annotations

import json
import os
import select
import signal

from lxpy.cli import terminal
from lxpy.client.websocket import BINARY, TEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lxpy.client.websocket import WebSocket

_READ_BYTES = 128 * 1024
# While this much waits for the server, the user's input is left where it is.
_AHEAD_BYTES = 1024 * 1024


def resize(control: WebSocket) -> None:
    """Tell the size of the terminal on stdout."""
    width, height = terminal.size(1)
    arguments = {"width": str(width), "height": str(height)}
    _command(control, {"command": "window-resize", "args": arguments})


def _command(control: WebSocket, command: dict[str, object]) -> None:
    control.queue(json.dumps(command).encode(), TEXT)


class Pump:
    """Moves bytes until every output has ended.

    outputs: websockets with the descriptor that each is written to
    sink: the websocket that the user's input goes to; control: takes signals and sizes
    source: the descriptor of the user's input, None when there is none
    """

    def __init__(
        self,
        outputs: dict[WebSocket, int],
        sink: WebSocket,
        control: WebSocket | None,
        source: int | None,
    ) -> None:
        self._outputs = outputs
        self._sink = sink
        self._control = control
        self._source = source
        self._detached = False
        #: Sees what is typed; returns what is to be sent, None to leave.
        self.typed: Callable[[bytes], bytes | None] = lambda data: data
        #: Whether signals go to the command; otherwise they end the pumping.
        self.forwards = True

    def run(self, signals: terminal.Signals) -> None:
        """Pump until the outputs have ended, or `typed` wants to leave.

        Raises BrokenPipeError when nobody reads what comes.
        """
        if self._source is None:
            self._end_input()
        for socket in list(self._outputs):
            self._deliver(socket, socket.messages())
        while self._outputs and not self._detached:
            ready = dict(self._poll(signals).poll())
            if signals.fileno() in ready:
                self._signalled(signals.read())
            for socket in self._sockets():
                self._serve(socket, ready.get(socket.fileno(), 0))
            if self._source is not None and ready.get(self._source):
                self._read_input(self._source)

    def _sockets(self) -> list[WebSocket]:
        sockets = [*self._outputs]
        for other in (self._sink, self._control):
            if other is not None and other not in self._outputs and not other.closed:
                sockets.append(other)
        return sockets

    def _poll(self, signals: terminal.Signals) -> select.poll:
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        for socket in self._sockets():
            waiting = select.POLLOUT if socket.pending else 0
            poll.register(socket, select.POLLIN | waiting)
        if self._source is not None and self._sink.pending < _AHEAD_BYTES:
            poll.register(self._source, select.POLLIN)
        return poll

    def _serve(self, socket: WebSocket, event: int) -> None:
        if event & select.POLLOUT:
            socket.flush()
        if event & ~select.POLLOUT:
            self._deliver(socket, socket.receive())
        if socket is self._sink and socket.closed:
            self._source = None

    def _deliver(self, socket: WebSocket, messages: Iterable[tuple[int, bytes]]) -> None:
        """Write what came; a text frame is the end of an output, and so is a closed socket."""
        descriptor = self._outputs.get(socket)
        for opcode, data in messages:
            if descriptor is not None and opcode == BINARY:
                _write(descriptor, data)
            elif opcode == TEXT:
                self._outputs.pop(socket, None)
        if socket.closed:
            self._outputs.pop(socket, None)

    def _read_input(self, source: int) -> None:
        try:
            data = os.read(source, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # the terminal is gone, or there never was a stdin
        if not data:
            self._end_input()
        elif (wanted := self.typed(data)) is None:
            self._detached = True
        elif wanted:
            self._sink.queue(wanted)

    def _end_input(self) -> None:
        self._source = None
        self._sink.queue(b"", TEXT)

    def _signalled(self, numbers: bytes) -> None:
        if self._control is None or self._control.closed:
            return
        for number in numbers:
            if number == signal.SIGWINCH:
                resize(self._control)
            elif not self.forwards:
                self._detached = True
            else:
                _command(self._control, {"command": "signal", "signal": number})


def _write(descriptor: int, data: bytes) -> None:
    """Write everything, also to a descriptor that somebody made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
