"""One line on the terminal that shows how an operation proceeds."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.client.client import Json


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


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80
