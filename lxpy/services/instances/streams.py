"""Descriptors of pipes and terminals on the one side, websockets on the other."""

from __future__ import annotations

import asyncio
import errno
import os

from lxpy.operations.channel import Channel

_CHUNK = 1 << 16
_GONE = (errno.EIO, errno.EBADF, errno.EPIPE)  # EIO: the last slave of a terminal was closed


class Reader:
    """Reads what a command writes. `fd` stays the caller's to close."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()

    async def read(self) -> bytes:
        """Return the next bytes; b"" at the end."""
        while True:
            try:
                return os.read(self._fd, _CHUNK)
            except BlockingIOError:
                await self._readable()
            except OSError as error:
                if error.errno in _GONE:
                    return b""
                raise

    def rest(self) -> bytes:
        """Return what is there already, without waiting; b"" when that is nothing."""
        try:
            return os.read(self._fd, _CHUNK)
        except OSError:
            return b""

    async def _readable(self) -> None:
        ready = self._loop.create_future()
        self._loop.add_reader(self._fd, _resolve, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(self._fd)


class Writer:
    """Writes what a command reads, in order. `fd` stays the caller's to close."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()

    async def write(self, data: bytes) -> bool:
        """Write all of it; False when nobody reads any more."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                if error.errno in _GONE:
                    return False
                raise
        return True

    async def _writable(self) -> None:
        ready = self._loop.create_future()
        self._loop.add_writer(self._fd, _resolve, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._fd)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def pump(reader: Reader, channel: Channel, ended: asyncio.Event) -> None:
    """Send a command's output until it ends; then what is left, and the empty text frame.

    Children that a command leaves behind may hold its pipes open for ever: once the command has
    ended, only what has been written counts.
    """
    over = asyncio.ensure_future(ended.wait())
    try:
        while True:
            reading = asyncio.ensure_future(reader.read())
            await asyncio.wait((reading, over), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                await asyncio.wait([reading])
                while data := reader.rest():
                    await channel.send(data)
                break
            data = reading.result()
            if not data:
                break
            await channel.send(data)
    finally:
        over.cancel()
    await channel.send_text("")


class Sockets:
    """The websockets of one session by name: who is there, and waiting for those who are not."""

    def __init__(self, names: dict[str, str]) -> None:
        self.secrets = names
        self._channels: dict[str, Channel] = {}
        self._news = asyncio.Event()

    def __getitem__(self, name: str) -> Channel:
        return self._channels[name]

    def __contains__(self, name: str) -> bool:
        return name in self._channels

    def add(self, name: str, channel: Channel) -> bool:
        """Note a connected socket; False when that one is taken."""
        if name in self._channels:
            return False
        self._channels[name] = channel
        self._news.set()
        return True

    async def wait(self, names: tuple[str, ...], timeout_s: float) -> bool:
        """Wait until all of `names` are connected; False when the time is over before."""
        try:
            async with asyncio.timeout(timeout_s):
                while not all(name in self._channels for name in names):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close all, control first: a client takes that as the end."""
        order = sorted(self._channels, key=lambda name: name != "control")
        for name in order:
            await self._channels[name].close()
