"""Files of a guest for those outside: looked at, read, written, removed; nothing leaves its root.

The guest may run meanwhile and move anything anywhere: every path is resolved by openat2 as if
the root were "/", and what was opened is looked at before it is used. All of this blocks.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from lxpy.errors import BadRequest, Conflict
from lxpy.kernel.credentials import acting_as
from lxpy.kernel.files import open_within
from lxpy.runtime.guestpaths import (
    QUIETLY,
    check_stored,
    explained,
    is_mounted,
    open_regular,
    write_all,
)
from lxpy.runtime.owners import Owners

_PLACE = os.O_PATH | os.O_DIRECTORY
_LINKS_MAX = 40
_NEW_DIRECTORY = 0o750


@dataclass(frozen=True, slots=True)
class Entry:
    """What is at a path: its type in LXD's words ("" for others), and owner as the guest has it.

    `mode` is the permissions, `modified` in seconds since 1970.
    """

    type: str
    uid: int
    gid: int
    mode: int
    modified: float
    size: int


@dataclass(frozen=True, slots=True)
class Wish:
    """Owner, permissions, time and extended attributes of what is new; None: as they come."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    modified_ns: int | None = None
    attributes: Mapping[str, bytes] = field(default_factory=dict)


class GuestFiles:
    """The files below the directory `root` (a descriptor), with the guest's owners.

    Every method raises NotFound, BadRequest, Conflict or Failed, which name the path.
    """

    def __init__(self, root: int, owners: Owners | None = None) -> None:
        self.root = root
        self.owners = owners or Owners()

    def look(self, path: str) -> Entry:
        """Return what is at `path`; a link there is not followed."""
        with explained(path):
            fd = self._open_itself(path)
            try:
                return self._entry(os.fstat(fd))
            finally:
                os.close(fd)

    def open_directory(self, path: str) -> int:
        """Open a directory to list it; links on the way are followed. The caller closes it."""
        with explained(path):
            return self._open(path, os.O_RDONLY | os.O_DIRECTORY)

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, in no order."""
        with explained(path):
            fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                return os.listdir(fd)
            finally:
                os.close(fd)

    def link(self, path: str) -> str:
        """Return where a symbolic link leads, made absolute: "/etc/../run/x" becomes "/run/x"."""
        with explained(path), self.place(path) as (parent, name, _):
            target = os.readlink(name, dir_fd=parent)
        return "/" + os.path.normpath(os.path.join(os.path.dirname(path), target)).lstrip("/")

    def read(self, path: str) -> tuple[Entry, int]:
        """Open a regular file; a link there is not followed. The caller closes the descriptor."""
        with explained(path), self.place(path) as (parent, name, _):
            check_stored(parent, path)
            with acting_as(*self.owners.root):
                fd = open_regular(parent, name, os.O_RDONLY, path)
            return self._entry(os.fstat(fd)), fd

    def append(self, path: str) -> int:
        """Open an existing file to add to its end. The caller closes the descriptor."""
        with explained(path), self.final(path) as (parent, name, _):
            with acting_as(*self.owners.root):
                return open_regular(parent, name, os.O_WRONLY | os.O_APPEND, path)

    def write_to(self, fd: int, data: bytes | bytearray, path: str) -> None:
        """Write to what `append` has opened."""
        with explained(path), acting_as(*self.owners.root):
            write_all(fd, data)

    def make_directory(self, path: str, wish: Wish) -> None:
        """Make a directory; one that is there stays as it is."""
        if not path.strip("/"):
            return
        with explained(path), self.place(path) as (parent, name, _):
            check_stored(parent, path)
            owner = self.owner(wish)
            with acting_as(*self.owners.root):
                try:
                    os.mkdir(name, 0o700, dir_fd=parent)
                except FileExistsError:
                    self._check_directory(path)
                    return
                try:
                    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | QUIETLY, dir_fd=parent)
                    try:
                        os.fchown(fd, *owner)
                        os.fchmod(fd, _NEW_DIRECTORY if wish.mode is None else wish.mode)
                    finally:
                        os.close(fd)
                except BaseException:
                    with suppress(OSError):
                        os.rmdir(name, dir_fd=parent)
                    raise

    def make_link(self, path: str, target: str, wish: Wish) -> None:
        """Make a symbolic link; the same one may be there already."""
        with explained(path), self.place(path) as (parent, name, _):
            check_stored(parent, path)
            owner = self.owner(wish)
            with acting_as(*self.owners.root):
                try:
                    os.symlink(target, name, dir_fd=parent)
                except FileExistsError:
                    _check_link(parent, name, path, target)
                    return
                os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)

    def make_name(self, path: str, of: str) -> None:
        """Give a file another name (a hard link), which may be there already."""
        with (
            explained(path),
            self.place(of) as (from_parent, from_name, _),
            self.place(path) as (parent, name, _),
            acting_as(*self.owners.root),
        ):
            check_stored(parent, path)
            try:
                os.link(
                    from_name, name, src_dir_fd=from_parent, dst_dir_fd=parent,
                    follow_symlinks=False,
                )  # fmt: skip
            except FileExistsError:
                one = os.stat(name, dir_fd=parent, follow_symlinks=False)
                other = os.stat(from_name, dir_fd=from_parent, follow_symlinks=False)
                if not os.path.samestat(one, other):
                    raise Conflict(f'"{path}" exists: delete it first') from None

    def remove(self, path: str) -> None:
        """Remove a file, or a directory that is empty."""
        with explained(path), self.place(path) as (parent, name, _):
            check_stored(parent, path)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if is_mounted(parent, name):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            with acting_as(*self.owners.root):
                if stat.S_ISDIR(status.st_mode):
                    os.rmdir(name, dir_fd=parent)
                else:
                    os.unlink(name, dir_fd=parent)

    # What uploads, and trees, are made of

    @contextmanager
    def final(self, path: str) -> Iterator[tuple[int, str, str]]:
        """Find where `path` leads at last: directory, name in it, path; the name may be free.

        Raises OSError, BadRequest.
        """
        for _ in range(_LINKS_MAX):
            with self.place(path) as (parent, name, place):
                target = _target(parent, name)
                if not target:
                    check_stored(parent, path)
                    yield parent, name, place
                    return
            path = target if target.startswith("/") else f"{place}/{target}"
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def owner(self, wish: Wish) -> tuple[int, int]:
        """Return the owner wished for as the host has it, -1 for none. Raises Unmapped."""
        uid, gid = self.owners.outside(wish.uid or 0, wish.gid or 0)
        return -1 if wish.uid is None else uid, -1 if wish.gid is None else gid

    @contextmanager
    def place(self, path: str) -> Iterator[tuple[int, str, str]]:
        """Open the directory that `path` is in: descriptor, last name, the directory's path."""
        directory, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise BadRequest(f'Invalid path "{path}": it names no file of a directory')
        directory = directory or "/"
        fd = self._open(directory, _PLACE)
        try:
            yield fd, name, directory
        finally:
            os.close(fd)

    def _open_itself(self, path: str) -> int:
        if not path.strip("/"):
            return self._open("/", _PLACE)
        with self.place(path) as (parent, name, _):
            return os.open(name, os.O_PATH | QUIETLY, dir_fd=parent)

    def _open(self, path: str, flags: int) -> int:
        with acting_as(*self.owners.root):
            return open_within(self.root, path, flags)

    def _entry(self, status: os.stat_result) -> Entry:
        uid, gid = self.owners.inside(status.st_uid, status.st_gid)
        mode, size = stat.S_IMODE(status.st_mode), status.st_size
        return Entry(type_of(status), uid, gid, mode, status.st_mtime, size)

    def _check_directory(self, path: str) -> None:
        fd = open_within(self.root, path, os.O_PATH)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise Conflict(f'"{path}" exists and is no directory: delete it first')
        finally:
            os.close(fd)


def type_of(status: os.stat_result) -> str:
    """Return LXD's word for what something is, "" for what it has none for."""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
    return kinds.get(stat.S_IFMT(status.st_mode), "")


def _target(parent: int, name: str) -> str:
    """Return where a link leads, "" for what is none, or does not exist."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
        return ""


def _check_link(parent: int, name: str, path: str, target: str) -> None:
    have = _target(parent, name)
    if have != target:
        what = f'a link to "{have}"' if have else "no link"
        raise Conflict(f'"{path}" exists and is {what}: delete it first')
