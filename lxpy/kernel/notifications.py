"""Calls that a seccomp filter hands to somebody else: received, looked at, answered.

Source: seccomp_unotify(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

_RECEIVE, _SEND, _IS_VALID = 0xC0502100, 0xC0182101, 0x40082102
_NOTIFICATION = "=QIIiIQ6Q"
_CONTINUE = 1
_PATH_BYTES = 4096


class Notification:
    """One call of a thread that waits: `pid` is the thread's, as the host has it."""

    __slots__ = ("_id", "_listener", "arch", "arguments", "number", "pid")

    def __init__(self, listener: int) -> None:
        """Take the next one. Raises OSError; FileNotFoundError when its caller has gone."""
        buffer = ctypes.create_string_buffer(struct.calcsize(_NOTIFICATION))
        fcntl.ioctl(listener, _RECEIVE, buffer)
        found = struct.unpack(_NOTIFICATION, buffer.raw)
        self._listener = listener
        self._id, self.pid, _, self.number, self.arch, _ = found[:6]
        self.arguments: tuple[int, ...] = found[6:]

    def check(self) -> None:
        """Raise ProcessLookupError unless the caller still waits: its pid is still its own."""
        try:
            fcntl.ioctl(self._listener, _IS_VALID, struct.pack("=Q", self._id))
        except OSError as error:
            raise ProcessLookupError(errno.ESRCH, "the caller has gone") from error

    def memory(self, address: int, size: int) -> bytes:
        """Read the caller's memory; less than `size` where that ends. Raises OSError."""
        fd = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.check()
            return os.pread(fd, size, address)
        finally:
            os.close(fd)

    def text(self, address: int) -> bytes:
        """Read a path or name from the caller's memory. Raises OSError (ENAMETOOLONG)."""
        data = self.memory(address, _PATH_BYTES)
        text, end, _ = data.partition(b"\0")
        if not end:
            raise OSError(errno.ENAMETOOLONG, "a path is too long")
        return text

    def put(self, address: int, data: bytes) -> None:
        """Write into the caller's memory. Raises OSError."""
        fd = os.open(f"/proc/{self.pid}/mem", os.O_WRONLY | os.O_CLOEXEC)
        try:
            self.check()
            os.pwrite(fd, data, address)
        finally:
            os.close(fd)

    def answer(self, error: int) -> None:
        """Have the call return 0, or fail with an errno."""
        self._respond(-error, 0)

    def let_through(self) -> None:
        """Have the kernel carry the call out, or refuse it, as without us."""
        self._respond(0, _CONTINUE)

    def _respond(self, error: int, flags: int) -> None:
        response = bytearray(struct.pack("=QqiI", self._id, 0, error, flags))
        try:
            fcntl.ioctl(self._listener, _SEND, response)
        except OSError:
            return  # a signal has ended the call, and nobody waits
