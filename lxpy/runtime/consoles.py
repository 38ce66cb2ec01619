"""Consoles in the supervisor's loop: from the container to its log and its viewers, and back."""

from __future__ import annotations

import time

from lxpy.runtime.loop import IN, OUT
from lxpy.runtime.terminal import Spectator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.held import Container
    from lxpy.runtime.loop import Loop

_REST_S = 0.1


class Consoles:
    """Moves the bytes of all consoles."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def watch(self, container: Container) -> None:
        """Read what the container writes from now on."""
        if container.console is not None:
            self._loop.watch(container.console.master, lambda e: self._ready(container, e))

    def close(self, container: Container) -> None:
        """Read what is left, and close it for everyone."""
        if container.console is not None:
            self._drain(container)
            container.console.close(self._loop.forget)
            container.console = None

    def attach(self, container: Container, fd: int) -> None:
        """Let the socket `fd`, ours from now on, see the console and type into it."""
        assert container.console is not None
        spectator = Spectator(fd)
        container.console.spectators[fd] = spectator
        self._watch_spectator(container, fd, spectator)

    def _ready(self, container: Container, events: int) -> None:
        console = container.console
        if console is None:
            return
        if events & OUT and console.write(b""):
            self.watch(container)
        if events & ~OUT:
            self._drain(container)

    def _drain(self, container: Container) -> None:
        console = container.console
        assert console is not None
        try:
            data, rest = console.read(time.monotonic())
        except OSError:
            self._loop.forget(console.master)
            return
        for fd, spectator in list(console.spectators.items()):
            try:
                spectator.offer(data)
                self._watch_spectator(container, fd, spectator)
            except OSError:
                self._leave(container, fd)
        if rest:
            self._loop.forget(console.master)
            self._loop.later(_REST_S, lambda: self.watch(container))

    def _watch_spectator(self, container: Container, fd: int, spectator: Spectator) -> None:
        events = IN | OUT if spectator.pending else IN
        self._loop.watch(fd, lambda e: self._spectator(container, fd, e), events)

    def _spectator(self, container: Container, fd: int, events: int) -> None:
        console = container.console
        spectator = console.spectators.get(fd) if console is not None else None
        if console is None or spectator is None:
            return
        try:
            if events & OUT and spectator.flush():
                self._watch_spectator(container, fd, spectator)
            if events & ~OUT:
                data = spectator.sock.recv(4096)
                if not data:
                    self._leave(container, fd)
                elif not console.write(data):
                    # The container does not read: go on when its terminal takes more.
                    self._loop.watch(console.master, lambda e: self._ready(container, e), IN | OUT)
        except BlockingIOError:
            return
        except OSError:
            self._leave(container, fd)

    def _leave(self, container: Container, fd: int) -> None:
        console = container.console
        assert console is not None
        self._loop.forget(fd)
        console.spectators.pop(fd).sock.close()
