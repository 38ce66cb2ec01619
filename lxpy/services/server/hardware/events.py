"""Hears when device nodes come and go: uevents of the kernel, and changes of directories.

Source: netlink(7), NETLINK_KOBJECT_UEVENT; inotify(7).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
from collections.abc import Callable, Iterable

_KOBJECT_UEVENT = 15
_KERNEL = 1
_BUFFER_BYTES = 16 << 20  # a hub with everything on it
_ACTIONS = frozenset(("add", "remove", "bind", "unbind", "move"))
_CREATED, _DELETED, _MOVED_FROM, _MOVED_TO = 0x100, 0x200, 0x40, 0x80
_SELF = 0x400 | 0x800  # the directory itself is deleted or moved
_CHANGES = _CREATED | _DELETED | _MOVED_FROM | _MOVED_TO | _SELF | 0x01000000  # directories only
_libc = ctypes.CDLL(None, use_errno=True)


class Events:
    """Calls back, in the loop, with what the kernel said ("" for a change of a directory)."""

    def __init__(self, heard: Callable[[bytes], None]) -> None:
        self._heard = heard
        self._sock: socket.socket | None = None
        self._inotify = -1
        self._watched: dict[str, int] = {}

    def start(self) -> None:
        """Listen. Raises OSError."""
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._sock = socket.socket(socket.AF_NETLINK, kind, _KOBJECT_UEVENT)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._sock.bind((0, _KERNEL))
        loop.add_reader(self._sock.fileno(), self._uevents)
        self._inotify = _call(_libc.inotify_init1, os.O_NONBLOCK | os.O_CLOEXEC)
        loop.add_reader(self._inotify, self._changes)

    def watch(self, paths: Iterable[str]) -> None:
        """Hear of changes on the way to these paths, and of no others."""
        wanted = {_existing(os.path.dirname(path)) for path in paths}
        for gone in self._watched.keys() - wanted:
            _libc.inotify_rm_watch(self._inotify, self._watched.pop(gone))
        for directory in wanted:
            # Again and again: one that was deleted and made anew is another one.
            try:
                raw = os.fsencode(directory)
                number = _call(_libc.inotify_add_watch, self._inotify, raw, _CHANGES)
            except OSError:
                self._watched.pop(directory, None)
                continue
            self._watched[directory] = number

    def close(self) -> None:
        """Listen no more."""
        loop = asyncio.get_running_loop()
        if self._sock is not None:
            loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
        if self._inotify >= 0:
            loop.remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1

    def _uevents(self) -> None:
        assert self._sock is not None
        while True:
            try:
                data, sender = self._sock.recvfrom(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._heard(b"")  # some were lost: look at everything
                continue
            action = data.partition(b"@")[0].decode(errors="replace")
            if sender[0] == 0 and action in _ACTIONS:
                self._heard(data)

    def _changes(self) -> None:
        try:
            while os.read(self._inotify, 1 << 16):
                continue
        except BlockingIOError:
            self._heard(b"")


def _existing(directory: str) -> str:
    while directory != "/" and not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return directory


def _call(function: Callable[..., int], *arguments: object) -> int:
    result = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
