"""Subvolumes with those that a guest has made in them (all of this blocks).

A snapshot has an empty directory where its source has another subvolume: so a copy is taken of
each of them, and a deletion goes through all of them. Paths in a subvolume are the guest's, no
link in them is followed.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lxpy.errors import Failed
from lxpy.kernel import btrfs
from lxpy.kernel.files import BENEATH, NO_SYMLINKS, open_within
from lxpy.storage.drivers import btrfs_quotas, layout

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Have a directory of ours open. Raises OSError."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def create(path: Path, mode: int) -> None:
    """Make an empty subvolume. Raises FileExistsError."""
    with opened(path.parent) as parent:
        btrfs.create(parent, path.name)
    path.chmod(mode)


def clone(source: Path, target: Path) -> None:
    """Make a writable snapshot of a subvolume at a new path, with all that are in it.

    What was made of one that fails is left to `discard`. Raises OSError, Failed.
    """
    with opened(source) as old, opened(target.parent) as parent:
        btrfs.snapshot(parent, target.name, old)
        number = btrfs.subvolume_id(old)
        inner = btrfs.children(old, number)
        if inner:
            with opened(target) as new:
                _clone_children(old, new, inner)


def seal(path: Path) -> None:
    """Let a subvolume, and all that are in it, take no writes any more."""
    with opened(path) as top:
        _set_read_only(top, read_only=True)


def discard(path: Path) -> None:
    """Remove a subvolume, and all that are in it, or a directory of them; it may be gone."""
    try:
        with opened(path) as top, opened(path.parent) as above:
            if btrfs.is_subvolume(top):
                _destroy(above, top, path)
                return
    except FileNotFoundError:
        return
    for entry in list(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            discard(entry)
    shutil.rmtree(path)


def commit(directory: Path) -> None:
    """Have what was made and removed on the disk."""
    with opened(directory) as descriptor:
        btrfs.commit(descriptor)


def numbers(fd: int, number: int) -> list[int]:
    """Return the numbers of a subvolume and of all that are in it, innermost first."""
    inner = [each for child, _ in btrfs.children(fd, number) for each in numbers(fd, child)]
    return [*inner, number]


def _clone_children(old: int, new: int, inner: list[tuple[int, str]]) -> None:
    for number, path in inner:
        source = _open_inner(old, path, number)
        try:
            _clone_child(source, new, path, btrfs.children(source, number))
        finally:
            os.close(source)


def _clone_child(source: int, new: int, path: str, inner: list[tuple[int, str]]) -> None:
    above, _, name = path.rpartition("/")
    parent = open_within(new, above or ".", _DIRECTORY, resolve=BENEATH | NO_SYMLINKS)
    try:
        os.rmdir(name, dir_fd=parent)  # the placeholder
        btrfs.snapshot(parent, name, source)
        if inner:
            target = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                _clone_children(source, target, inner)
            finally:
                os.close(target)
    finally:
        os.close(parent)


def _set_read_only(top: int, *, read_only: bool) -> None:
    number = btrfs.subvolume_id(top)
    if not read_only:
        btrfs.set_read_only(top, read_only=False)
    for child, path in btrfs.children(top, number):
        descriptor = _open_inner(top, path, child)
        try:
            _set_read_only(descriptor, read_only=read_only)
        finally:
            os.close(descriptor)
    if read_only:
        btrfs.set_read_only(top, read_only=True)


def _destroy(above: int, top: int, path: Path) -> None:
    number = btrfs.subvolume_id(top)
    doomed = numbers(above, number)
    btrfs_quotas.lift(above, number)
    if len(doomed) > 1:
        _set_read_only(top, read_only=False)  # else nothing in it can be removed
        _hide(path)
    for each in doomed:
        btrfs.destroy(above, each)


def _hide(path: Path) -> None:
    """Take a name away, so that nobody finds it half removed, if there is room for that."""
    try:
        os.rename(path, layout.unfinished(path))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _open_inner(top: int, path: str, number: int) -> int:
    """Open a subvolume by its path below another. Raises Failed when another is there now."""
    descriptor = open_within(top, path, _DIRECTORY, resolve=BENEATH | NO_SYMLINKS)
    if btrfs.subvolume_id(descriptor) == number:
        return descriptor
    os.close(descriptor)
    raise Failed(f'The subvolume at "{path}" was replaced by another meanwhile: try again')
