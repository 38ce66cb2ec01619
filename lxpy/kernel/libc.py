"""Raw system calls through the C library; a failure is an OSError naming call and subject."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Numbers from 424 on are the same on every architecture.
_COMMON = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}
_BY_MACHINE = {
    "x86_64": {
        "pivot_root": 155,
        "keyctl": 250,
        "bpf": 321,
        "seccomp": 317,
        "renameat2": 316,
        "execveat": 322,
        "rt_sigaction": 13,
    },
    "aarch64": {
        "pivot_root": 41,
        "keyctl": 219,
        "bpf": 280,
        "seccomp": 277,
        "renameat2": 276,
        "execveat": 281,
        "rt_sigaction": 134,
    },
}
MACHINE = os.uname().machine
NUMBERS = _COMMON | _BY_MACHINE.get(MACHINE, _BY_MACHINE["aarch64"])

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def failure(call: str, subject: str) -> OSError:
    """Build the OSError of a call that has just failed: `mount(/proc): Operation not permitted`."""
    number = ctypes.get_errno()
    return OSError(number, f"{call}({subject}): {os.strerror(number)}")


def syscall(call: str, subject: str, *args: Any) -> int:
    """Make the system call `call`; ints are passed as longs, bytes as pointers.

    Raises OSError naming `call` and `subject`. Source: syscall(2).
    """
    values = [ctypes.c_long(each) if isinstance(each, int) else each for each in args]
    result: int = _libc.syscall(NUMBERS[call], *values)
    if result < 0:
        raise failure(call, subject)
    return result


def function(call: str, subject: str, *args: Any) -> int:
    """Call the C library's function `call`, which returns -1 and sets errno when it fails."""
    values = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in args]
    result: int = getattr(_libc, call)(*values)
    if result < 0:
        raise failure(call, subject)
    return result


def prctl(subject: str, option: int, *args: Any) -> int:
    """Source: prctl(2)."""
    padded = [*args, 0, 0, 0, 0][:4]
    return function("prctl", subject, option, *padded)
