"""Which layer stands on which, and which nobody needs any more.

    SOURCE/layers/ID/below     symlink to ../ID or ../../images/FINGERPRINT; none: the lowest
    PLACE/head                 symlink of a volume or snapshot to its topmost layer, or to an image

A layer that has another above it, or that a snapshot stands on, does not change any more. The
links are read once; after that, counts of users are kept in memory and every change goes through
here, in threads: one lock holds all still.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from lxpy.errors import Failed
from lxpy.storage.trash import Trash

HEAD = "head"
BELOW = "below"
#: In images/FINGERPRINT: the image was deleted while volumes stood on it; the last one takes it
#: along. The tree must not be unpacked anew meanwhile: overlayfs knows its layers by inode.
DELETED = "deleted"
_AREAS = ("containers", "containers-snapshots/*")


class Chains:
    """The layers of one pool."""

    def __init__(self, pool: Path, trash: Trash) -> None:
        self._pool = pool
        self._trash = trash
        self._lock = RLock()
        self._users: Counter[Path] | None = None

    @contextmanager
    def settled(self) -> Iterator[Counter[Path]]:
        """Hold the counts of users, by path of layer or image, still for the length of a block."""
        with self._lock:
            if self._users is None:
                self._users = self._counted()
            yield self._users

    def forget(self) -> None:
        """Count anew at the next use: the disk was changed by others."""
        with self._lock:
            self._users = None

    def new(self, below: Path | None) -> Path:
        """Make the directory of a layer on top of another, or of an image; return its path.

        It goes with the next `sweep` unless it gets a user.
        """
        layer = self._pool / "layers" / secrets.token_hex(8)
        with self.settled() as users:  # counted before: a first count must not see it
            os.mkdir(layer, 0o700)
            if below is not None:
                os.symlink(os.path.relpath(below, layer), layer / BELOW)
                users[below] += 1
        return layer

    def take(self, layer: Path) -> None:
        """Note one more head."""
        with self.settled() as users:
            users[layer] += 1

    def discard(self, layer: Path) -> None:
        """Put a layer without users into the trash, and what it alone stood on."""
        with self.settled() as users:
            self._collect(layer, users)

    def forget_place(self, place: Path) -> None:
        """Put a volume's or snapshot's directory into the trash; its head has one user less."""
        with self.settled() as users:  # counted before: a first count must still see it
            head = head_of(place)
            try:
                self._trash.discard(place)
            except FileNotFoundError:
                return
            if head is not None:
                users[head] -= 1
                self._collect(head, users)

    def point(self, place: Path, layer: Path) -> None:
        """Make a layer the head of a place, atomically; the former head has one user less."""
        old = head_of(place)
        link = place / f".{HEAD}-{secrets.token_hex(4)}"
        os.symlink(os.path.relpath(layer, place), link)
        with self.settled() as users:
            users[layer] += 1
            try:
                os.rename(link, place / HEAD)
            except BaseException:
                users[layer] -= 1
                raise
            if old is not None:
                users[old] -= 1
                self._collect(old, users)

    def sweep(self) -> None:
        """Put what a crash has left without a user into the trash."""
        with self.settled() as users:
            for layer in list((self._pool / "layers").iterdir()):
                self._collect(layer, users)
            for area in _AREAS:
                for link in self._pool.glob(f"{area}/*/.{HEAD}-*"):
                    link.unlink()
            for mark in list((self._pool / "images").glob(f"*/{DELETED}")):
                self._collect(mark.parent, users)

    def _collect(self, layer: Path, users: Counter[Path]) -> None:
        while users[layer] <= 0:
            del users[layer]
            if layer.parent.name == "images":
                if (layer / DELETED).exists():
                    self._trash.discard(layer)
                return
            below = below_of(layer)
            try:
                self._trash.discard(layer)
            except FileNotFoundError:
                return
            if below is None:
                return
            users[below] -= 1
            layer = below

    def _counted(self) -> Counter[Path]:
        users: Counter[Path] = Counter()
        for area in _AREAS:
            for place in self._pool.glob(f"{area}/*"):
                head = head_of(place)
                if head is not None:
                    users[head] += 1
        for layer in (self._pool / "layers").iterdir():
            below = below_of(layer)
            if below is not None:
                users[below] += 1
        return users


def head_of(place: Path) -> Path | None:
    """Return the topmost layer of a volume or snapshot, or the image that is one; None: none."""
    return _target(place, HEAD)


def below_of(layer: Path) -> Path | None:
    """Return the layer or image that a layer stands on, None for the lowest."""
    return _target(layer, BELOW)


def tree_of(layer: Path) -> Path:
    """Return the files of a layer that does not change any more, or of an image."""
    return layer / ("rootfs" if layer.parent.name == "images" else "upper")


def image_of(layer: Path | None) -> str | None:
    """Return the fingerprint of the image at the bottom of a chain, None where there is none."""
    while layer is not None:
        if layer.parent.name == "images":
            return layer.name
        layer = below_of(layer)
    return None


def stacked_below(layer: Path) -> list[Path]:
    """Return what is below a layer, topmost first: layers, at the end perhaps an image.

    Raises Failed when one is missing.
    """
    found = []
    below = below_of(layer)
    while below is not None:
        if not below.is_dir():
            raise Failed(f"Layer {below} is missing: restore it from a backup of the pool")
        found.append(below)
        below = below_of(below) if below.parent.name != "images" else None
    return found


def _target(place: Path, name: str) -> Path | None:
    try:
        return Path(os.path.normpath(place / os.readlink(place / name)))
    except OSError:
        return None
