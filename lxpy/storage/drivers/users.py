"""Which volumes stand on which image: counted once from the disk, kept up to date after."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

#: in a volume that stands on an image: a symlink ending in the image's fingerprint
LINK = "image"


def linked_image(directory: Path) -> str | None:
    """Return the fingerprint of the image that a volume's directory stands on, or None."""
    try:
        return os.path.basename(os.readlink(directory / LINK))
    except OSError:
        return None


class Users:
    """Counts of volumes by image fingerprint; used from several threads."""

    def __init__(self, containers: Path) -> None:
        self._containers = containers
        self._lock = RLock()
        self._counts: Counter[str] | None = None

    @contextmanager
    def settled(self) -> Iterator[Counter[str]]:
        """Hold the counts still for the length of a block: nobody takes or drops an image."""
        with self._lock:
            if self._counts is None:
                self._counts = self._counted()
            yield self._counts

    def take(self, fingerprint: str) -> None:
        """Note one more volume."""
        with self.settled() as counts:
            counts[fingerprint] += 1

    def drop(self, fingerprint: str) -> None:
        """Note one volume less."""
        with self.settled() as counts:
            counts[fingerprint] -= 1

    def forget(self) -> None:
        """Count anew at the next use: the disk was changed by others."""
        with self._lock:
            self._counts = None

    def _counted(self) -> Counter[str]:
        with os.scandir(self._containers) as entries:
            found = (linked_image(Path(each.path)) for each in entries)
            return Counter(each for each in found if each is not None)
