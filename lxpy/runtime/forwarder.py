"""lxpy-proxy: passes on, for one instance, what its proxies listen for.

Started by the supervisor, it outlives supervisor and daemon, and ends with the instance. It is told
what to listen on, all of it at a time: {"proxies": [...], "idmap": [...]}; what is as before goes
on undisturbed, and what cannot be had changes nothing.
"""

from __future__ import annotations

import _socket
import os
import sys
import time

from lxpy.kernel import processes
from lxpy.runtime import endpoints, frames, phases, relay
from lxpy.runtime import loop as loops
from lxpy.runtime.endpoints import Bound, Side
from lxpy.runtime.fs import Confined
from lxpy.runtime.loop import Loop
from lxpy.runtime.steps import confine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from lxpy.runtime.frames import Message
    from lxpy.runtime.plain import Forwarding, Proxy

#: what /proc/PID/comm shows
NAME = "lxpy-proxy"
CONTROL_FD, INSTANCE_FD = 3, 4
_MAX_CONNECTIONS = 4096  # of one listening socket
_ACCEPTED_AT_ONCE = 64
_PAUSE_S, _RETRY_S, _PATIENCE_S, _SWEEP_S = 0.1, 0.02, 10.0, 5.0
_START = "import sys; sys.path.append(%r); from lxpy.runtime.forwarder import main; main()"


def command(name: str, pid: int) -> list[str]:
    """Return how to run it for an instance; it inherits CONTROL_FD and INSTANCE_FD."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    words = [sys.executable, "-I", "-S", "-c", _START % package]
    return [*words, NAME, name, str(pid)]


class Listener:
    """One listening socket, where what comes to it goes, and what is under way."""

    def __init__(
        self, loop: Loop, sides: tuple[Side, Side], proxy: Proxy, forwarding: Forwarding
    ) -> None:
        """Listen; `sides` are where it listens and where it connects. Raises OSError."""
        self._loop = loop
        self._far = sides[1]
        self._proxy = proxy
        self._target = forwarding["connect"]
        self._bound = Bound(sides[0], forwarding["listen"], proxy)
        self._sock = self._bound.sock
        self._under_way: set[Any] = set()
        self._sessions: dict[Any, relay.Session] = {}
        self._failure = ""
        self._closed = False
        self._sweeps = False
        self._resume()

    def close(self) -> None:
        """Stop, and end what is under way."""
        self._closed = True
        self._loop.forget(self._sock.fileno())
        self._bound.close()
        for each in [*self._under_way, *self._sessions.values()]:
            each.close()

    def _resume(self) -> None:
        if not self._closed:
            is_udp = relay.is_datagram(self._sock)
            self._loop.watch(self._sock.fileno(), self._heard if is_udp else self._accept)

    def _pause(self) -> None:
        """Listen to nobody for a moment."""
        self._loop.forget(self._sock.fileno())
        self._loop.later(_PAUSE_S, self._resume)

    def failed(self, error: OSError) -> None:
        """Note in the log what keeps connections from the target, once."""
        text = f"{self._proxy['name']}: {endpoints.describe(self._target)}: {error.strerror}"
        if text != self._failure:
            self._failure = text
            sys.stderr.write(f"lxpy-proxy {sys.argv[-2]}: {text}\n")
            sys.stderr.flush()

    # Connections

    def _accept(self, _: int) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if len(self._under_way) >= _MAX_CONNECTIONS:
                self._pause()
                return
            try:
                number, peer = self._sock._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:  # no more descriptors, or the client has gone again
                self.failed(error)
                self._pause()
                return
            near = _socket.socket(fileno=number)
            near.setblocking(False)
            first = b""
            if self._proxy["proxy_protocol"]:
                first = relay.proxy_header(peer, near.getsockname())
            opening = Opening(self._loop, self._connect, self.failed, near, first, self._forget)
            self._under_way.add(opening)
            opening.begin(self._joined)

    def _connect(self) -> _socket.socket:
        return endpoints.connect(self._far, self._target, self._proxy)

    def _joined(self, near: _socket.socket, far: _socket.socket, first: bytes) -> None:
        self._failure = ""
        self._under_way.add(relay.Relay(self._loop, near, far, first, self._forget))

    def _forget(self, ended: Any) -> None:
        self._under_way.discard(ended)

    # Datagrams

    def _heard(self, _: int) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                data, sender = self._sock.recvfrom(relay.PIECE_BYTES)
            except OSError:
                return
            session = self._sessions.get(sender) or self._open(sender)
            if session is not None:
                session.say(data)

    def _open(self, sender: Any) -> relay.Session | None:
        if len(self._sessions) >= _MAX_CONNECTIONS:
            min(self._sessions.values(), key=lambda each: each.used).close()

        def answer(data: bytes) -> None:
            try:
                self._sock.sendto(data, sender)
            except OSError:
                return  # lost, as on any way

        def ended(_: relay.Session) -> None:
            self._sessions.pop(sender, None)

        try:
            far = self._connect()
        except OSError as error:
            self.failed(error)
            return None
        session = self._sessions[sender] = relay.Session(self._loop, far, answer, ended)
        if not self._sweeps:
            self._sweeps = True
            self._loop.later(_SWEEP_S, self._sweep)
        return session

    def _sweep(self) -> None:
        """End the sessions that nobody uses any more."""
        oldest = time.monotonic() - relay.IDLE_S
        for session in list(self._sessions.values()):
            if session.used < oldest:
                session.close()
        self._sweeps = bool(self._sessions)
        if self._sweeps:
            self._loop.later(_SWEEP_S, self._sweep)


class Opening:
    """A client that waits for its connection to the target."""

    def __init__(
        self, loop: Loop, connect: Callable[[], _socket.socket], failed: Callable[[OSError], None],
        near: _socket.socket, first: bytes, ended: Callable[[Opening], None],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._connect = connect
        self._failed = failed
        self._near = near
        self._first = first
        self._ended = ended
        self._far: _socket.socket | None = None
        self._deadline = time.monotonic() + _PATIENCE_S
        self._closed = False

    def begin(self, joined: Callable[[_socket.socket, _socket.socket, bytes], None]) -> None:
        """Connect; `joined` gets both ends."""
        if self._closed:
            return
        try:
            far = self._far = self._connect()
        except BlockingIOError as error:  # the server has too many waiting
            if time.monotonic() < self._deadline:
                self._loop.later(_RETRY_S, lambda: self.begin(joined))
            else:
                self._refuse(error)
            return
        except OSError as error:
            self._refuse(error)
            return

        def there(_: int) -> None:
            self._loop.forget(far.fileno())
            number = far.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if number:
                self._refuse(OSError(number, os.strerror(number)))
                return
            self._closed = True
            self._ended(self)
            joined(self._near, far, self._first)

        self._loop.watch(far.fileno(), there, loops.OUT)

    def _refuse(self, error: OSError) -> None:
        self._failed(error)
        self.close()

    def close(self) -> None:
        """Give up. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._far is not None:
            self._loop.forget(self._far.fileno())
            self._far.close()
        self._near.close()
        self._ended(self)


