"""The program that packs a directory of a guest: a tar archive on standard output."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator

from lxpy.backups.headers import DIRECTORY, END, FILE, LINK, SYMLINK, Header, padding
from lxpy.kernel.credentials import acting_as
from lxpy.runtime.guestfiles import GuestFiles
from lxpy.runtime.guestpaths import QUIETLY, is_stored, write_all
from lxpy.services.files.treejob import carry_out, inside, is_wanted

_BUFFER = 1 << 20
_SMALL = 1 << 16
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK}


class Packer:
    """Writes the tree below a directory; the guest may change it meanwhile."""

    def __init__(self, files: GuestFiles, output: int) -> None:
        self._owners = files.owners
        self._files = files
        self._output = output
        self._buffer = bytearray()
        self._names: dict[tuple[int, int], bytes] = {}

    def run(self, path: str) -> None:
        """Pack the directory at `path`, whose members are named relative to it.

        Raises OSError, LxpyError.
        """
        top = self._files.open_directory(path)
        with acting_as(*self._owners.root):
            self._walk(top)
            self._buffer += END
            self._flush()

    def _walk(self, top: int) -> None:
        """Write a directory and all below it; descriptors are as many as it is deep."""
        self._header(top, b"./", os.fstat(top))
        waiting = [(top, b"./", iter(os.listdir(top)))]
        while waiting:
            parent, place, names = waiting[-1]
            name = next(names, None)
            if name is None:
                os.close(parent)
                waiting.pop()
                continue
            path = place + os.fsencode(name)
            below = self._member(parent, name, path)
            if below >= 0:
                waiting.append((below, path + b"/", iter(os.listdir(below))))

    def _member(self, parent: int, name: str, path: bytes) -> int:
        """Write one member; of a directory return a descriptor, else -1.

        Devices, sockets and pipes are left out, and what has gone meanwhile.
        """
        try:
            place = os.open(name, os.O_PATH | QUIETLY, dir_fd=parent)
        except FileNotFoundError:
            return -1
        try:
            status = os.fstat(place)
            if stat.S_ISLNK(status.st_mode):
                self._header(-1, path, status, os.fsencode(os.readlink("", dir_fd=place)))
            elif stat.S_ISREG(status.st_mode) and is_stored(place):
                self._regular(place, path, status)
            elif stat.S_ISDIR(status.st_mode):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                below = os.open(f"/proc/self/fd/{place}", flags)
                self._header(below, path + b"/", status)
                if is_stored(below):
                    return below
                os.close(below)
        finally:
            os.close(place)
        return -1

    def _regular(self, place: int, path: bytes, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            if first := self._names.get(key):
                self._header(-1, path, status, first)
                return
            self._names[key] = path
        fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._header(fd, path, status)
            self._content(fd, status.st_size)
        finally:
            os.close(fd)

    def _header(self, fd: int, path: bytes, status: os.stat_result, link: bytes = b"") -> None:
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        header = Header(path, kind, stat.S_IMODE(status.st_mode))
        # A fraction of a second would double what a small file takes.
        header.mtime_ns = status.st_mtime_ns // 10**9 * 10**9
        header.uid, header.gid = self._owners.inside(status.st_uid, status.st_gid)
        if link:
            header.link = link
            header.kind = SYMLINK if kind == SYMLINK else LINK
        elif kind == FILE:
            header.size = status.st_size
        if fd >= 0:
            header.xattrs = dict(self._attributes(fd))
        self._buffer += header.encode()
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def _attributes(self, fd: int) -> Iterator[tuple[str, bytes]]:
        for name in filter(is_wanted, os.listxattr(fd)):
            if value := inside(name, os.getxattr(fd, name), self._owners):
                yield name, value

    def _content(self, fd: int, size: int) -> None:
        """Write exactly `size` bytes: of a file that became shorter, zeros."""
        left = size
        if size <= _SMALL:
            data = os.read(fd, size)
            self._buffer += data
            left -= len(data)
        else:
            self._flush()
            while left and (sent := os.sendfile(self._output, fd, None, min(left, _BUFFER))):
                left -= sent
        while left:
            count = min(left, _BUFFER)
            self._buffer += bytes(count)
            self._flush()
            left -= count
        self._buffer += padding(size)

    def _flush(self) -> None:
        write_all(self._output, self._buffer)
        self._buffer = bytearray()


def main() -> None:
    """Run the job given as the only argument."""
    carry_out(lambda files, path: Packer(files, sys.stdout.fileno()).run(path))


if __name__ == "__main__":
    main()
