"""What a proxy passes on: streams both ways, and datagrams by sessions. Nothing here blocks.

Of each connection at most one piece a direction waits in memory; until it is taken, no more is
read. Source: socket(7), epoll(7), unix(7).
"""

from __future__ import annotations

import _socket
import array
import errno
import os
import select
import time

from lxpy.runtime import loop as loops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lxpy.runtime.loop import Loop

PIECE_BYTES = 65_507  # what a datagram can hold
IDLE_S = 60.0  # a session of datagrams is over when nothing has passed for so long
_DESCRIPTORS = 253  # most in one message, SCM_MAX_FD
_BROKEN = select.EPOLLERR | select.EPOLLHUP
_WAITING_PIECES = 64


def is_datagram(sock: _socket.socket) -> bool:
    """Whether a socket has no connections."""
    return sock.type == _socket.SOCK_DGRAM


class Relay:
    """Two connected sockets; what comes from one goes to the other, until both have ended."""

    def __init__(
        self, loop: Loop, near: _socket.socket, far: _socket.socket, first: bytes,
        ended: Callable[[Relay], None],
    ) -> None:  # fmt: skip
        """Begin; `first` goes to `far` before all else. `ended` is called once."""
        self._loop = loop
        self._ended = ended
        self._socks = (near, far)
        self._waiting = [memoryview(b""), memoryview(first)]  # for each socket
        self._fds: list[list[int]] = [[], []]
        self._over = [False, False]  # nothing more comes from it
        self._events = [0, 0]
        self._passes_fds = near.family == far.family == _socket.AF_UNIX
        self._closed = False
        for index, sock in enumerate(self._socks):
            if sock.family != _socket.AF_UNIX and not is_datagram(sock):
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
                sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            self._watch(index)

    def close(self) -> None:
        """End it, whatever is under way. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for index, sock in enumerate(self._socks):
            self._loop.forget(sock.fileno())
            sock.close()
            self._drop_fds(index)
        self._ended(self)

    def _watch(self, index: int) -> None:
        """Wait for what is of use now; for nothing at all a socket is not watched."""
        events = 0
        if not self._over[index] and not self._waiting[1 - index]:
            events |= loops.IN
        if self._waiting[index]:
            events |= loops.OUT
        if events == self._events[index]:
            return
        self._events[index] = events
        number = self._socks[index].fileno()
        if events:
            self._loop.watch(number, lambda ready: self._ready(index, ready), events)
        else:
            self._loop.forget(number)

    def _ready(self, index: int, ready: int) -> None:
        if self._closed:
            return
        try:
            if self._waiting[index] and ready & (loops.OUT | _BROKEN):
                self._write(index)
            if not self._over[index] and not self._waiting[1 - index]:
                self._read(index)
        except OSError:
            self._broken(index)
        if all(self._over) and not any(self._waiting):
            self.close()
            return
        for each in (0, 1):
            self._watch(each)

    def _read(self, index: int) -> None:
        sock, other = self._socks[index], 1 - index
        try:
            if self._passes_fds:
                data, self._fds[other] = _receive(sock)
            else:
                data = sock.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        if not data and is_datagram(sock):
            return
        if not data:
            self._over[index] = True
            self._shut(other)
            return
        self._waiting[other] = memoryview(data)
        try:
            self._write(other)
        except OSError:
            self._broken(other)

    def _write(self, index: int) -> None:
        sock = self._socks[index]
        try:
            if self._fds[index]:
                packed = array.array("i", self._fds[index]).tobytes()
                ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)]
                count = sock.sendmsg([self._waiting[index]], ancillary, _socket.MSG_NOSIGNAL)
                self._drop_fds(index)
            else:
                count = sock.send(self._waiting[index], _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        self._waiting[index] = self._waiting[index][count:]
        if not self._waiting[index] and self._over[1 - index]:
            self._shut(index)

    def _shut(self, index: int) -> None:
        """Tell one side that the other has nothing more to say, when all of that is written."""
        if self._waiting[index]:
            return
        sock = self._socks[index]
        if is_datagram(sock):
            self._loop.later(IDLE_S, self.close)  # answers may still come
            return
        try:
            sock.shutdown(_socket.SHUT_WR)
        except OSError:
            self._broken(index)

    def _broken(self, index: int) -> None:
        """One side is gone: what it has said is still told to the other."""
        self._over = [True, True]
        self._waiting[index] = memoryview(b"")

    def _drop_fds(self, index: int) -> None:
        for fd in self._fds[index]:
            os.close(fd)
        self._fds[index] = []


def _receive(sock: _socket.socket) -> tuple[bytes, list[int]]:
    """Read a piece and the descriptors that come with it."""
    room = _socket.CMSG_SPACE(4 * _DESCRIPTORS)
    data, ancillary, _, _ = sock.recvmsg(PIECE_BYTES, room, _socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, raw in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.frombytes(raw[: len(raw) // fds.itemsize * fds.itemsize])
    return data, list(fds)


class Session:
    """What one sender of datagrams says, and what it is answered."""

    def __init__(
        self, loop: Loop, far: _socket.socket, answer: Callable[[bytes], None],
        ended: Callable[[Session], None],
    ) -> None:  # fmt: skip
        """Begin with a connection `far`, which may be under way still."""
        self.used = time.monotonic()
        self._loop = loop
        self._far = far
        self._answer = answer
        self._ended = ended
        self._waiting: list[bytes] = []
        self._closed = False
        self._watch()

    def say(self, data: bytes) -> None:
        """Pass something on; what is too much is lost, as on any way."""
        self.used = time.monotonic()
        if len(self._waiting) < _WAITING_PIECES:
            self._waiting.append(data)
            self._write()

    def close(self) -> None:
        """End it. Idempotent."""
        if not self._closed:
            self._closed = True
            self._loop.forget(self._far.fileno())
            self._far.close()
            self._ended(self)

    def _watch(self) -> None:
        events = loops.IN | (loops.OUT if self._waiting else 0)
        self._loop.watch(self._far.fileno(), self._ready, events)

    def _ready(self, ready: int) -> None:
        if ready & loops.OUT:
            self._write()
        if ready & (loops.IN | _BROKEN) and not self._closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self._far.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data and not is_datagram(self._far):
            self.close()
            return
        self.used = time.monotonic()
        self._answer(data)

    def _write(self) -> None:
        try:
            while self._waiting:
                count = self._far.send(self._waiting[0], _socket.MSG_NOSIGNAL)
                rest = self._waiting[0][count:]
                if rest:
                    self._waiting[0] = rest
                else:
                    del self._waiting[0]
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOTCONN, errno.EMSGSIZE):
                self.close()
                return
            if error.errno == errno.EMSGSIZE:
                del self._waiting[0]
        self._watch()


def proxy_header(client: Any, server: Any) -> bytes:
    """Return the line that tells a server who its client is. Source: HAProxy's PROXY protocol 1."""
    if not isinstance(client, tuple) or not isinstance(server, tuple):
        return b"PROXY UNKNOWN\r\n"
    source, target = _plain(client[0]), _plain(server[0])
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {target} {client[1]} {server[1]}\r\n".encode()


def _plain(address: str) -> str:
    """Return an IPv4 address that came through an IPv6 socket as one, and no zone."""
    return address.removeprefix("::ffff:").partition("%")[0]
