"""Namespaces: making, joining, and user namespaces with a map of ids. Source: namespaces(7)."""

from __future__ import annotations

import _socket  # the socket module costs an enum
import fcntl
import os
import struct
import time

from lxpy.kernel import processes
from lxpy.kernel.libc import function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_SOCK_CLOEXEC = 0o2000000

NEWTIME = 0x00000080
NEWNS = 0x00020000
NEWCGROUP = 0x02000000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000
_ALL_IDS = ["0", "0", "4294967295"]
_nested: bool | None = None  # never changes
HAS_TIME = os.path.exists("/proc/self/ns/time")


def is_nested() -> bool:
    """Tell whether we are in a user namespace below the initial one, such as in a container.

    There no mount of the host's file systems can have its ids mapped, and no device node be made.
    Source: user_namespaces(7).
    """
    global _nested
    if _nested is None:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            _nested = file.read().split() != _ALL_IDS
    return _nested


def unshare(flags: int, subject: str) -> None:
    """Source: unshare(2)."""
    function("unshare", subject, flags)


def join(fd: int, flags: int, subject: str) -> None:
    """Join the namespace behind `fd`, or with a pidfd those of `flags`. Source: setns(2)."""
    function("setns", subject, fd, flags)


def make_user_namespace(uid_map: Sequence[tuple[int, int, int]],
                        gid_map: Sequence[tuple[int, int, int]]) -> int:  # fmt: skip
    """Return a descriptor of a new user namespace with these lines (inside, outside, size).

    It is born with a short-lived child, which the kernel needs to hang the maps on.
    """
    pid, pidfd = processes.fork(NEWUSER)
    if pid == 0:
        try:
            while True:
                time.sleep(3600)
        finally:
            os._exit(0)
    try:
        for kind, lines in (("uid_map", uid_map), ("gid_map", gid_map)):
            text = "".join(f"{inside} {outside} {size}\n" for inside, outside, size in lines)
            _write(f"/proc/{pid}/{kind}", text)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        processes.send_signal(pidfd, 9)
        os.waitpid(pid, 0)
        os.close(pidfd)


def switch_loopback_on() -> None:
    """Give this network namespace its loopback addresses. Source: netdevice(7)."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _SOCK_CLOEXEC)
    try:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    except OSError as error:
        raise OSError(error.errno, f"SIOCSIFFLAGS(lo): {os.strerror(error.errno or 0)}") from error
    finally:
        sock.close()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        what = text.strip().replace("\n", ", ")
        raise OSError(
            error.errno, f"write({path}, {what}): {os.strerror(error.errno or 0)}"
        ) from error
    finally:
        os.close(fd)
