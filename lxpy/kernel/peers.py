"""Who is at the other end of a unix socket. Source: unix(7), SO_PEERCRED and SO_PEERPIDFD."""

from __future__ import annotations

import errno
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

_SOL_SOCKET, _SO_PEERCRED, _SO_PEERPIDFD = 1, 17, 77


class Peer:
    """The process that has connected: pid, user and group as we see them, and a hold on it.

    As a context manager it lets go of the process at the end.
    """

    __slots__ = ("gid", "pid", "pidfd", "uid")

    def __init__(self, sock: socket.socket) -> None:
        """Ask the kernel. Raises OSError, ProcessLookupError when the process has ended."""
        credentials = sock.getsockopt(_SOL_SOCKET, _SO_PEERCRED, 12)
        self.pid, self.uid, self.gid = struct.unpack("iII", credentials)
        self.pidfd = _pidfd(sock, self.pid)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.pidfd)

    def lives(self) -> bool:
        """Whether the process still runs: what was read of its pid until now is about it."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)


def _pidfd(sock: socket.socket, pid: int) -> int:
    try:
        return struct.unpack("i", sock.getsockopt(_SOL_SOCKET, _SO_PEERPIDFD, 4))[0]  # type: ignore[no-any-return]
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:  # before Linux 6.5: a pid may be another's by now
            return os.pidfd_open(pid)
        if error.errno in (errno.ESRCH, errno.EINVAL):
            raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended") from error
        raise