class Forwarder:
    """The process: its proxies, and whom it listens to."""

    def __init__(self, control: _socket.socket, instance: int, pid: int) -> None:
        """Serve process `pid`, whose pidfd is `instance`. Raises OSError when it has ended."""
        self.loop = Loop()
        self._control = control
        self._netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._root = Confined.at(f"/proc/{pid}/root")
        processes.send_signal(instance, 0)  # it is still the one whose files these are
        self._proxies: dict[str, tuple[Proxy, list[Listener]]] = {}
        self.loop.watch(control.fileno(), self._welcome)
        self.loop.watch(instance, lambda _: self._end())

    def _welcome(self, _: int) -> None:
        number, _peer = self._control._accept()  # type: ignore[attr-defined]
        client = _socket.socket(fileno=number)
        client.setblocking(False)
        self.loop.watch(number, lambda _: self._asked(client))

    def _asked(self, client: _socket.socket) -> None:
        try:
            received = frames.receive(client)
        except OSError:
            received = None
        if received is None:
            self.loop.forget(client.fileno())
            client.close()
            return
        try:
            self._set(received[0])
            answer: Message = {"ok": {}}
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            answer = {"error": {"text": phases.explain(error), "errno": number}}
        try:
            frames.send(client, answer)
        except OSError:
            pass
        if not self._proxies:
            self._end()

    def _set(self, message: Message) -> None:
        """Have these proxies alone. Raises OSError, ValueError with all as it was."""
        instance = Side(self._root, self._netns, self._home, message["idmap"])
        wanted: dict[str, Proxy] = {each["name"]: each for each in message["proxies"]}
        old = {name: had for name, (had, _) in self._proxies.items() if wanted.get(name) != had}
        new = [each for name, each in wanted.items() if name in old or name not in self._proxies]
        for name in old:
            self._close(name)
        opened: list[str] = []
        try:
            for proxy in new:
                self._open(proxy, instance)
                opened.append(proxy["name"])
        except (OSError, ValueError):
            for name in opened:
                self._close(name)
            for proxy in old.values():
                self._open(proxy, instance)
            raise

    def _open(self, proxy: Proxy, instance: Side) -> None:
        host = Side()
        sides = (host, instance) if proxy["side"] == "host" else (instance, host)
        listeners: list[Listener] = []
        try:
            for forwarding in proxy["forwardings"]:
                listeners.append(Listener(self.loop, sides, proxy, forwarding))
        except (OSError, ValueError):
            for each in listeners:
                each.close()
            raise
        self._proxies[proxy["name"]] = (proxy, listeners)

    def _close(self, name: str) -> None:
        for each in self._proxies.pop(name)[1]:
            each.close()

    def _end(self) -> None:
        """Leave nothing behind."""
        for name in list(self._proxies):
            self._close(name)
        self.loop.running = False


def main() -> NoReturn:
    """Run `lxpy-proxy NAME PID`."""
    processes.protect()
    processes.set_name(NAME)
    os.setgroups([])
    confine.raise_descriptors()
    for number in (CONTROL_FD, INSTANCE_FD):
        os.set_inheritable(number, False)
    control = _socket.socket(fileno=CONTROL_FD)
    control.setblocking(False)
    try:
        forwarder = Forwarder(control, INSTANCE_FD, int(sys.argv[-1]))
        forwarder.loop.run()
    except OSError as error:
        sys.stderr.write(f"lxpy-proxy {sys.argv[-2]}: {phases.explain(error)}\n")
        os._exit(1)
    os._exit(0)
