"""Messages of the SSH File Transfer Protocol, version 3.

Source: draft-ietf-secsh-filexfer-02; OpenSSH's PROTOCOL, section 4.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from dataclasses import dataclass

VERSION = 3
MAX_BYTES = 256 * 1024  # what OpenSSH's server takes and gives
PACKET_BYTES = MAX_BYTES + 1024

INIT, VERSION_REPLY = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT, OPENDIR, READDIR = range(3, 13)
REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(13, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = range(6)
OP_UNSUPPORTED = 8

_SIZE, _OWNER, _PERMISSIONS, _TIMES, _EXTENDED = 1, 2, 4, 8, 0x80000000


class BadMessage(Exception):
    """A message that ends early."""


@dataclass(slots=True)
class Attrs:
    """What a client sets; None is left alone. Times are in seconds since 1970."""

    size: int | None = None
    owner: tuple[int, int] | None = None
    mode: int | None = None
    times: tuple[int, int] | None = None


class Message:
    """Takes a message apart. Every method raises BadMessage at its end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        """Take 32 bits."""
        return int.from_bytes(self._take(4), "big")

    def long(self) -> int:
        """Take 64 bits."""
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        """Take bytes that their length is before."""
        return self._take(self.number())

    def path(self) -> str:
        """Take a path; a relative one begins at the root."""
        path = os.fsdecode(self.string())
        if "\0" in path:
            raise BadMessage("a path contains a NUL character")
        return path if path.startswith("/") else f"/{path}"

    def attrs(self) -> Attrs:
        """Take attributes."""
        found, flags = Attrs(), self.number()
        if flags & _SIZE:
            found.size = self.long()
        if flags & _OWNER:
            found.owner = (self.number(), self.number())
        if flags & _PERMISSIONS:
            found.mode = self.number() & 0o7777
        if flags & _TIMES:
            found.times = (self.number(), self.number())
        if flags & _EXTENDED:
            for _ in range(self.number()):
                self.string()
                self.string()
        return found

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise BadMessage("a message ends early")
        data = self._data[self._at : end]
        self._at = end
        return data


def packet(kind: int, *parts: bytes) -> bytes:
    """Return a message with its length."""
    body = b"".join(parts)
    return struct.pack(">IB", len(body) + 1, kind) + body


def number(value: int) -> bytes:
    """Return 32 bits."""
    return struct.pack(">I", value)


def string(value: bytes) -> bytes:
    """Return bytes with their length before them."""
    return struct.pack(">I", len(value)) + value


def attributes(status: os.stat_result, owner: tuple[int, int]) -> bytes:
    """Return a file's attributes, with the owner as the guest has it."""
    flags = _SIZE | _OWNER | _PERMISSIONS | _TIMES
    times = (int(each) & 0xFFFFFFFF for each in (status.st_atime, status.st_mtime))
    return struct.pack(">IQ5I", flags, status.st_size, *owner, status.st_mode, *times)


def long_name(name: bytes, status: os.stat_result, owner: tuple[int, int]) -> bytes:
    """Return a line as `ls -l` shows it."""
    when = time.strftime("%b %d %Y", time.gmtime(status.st_mtime))
    line = (
        f"{stat.filemode(status.st_mode)} {status.st_nlink:4} {owner[0]:<8} {owner[1]:<8} "
        f"{status.st_size:>10} {when} "
    )
    return line.encode() + name
