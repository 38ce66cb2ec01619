"""The daemon's ends of what runs in an instance: executed commands and attached consoles."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from typing import Protocol

from lxpy.runtime.link import Link, SupervisorLost


class Linked(Protocol):
    """Who has the connection to the supervisor, which may be another one by now."""

    @property
    def link(self) -> Link:
        """Return the connection. Raises Unavailable while there is none."""


class Process:
    """A command in an instance. `fds` are our ends: "stdin", "stdout", "stderr", or "pty".

    The supervisor holds copies of them, so that the command outlives us: whoever is done with one
    says `close`, else the command never sees its end.
    """

    def __init__(self, runtime: Linked, identifier: str, name: str, fds: dict[str, int]) -> None:
        self.id = identifier
        self.name = name
        self.pid = 0
        self.start_time = 0
        self.not_executed = False  # its exit code, 126 or 127, is ours then
        self.fds = fds
        self._runtime = runtime
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """Wait for the exit code: 128+n for signal n, 127 not found, 126 not executable."""
        return await asyncio.shield(self._ended)

    @property
    def ended(self) -> bool:
        """Tell whether the command has ended."""
        return self._ended.done()

    async def signal(self, number: int) -> None:
        """Send a signal to the command. Raises StartFailed when it has ended."""
        await self._runtime.link.request("exec-signal", exec=self.id, signal=number)

    def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size in characters."""
        if "pty" in self.fds:
            size = struct.pack("4H", height, width, 0, 0)
            fcntl.ioctl(self.fds["pty"], termios.TIOCSWINSZ, size)

    def close(self, which: str = "") -> None:
        """Close one of `fds` here and in the supervisor ("" closes all): the other side sees it."""
        for key in [which] if which else list(self.fds):
            fd = self.fds.pop(key, -1)
            if fd >= 0:
                os.close(fd)
        with contextlib.suppress(SupervisorLost):
            if not self._ended.done():
                self._runtime.link.tell("exec-close", exec=self.id, which=which)

    def finish(self, status: int) -> None:
        """Note the end (the runtime calls it)."""
        if not self._ended.done():
            self._ended.set_result(status)


class Console:
    """One attachment to an instance's console; several may exist at a time."""

    def __init__(self, runtime: Linked, name: str, sock: socket.socket) -> None:
        self.name = name
        self._runtime = runtime
        self._sock = sock

    async def read(self, size: int = 65536) -> bytes:
        """Return output, b"" when the instance has ended or we are detached."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._sock, size)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Type. Raises OSError when the console is gone."""
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    def resize(self, width: int, height: int) -> None:
        """Tell the console its size in characters."""
        self._runtime.link.tell("console-resize", name=self.name, width=width, height=height)

    def detach(self) -> None:
        """Leave the console to itself. A pending `read` ends. Idempotent."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        # Not at once: epoll forgets a closed descriptor, and a pending read would never end.
        asyncio.get_running_loop().call_soon(self._sock.close)


def pipes() -> tuple[dict[str, int], list[int]]:
    """Make stdin, stdout, stderr: our ends by name, the command's in order."""
    stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
    ours = {"stdin": stdin[1], "stdout": stdout[0], "stderr": stderr[0]}
    return ours, [stdin[0], stdout[1], stderr[1]]
