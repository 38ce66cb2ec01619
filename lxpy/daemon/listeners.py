"""The API's sockets: the unix socket, made here or handed over by systemd; word to systemd."""

from __future__ import annotations

import fcntl
import grp
import os
import socket
from pathlib import Path

from lxpy.errors import Failed

_FIRST_FD = 3  # sd_listen_fds(3)
_BACKLOG = 1024


def lock(directory: Path) -> int:
    """Take the installation for this daemon; return the descriptor that holds it.

    Raises Failed when another daemon has it.
    """
    fd = os.open(directory / "lxpyd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Failed(
            f"Another lxpyd is running for {directory}: set LXPY_DIR to another directory, or "
            "stop that one first"
        ) from None
    return fd


def listen(path: Path, group: str) -> socket.socket:
    """Return the listening API socket; a stale one of a dead daemon is replaced.

    Raises Failed for a group that does not exist. The caller holds the installation's lock.
    """
    inherited = _inherited()
    if inherited is not None:
        return inherited
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError as error:
        raise Failed(f"Cannot listen on {path}: {error}") from error
    finally:
        os.umask(mask)
    os.chown(path, 0, _gid(group))
    os.chmod(path, 0o660)
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


def _inherited() -> socket.socket | None:
    """Return the socket that systemd listens on for us. Source: sd_listen_fds(3)."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return None
    if int(os.environ.pop("LISTEN_FDS", "0")) < 1:
        return None
    os.set_inheritable(_FIRST_FD, False)
    sock = socket.socket(fileno=_FIRST_FD)
    sock.setblocking(False)
    return sock


def _gid(group: str) -> int:
    if not group:
        return 0
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise Failed(
            f'Group "{group}" does not exist: make it (groupadd --system {group}), or leave '
            "--group out"
        ) from None


def notify(state: str) -> None:
    """Tell systemd, if it listens. Source: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError:
            return
