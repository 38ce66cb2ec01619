"""A program on a pseudo-terminal, as a user sits before it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType


class Terminal:
    """Starts a program on a terminal of its own; leaving the block ends it."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        rows: int = 24,
        columns: int = 80,
    ) -> None:
        self.outer, inner = pty.openpty()
        self.seen = ""
        self.resize(rows, columns)
        self.before = termios.tcgetattr(inner)
        self.process = subprocess.Popen(
            [str(word) for word in argv],
            env={**env, "TERM": "xterm"},
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._inner = inner

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self.outer)
        os.close(self._inner)

    @property
    def settings(self) -> list[object]:
        """The terminal's settings now."""
        return termios.tcgetattr(self._inner)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window; the kernel tells the program."""
        fcntl.ioctl(self.outer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.outer, text.encode())

    def read_until(self, text: str, timeout_s: float = 15) -> str:
        """Read until `text` has come since the last call; return what came."""
        got, end = "", time.monotonic() + timeout_s
        while text not in got:
            left = end - time.monotonic()
            assert left > 0, f"no {text!r} within {timeout_s} s, but {got!r}"
            if select.select([self.outer], [], [], min(left, 0.5))[0]:
                got += os.read(self.outer, 65536).decode(errors="replace")
            elif self.process.poll() is not None:
                raise AssertionError(f"it ended ({self.process.returncode}) with {got!r}")
        self.seen += got
        return got

    def wait(self, timeout_s: float = 15) -> int:
        """Wait for the end, reading on; the exit status."""
        end = time.monotonic() + timeout_s
        while (status := self.process.poll()) is None:
            assert time.monotonic() < end, f"still running after {timeout_s} s: {self.seen!r}"
            if select.select([self.outer], [], [], 0.05)[0]:
                self.seen += os.read(self.outer, 65536).decode(errors="replace")
        while select.select([self.outer], [], [], 0)[0]:
            self.seen += os.read(self.outer, 65536).decode(errors="replace")
        return status
