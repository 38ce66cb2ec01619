"""Writes trees as one tar stream: hashed on the way, holes and hard links kept.

Runs in a short program of its own, on Python's own library: see `lxpy.backups.pack`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator

from lxpy.backups.headers import (
    BLOCK,
    DIRECTORY,
    END,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    Header,
    padding,
)
from lxpy.images.attributes import wanted
from lxpy.kernel.files import BENEATH, NO_SYMLINKS, open_within

CHECKSUMS = "backup/checksums"
_BUFFER_BYTES = 1 << 20
_EXTENTS = 20_000  # readers bound what a member's header may take
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_SEEK_UNABLE = (errno.EINVAL, errno.EOPNOTSUPP)

Extent = tuple[int, int]


class Changed(Exception):
    """A file has changed while it was read: the tree is not still."""


class Tarball:
    """A tar stream on a descriptor. Names are bytes, relative, without "." and ".."."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._digest = hashlib.sha256()
        self._parts: list[bytes] = []
        self._waiting = 0
        self._size = 0

    def text(self, name: str, content: bytes, mtime_ns: int) -> None:
        """Add a file of root's with this content."""
        self._member(Header(os.fsencode(name), FILE, size=len(content), mtime_ns=mtime_ns))
        self._content(content)

    def file(self, name: str, descriptor: int) -> None:
        """Add an open file, or the content of a disk."""
        found = os.fstat(descriptor)
        size = os.lseek(descriptor, 0, os.SEEK_END)
        header = _header(os.fsencode(name), FILE, found)
        self._regular(header, descriptor, size, is_sparse=True)

    def directory(self, name: bytes, found: os.stat_result, xattrs: dict[str, bytes]) -> None:
        """Add a directory."""
        header = _header(name + b"/", DIRECTORY, found)
        header.xattrs = xattrs
        self._member(header)

    def link(self, name: bytes, target: bytes, found: os.stat_result) -> None:
        """Add another name of a file that is in the archive."""
        header = _header(name, LINK, found)
        header.link = target
        self._member(header)

    def node(self, name: bytes, here: bytes, found: os.stat_result) -> None:
        """Add the file, symbolic link or named pipe `here` in the working directory.

        Devices and sockets are left out: they mean nothing elsewhere. Raises Changed.
        """
        if stat.S_ISREG(found.st_mode):
            descriptor = os.open(here, _OPEN)
            try:
                header = _header(name, FILE, found)
                header.xattrs = attributes_of(descriptor)
                is_sparse = found.st_blocks * BLOCK < found.st_size
                self._regular(header, descriptor, found.st_size, is_sparse=is_sparse)
            finally:
                os.close(descriptor)
        elif stat.S_ISLNK(found.st_mode):
            header = _header(name, SYMLINK, found)
            header.link = os.readlink(here)
            self._member(header)
        elif stat.S_ISFIFO(found.st_mode):
            self._member(_header(name, FIFO, found))

    def checksums(self) -> None:
        """Add the digest of all that has been written."""
        self.flush()
        text = f"sha256 {self._digest.hexdigest()} {self._size}\n"
        self.text(CHECKSUMS, text.encode(), 0)

    def end(self) -> None:
        """Write the end mark."""
        self._put(END)
        self.flush()

    def flush(self) -> None:
        """Write out what waits."""
        data = b"".join(self._parts)
        self._parts, self._waiting = [], 0
        self._size += len(data)
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._output, view) :]

    def _put(self, data: bytes) -> None:
        self._parts.append(data)
        self._waiting += len(data)
        if self._waiting >= _BUFFER_BYTES:
            self.flush()

    def _member(self, header: Header) -> None:
        self._put(header.encode())

    def _content(self, data: bytes) -> None:
        self._put(data)
        self._put(padding(len(data)))

    def _regular(self, header: Header, descriptor: int, size: int, *, is_sparse: bool) -> None:
        extents = _extents(descriptor, size) if is_sparse else None
        if extents is None:
            header.size = size
            self._member(header)
            self._copy(descriptor, 0, size)
            self._put(padding(size))
            return
        table = _table(extents, size)
        stored = sum(length for _, length in extents)
        above, _, name = header.name.rpartition(b"/")
        header.pax |= {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": header.name,
            b"GNU.sparse.realsize": b"%d" % size,
        }
        header.name = b"/".join((*filter(None, (above,)), b"GNUSparseFile.0", name))
        header.size = len(table) + stored
        self._member(header)
        self._put(table)
        for offset, length in extents:
            self._copy(descriptor, offset, length)
        self._put(padding(stored))

    def _copy(self, descriptor: int, offset: int, size: int) -> None:
        while size:
            part = os.pread(descriptor, min(size, _BUFFER_BYTES), offset)
            if not part:
                raise Changed("a file became shorter while it was read")
            self._put(part)
            offset += len(part)
            size -= len(part)


def attributes_of(what: int | bytes) -> dict[str, bytes]:
    """Return the extended attributes that belong to a guest's file."""
    try:
        names = os.listxattr(what)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise
    return {name: os.getxattr(what, name) for name in names if wanted(name)}


def _header(name: bytes, kind: bytes, found: os.stat_result) -> Header:
    return Header(name, kind, found.st_mode, found.st_uid, found.st_gid, mtime_ns=found.st_mtime_ns)


def _extents(descriptor: int, size: int) -> list[Extent] | None:
    """Return where a file has data, None where that is everywhere or cannot be told."""
    found: list[Extent] = []
    end = 0
    try:
        while end < size:
            try:
                start = os.lseek(descriptor, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break  # nothing but a hole up to the end
                raise
            end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
            if start < end:
                found.append((start, end - start))
    except OSError as error:
        if error.errno in _SEEK_UNABLE:
            return None
        raise
    return None if found == [(0, size)] else _bounded(found)


def _bounded(extents: list[Extent]) -> list[Extent]:
    """Fill the smallest holes until there are few enough extents."""
    gap = 64 << 10
    while len(extents) > _EXTENTS:
        joined = [extents[0]]
        for offset, length in extents[1:]:
            begun, had = joined[-1]
            if offset - begun - had <= gap:
                joined[-1] = (begun, offset + length - begun)
            else:
                joined.append((offset, length))
        extents, gap = joined, gap * 4
    return extents


def _table(extents: list[Extent], size: int) -> bytes:
    """Return the map of a sparse file, format 1.0."""
    listed = list(extents)
    if not listed or sum(listed[-1]) < size:
        listed.append((size, 0))
    numbers = [len(listed), *(number for each in listed for number in each)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + padding(len(text))


class Walk:
    """Goes through a tree: a directory, what is in it, then the directories in it.

    While an entry is handled, the process stands in its directory. Links are never followed.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._waiting = [b""]

    def __iter__(self) -> Iterator[tuple[bytes, int, list[tuple[bytes, os.stat_result]]]]:
        """Yield each directory's path, a descriptor of it, and its entries by name."""
        while self._waiting:
            path = self._waiting.pop()
            descriptor = open_directory(self._root, path)
            try:
                os.fchdir(descriptor)
                entries = [(name, os.lstat(name)) for name in sorted(os.listdir(b"."))]
                yield path, descriptor, entries
            finally:
                os.close(descriptor)
            below = path + b"/" if path else b""
            inner = [below + name for name, found in entries if stat.S_ISDIR(found.st_mode)]
            self._waiting += reversed(inner)


def open_directory(root: int, path: bytes) -> int:
    """Open a directory of a tree, "" being its top. Raises OSError."""
    return open_within(
        root, os.fsdecode(path) or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=BENEATH | NO_SYMLINKS
    )
