"""The socket that instances see at /dev/lxd/sock: who connects, how often, and how fast.

Nothing here trusts the other side: each instance has so many connections and so many requests a
second, and waits for more of them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from lxpy.daemon.routes import guest
from lxpy.errors import LxpyError
from lxpy.services.instances.guests import Guests
from lxpy.services.instances.store import Key

CONNECTIONS = 100
_REQUESTS_PER_S = 100
_AT_ONCE = 200
_IDLE_S = 15.0
_BACKLOG = 1024
_PAUSE_S = 0.5
_KNOWN = 4096
#: processes of the host have no business here, and together as many connections as an instance
_STRANGERS: Key = ("", "")

_log = structlog.get_logger()


class _Stranger(LxpyError):
    """Somebody who is in no instance (LXD's words, and its status 500)."""

    def __init__(self) -> None:
        super().__init__("pid not in container?")


class _NotRoot(LxpyError):
    """Somebody in an instance who is not its root."""

    status = web.HTTPUnauthorized.status_code  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__("Access denied for non-root user")


@dataclass(slots=True)
class _Load:
    """What one instance does here; `due` is when it has asked for no more than it may."""

    connections: list[asyncio.Transport]
    due: float = 0.0
    refusing: int = 0

    def refuses(self) -> bool:
        """Whether it may not connect now."""
        return self.refusing > 0


class GuestListener:
    """Accepts connections of instances and answers them."""

    def __init__(self, guests: Guests, directory: Path) -> None:
        self._guests = guests
        self._path = directory / "sock"
        self._callers: dict[int, tuple[Key, bool] | None] = {}  # by the socket's descriptor
        self._loads: defaultdict[Key, _Load] = defaultdict(lambda: _Load([]))
        self._runner: web.AppRunner | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; what a daemon before has left is replaced. Raises OSError."""
        self._runner = web.AppRunner(
            guest.build(self._guests, self._caller),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=_IDLE_S,
            shutdown_timeout=1.0,
        )
        await self._runner.setup()
        self._path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(self._path))
        os.chmod(self._path, 0o666)  # their roots are nobody here; `_caller` looks at each
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        self._task = asyncio.get_running_loop().create_task(self._accept(sock))

    async def close(self) -> None:
        """Stop listening and end all connections."""
        self._guests.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    @asynccontextmanager
    async def cut(self, key: Key) -> AsyncIterator[None]:
        """Have no connection with an instance for the length of a block.

        Its memory cannot be saved with one: the other end is not in it.
        """
        load = self._loads[key]
        load.refusing += 1
        try:
            for transport in load.connections:
                transport.abort()
            await asyncio.sleep(0)  # by then they are closed, not only about to be
            yield
        finally:
            load.refusing -= 1

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    sock, _ = await loop.sock_accept(listener)
                except OSError as error:  # no descriptor left: others close theirs
                    _log.warning("a guest cannot connect", error=str(error))
                    await asyncio.sleep(_PAUSE_S)
                    continue
                try:
                    await self._take(sock)
                except OSError as error:
                    sock.close()
                    _log.debug("a guest's connection broke", error=str(error))
                except Exception:
                    sock.close()
                    _log.exception("a guest's connection cannot be taken")

    async def _take(self, sock: socket.socket) -> None:
        caller = self._guests.identify(sock)
        if len(self._loads) > _KNOWN:
            self._forget()
        load = self._loads[caller[0] if caller is not None else _STRANGERS]
        load.connections = list(filter(_is_open, load.connections))
        if load.refuses() or len(load.connections) >= CONNECTIONS:
            sock.close()
            await asyncio.sleep(0)  # or who connects again and again would have us to itself
            return
        assert self._runner is not None and self._runner.server is not None
        self._callers[sock.fileno()] = caller
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            self._runner.server, sock
        )
        load.connections.append(transport)
        if load.refuses():  # since just now
            transport.abort()

    def _forget(self) -> None:
        """Forget the instances that do nothing here now."""
        for key, load in list(self._loads.items()):
            if not load.refuses() and not any(map(_is_open, load.connections)):
                del self._loads[key]

    async def _caller(self, request: web.Request) -> Key:
        """Return the instance that a request comes from, when it is its turn.

        Raises LxpyError when it comes from none, or may not.
        """
        sock = request.transport.get_extra_info("socket") if request.transport else None
        found = self._callers.get(sock.fileno()) if sock is not None else None
        key, is_root = found or (_STRANGERS, False)
        now, load = asyncio.get_running_loop().time(), self._loads[key]
        load.due = max(load.due, now - _AT_ONCE / _REQUESTS_PER_S) + 1 / _REQUESTS_PER_S
        if load.due > now:
            await asyncio.sleep(load.due - now)
        if found is None:
            raise _Stranger
        if not is_root:
            raise _NotRoot
        self._guests.check(key)
        return key


def _is_open(transport: asyncio.Transport) -> bool:
    return not transport.is_closing()
