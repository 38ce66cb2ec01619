"""Progress as the clients of LXD show it: one line of text per stage of the work."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Called with a stage ("download", "unpack", "build", "pack") and a text ("rootfs: 40% (3.1MB/s)").
Progress = Callable[[str, str], None]


def silent(stage: str, text: str) -> None:
    """Tell nobody."""


class Meter:
    """Turns a count of bytes into texts: percent where the total is known, and speed."""

    def __init__(self, progress: Progress, stage: str, what: str, total_bytes: int = 0) -> None:
        self._progress = progress
        self._stage = stage
        self._what = what
        self._total = total_bytes
        self._done = 0
        self._began = time.monotonic()
        self._told = 0.0

    def add(self, size: int) -> None:
        """Count more bytes; tells about five times a second."""
        self._done += size
        now = time.monotonic()
        if now - self._told < 0.2 and self._done != self._total:
            return
        self._told = now
        speed = self._done / max(now - self._began, 1e-3)
        if self._total:
            share = f"{min(100, self._done * 100 // self._total)}%"
        else:
            share = f"{self._done / 1e6:.2f}MB"
        self._progress(self._stage, f"{self._what}: {share} ({speed / 1e6:.2f}MB/s)")
