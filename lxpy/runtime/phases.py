"""What a forked child tells the supervisor, and the one barrier at which it waits for the daemon.

A child names the step it is at; whatever fails crosses the border as step, errno and text.
"""

from __future__ import annotations

import _socket
import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

GO = b"go"
_BYTES = 65536


class StepFailed(Exception):
    """A start, or a part of it, failed in a named step."""

    def __init__(self, step: str, text: str, number: int | None = None) -> None:
        super().__init__(text)
        self.step = step
        self.number = number


class Report:
    """The child's end."""

    __slots__ = ("_begun", "_sock", "_step", "steps")

    def __init__(self, fd: int) -> None:
        self._sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        self._step = "start"
        self._begun = time.monotonic_ns()
        self.steps: list[tuple[str, int]] = []

    def begin(self, step: str) -> None:
        """Enter a step: the one before is done."""
        now = time.monotonic_ns()
        self.steps.append((self._step, (now - self._begun) // 1000))
        self._step, self._begun = step, now

    def say(self, **news: Any) -> None:
        self._sock.send(json.dumps(news).encode())

    def send_descriptor(self, fd: int, **news: Any) -> None:
        """Hand a descriptor to the supervisor."""
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, "little"))
        self._sock.sendmsg([json.dumps(news).encode()], [rights])

    def about_to_exec(self) -> None:
        """Say that only exec is left: the end of the connection now means success."""
        self.begin("exec")
        self.say(exec=True, steps=self.steps)

    def wait_for_go(self) -> None:
        """Wait until the daemon has attached the network; end with it when it gave up."""
        if self._sock.recv(16) != GO:
            os._exit(1)

    def fail(self, error: BaseException) -> NoReturn:
        """Tell what went wrong, and end."""
        number = error.errno if isinstance(error, OSError) else None
        try:
            self.say(step=self._step, errno=number, failed=_short(explain(error)), steps=self.steps)
        except OSError:
            pass  # nobody listens any more
        os._exit(1)


def receive(sock: _socket.socket) -> tuple[dict[str, Any], int] | None:
    """Read one piece of news and its descriptor (-1 for none) in the supervisor; None at the end.

    Raises BlockingIOError when there is none yet.
    """
    data, ancillary, _, _ = sock.recvmsg(_BYTES, 64, _socket.MSG_CMSG_CLOEXEC)
    fd = -1
    for level, kind, raw in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fd = int.from_bytes(raw[:4], "little")
    if not data:
        return None
    news: dict[str, Any] = json.loads(data)
    return news, fd


def explain(error: BaseException) -> str:
    """Say what went wrong, without the number that Python puts before an OSError's text."""
    if isinstance(error, OSError) and error.strerror:
        subject = f"{error.filename}: " if error.filename else ""
        return f"{subject}{error.strerror}"
    if isinstance(error, (OSError, ValueError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _short(text: str) -> str:
    return text if len(text) < 4000 else text[:4000] + " ..."
