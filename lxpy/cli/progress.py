"""One line on the terminal that shows how an operation proceeds."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxpy.client.client import Client, Json


class Line:
    """Shows the texts of `*_progress` metadata of an operation."""

    def __init__(self) -> None:
        self._shown = ""

    def __call__(self, metadata: Json) -> None:
        """Show what an operation's metadata say; wipe the line when they say nothing."""
        texts = [str(text) for key, text in metadata.items() if key.endswith("_progress")]
        if texts:
            self.show(texts[-1])
        else:
            self.clear()

    def show(self, text: str) -> None:
        """Replace the line."""
        width = _columns() - 1
        text = text.replace("\n", " ")[:width]
        if text != self._shown:
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()
            self._shown = text

    def clear(self) -> None:
        """Wipe the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = ""


class Meter:
    """Shows on the client's progress line how far a transfer is."""

    def __init__(self, client: Client, what: str) -> None:
        self._line = client.watcher if isinstance(client.watcher, Line) else None
        self._what = what

    def watch(self, pieces: Iterator[bytes], total: int) -> Iterator[bytes]:
        """Pass pieces on; `total` is their size in bytes, -1 if unknown."""
        if self._line is None:
            yield from pieces
            return
        done, began, told = 0, time.monotonic(), 0.0
        for piece in pieces:
            yield piece
            done += len(piece)
            now = time.monotonic()
            if now - told >= 0.1:
                told = now
                share = f"{done * 100 // total}%" if total > 0 else f"{done / 1e6:.2f}MB"
                speed = done / max(now - began, 1e-3) / 1e6
                self._line.show(f"{self._what}: {share} ({speed:.2f}MB/s)")

    def end(self) -> None:
        """Wipe the line."""
        if self._line is not None:
            self._line.clear()


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80
