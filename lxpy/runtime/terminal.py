"""The supervisor's end of a console: drained at all times into a capped log, and to who looks on.

An unread terminal would stall the container's boot.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TIOCSWINSZ = 0x5414
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
_READ_BYTES = 65536
#: What may wait for a spectator that does not read; more is dropped, the container is not stalled.
_BACKLOG_BYTES = 256 * 1024
#: What a container may write in a tenth of a second before its console is left alone for the rest.
BURST_BYTES = 512 * 1024


def open_pair() -> tuple[int, int]:
    """Return (master, slave) of a new terminal of the host."""
    master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    return master, open_slave(master)


def open_slave(master: int) -> int:
    """Open the other side of a terminal, wherever its devpts is mounted. Source: ioctl_tty(2)."""
    return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def resize(fd: int, width: int, height: int) -> None:
    """Tell the terminal its size in characters."""
    fcntl.ioctl(fd, TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))


class Spectator:
    """One attached client: a stream socket, read and written by the event loop."""

    __slots__ = ("pending", "sock")

    def __init__(self, fd: int) -> None:
        self.sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
        self.sock.setblocking(False)
        self.pending = bytearray()

    def offer(self, data: bytes) -> None:
        """Send, or keep for `flush`."""
        if len(self.pending) + len(data) <= _BACKLOG_BYTES:
            self.pending += data
        self.flush()

    def flush(self) -> bool:
        """Send what waits. True when nothing is left. Raises OSError when the client is gone."""
        while self.pending:
            try:
                sent = self.sock.send(self.pending, _socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            del self.pending[:sent]
        return True


class Terminal:
    """A console: master, a slave kept open (else the master only gives EIO), log, clients."""

    __slots__ = ("_log", "_log_bytes", "_log_limit", "_path", "_window", "_window_end", "input",
                 "master", "slave", "spectators")  # fmt: skip

    def __init__(self, master: int, slave: int, log: str, limit: int) -> None:
        self.master = master
        self.slave = slave
        self.spectators: dict[int, Spectator] = {}
        self.input = bytearray()
        self._path = log
        self._log_limit = max(limit, 4096)
        self._log = -1
        self._log_bytes = 0
        self._window = 0
        self._window_end = 0.0
        os.set_blocking(master, False)
        if log:
            self._open_log()

    def _open_log(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._log = os.open(self._path, flags, 0o600)
            self._log_bytes = os.fstat(self._log).st_size
        except OSError:
            self._log = -1  # a console without a log is better than no instance

    def read(self, now: float) -> tuple[bytes, bool]:
        """Read what the container wrote; the flag tells to rest: it writes too much.

        Raises OSError when the terminal has ended.
        """
        if now >= self._window_end:
            self._window, self._window_end = 0, now + 0.1
        try:
            data = os.read(self.master, _READ_BYTES)
        except BlockingIOError:
            return b"", False
        self._window += len(data)
        if data:
            self._record(data)
        return data, self._window > BURST_BYTES

    def write(self, data: bytes) -> bool:
        """Type into the console; True when all of it was taken."""
        if len(self.input) < _BACKLOG_BYTES:
            self.input += data
        while self.input:
            try:
                sent = os.write(self.master, self.input)
            except BlockingIOError:
                return False
            except OSError:
                self.input.clear()
                return True
            del self.input[:sent]
        return True

    def _record(self, data: bytes) -> None:
        if self._log < 0:
            return
        try:
            if self._log_bytes + len(data) > self._log_limit:
                self._shorten()
            os.write(self._log, data)
            self._log_bytes += len(data)
        except OSError:
            return  # a full disk costs the log, not the instance

    def _shorten(self) -> None:
        """Keep the newer half: the log is for the last boot's messages."""
        size = os.fstat(self._log).st_size  # somebody may have emptied it
        keep = os.pread(self._log, self._log_limit // 2, max(0, size - self._log_limit // 2))
        os.ftruncate(self._log, 0)
        os.write(self._log, keep)
        self._log_bytes = len(keep)

    def close(self, forget: Callable[[int], None]) -> None:
        """Close everything; `forget` takes each watched descriptor out of the loop first."""
        for fd, spectator in list(self.spectators.items()):
            forget(fd)
            spectator.sock.close()
        self.spectators.clear()
        forget(self.master)
        for fd in (self.master, self.slave, self._log):
            if fd >= 0:
                os.close(fd)
        self.master = self.slave = self._log = -1
