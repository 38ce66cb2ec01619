"""Since which dump the kernel has kept track of what changes in the memory of an instance.

Each dump, whole or not, has the kernel begin anew: only the last one can be built on, and none
after a failure. What is known ends with the daemon: the next dump is a whole one then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lxpy.runtime import chains
from lxpy.runtime.running import Held


@dataclass(frozen=True, slots=True)
class _Last:
    """A dump of a running system: whose, where, and how its directory is known again."""

    pid: int
    start_time: int
    place: Path
    identity: tuple[int, int]


class Tracking:
    """The last dump of each running instance. Blocking."""

    def __init__(self) -> None:
        self._last: dict[str, _Last] = {}

    def take(self, held: Held) -> Path | None:
        """Return what the next dump can be built on; it is forgotten, as that one begins anew."""
        last = self._last.pop(held.name, None)
        if last is None or (last.pid, last.start_time) != (held.pid, held.start_time):
            return None
        try:
            same = _identity(last.place) == last.identity
        except FileNotFoundError:
            return None  # its snapshot was deleted or renamed
        return last.place if same and chains.depth(last.place) < chains.DEPTH else None

    def note(self, held: Held, place: Path) -> None:
        """Keep that a dump was made, and its processes go on."""
        self._last[held.name] = _Last(held.pid, held.start_time, place, _identity(place))


def _identity(place: Path) -> tuple[int, int]:
    found = os.stat(place)
    return found.st_ino, found.st_ctime_ns
