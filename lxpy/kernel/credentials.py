"""Whose files a thread makes, and with how little power. Source: capabilities(7), setfsuid(2).

Both are the thread's own: the C library passes these calls to no other thread.
"""

from __future__ import annotations

import ctypes
import struct
import threading

from lxpy.kernel.libc import _libc, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

CHOWN = 0
DAC_OVERRIDE = 1
DAC_READ_SEARCH = 2
FOWNER = 3
FSETID = 4
SETFCAP = 31
#: What root needs for files. Without CAP_SYS_RESOURCE, as with it quotas and the blocks that a
#: file system keeps for root would not hold.
FILES = (CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETFCAP)

_HEADER = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread


def bits(capabilities: Iterable[int]) -> int:
    """Return a set of capabilities as a number."""
    return sum(1 << each for each in capabilities)


def read() -> tuple[int, int, int]:
    """Return the thread's effective, permitted and inheritable capabilities."""
    data = ctypes.create_string_buffer(24)
    function("capget", "this thread", _HEADER, data)
    low = struct.unpack("<6I", data.raw)
    effective, permitted, inheritable = (low[n] | low[n + 3] << 32 for n in range(3))
    return effective, permitted, inheritable


def write(effective: int, permitted: int, inheritable: int) -> None:
    """Set the thread's capabilities. Raises OSError."""
    sets = (effective, permitted, inheritable)
    low = (each & 0xFFFFFFFF for each in sets)
    high = (each >> 32 for each in sets)
    function("capset", "this thread", _HEADER, struct.pack("<6I", *low, *high))


_FILES = bits(FILES)
_thread = threading.local()


class acting_as:
    """Work on files as `uid`:`gid` for the length of a block, and with the power of FILES alone.

    In an idmapped mount and on a guest's own file systems the host's root cannot create anything
    (EOVERFLOW): the maker's ids must be mapped there. A process that is not root stays as it is,
    and so does a thread within a block of the same ids.
    """

    __slots__ = ("_before", "_ids")

    def __init__(self, uid: int, gid: int) -> None:
        self._ids = (uid, gid)
        self._before = (0, 0, 0)

    def __enter__(self) -> None:
        if _thread.__dict__.get("ids") == self._ids:
            return
        effective, permitted, inheritable = read()
        if not effective:
            return
        self._before = (effective, permitted, inheritable)
        _thread.ids = self._ids
        _libc.setfsgid(self._ids[1])
        _libc.setfsuid(self._ids[0])
        # Leaving id 0 has taken the capabilities for files away: they come back here.
        write(_FILES & permitted, permitted, inheritable)

    def __exit__(self, *_: object) -> None:
        if not self._before[0]:
            return
        _libc.setfsuid(0)
        _libc.setfsgid(0)
        write(*self._before)
        del _thread.ids
