"""The program that packs or unpacks a tree of a guest's files: one short process per tree.

It is not part of the daemon's process, so that thousands of small files never delay a request.
Takes one JSON object as its argument (see `Job`). Packing writes a tar archive to standard output,
unpacking reads one from standard input; what fails is told on standard error as
`{"error": TEXT, "class": NAME}`, and the status is 1. Runs on Python's own library alone.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from lxpy.errors import BadRequest, Failed, LxpyError, NotFound
from lxpy.images import attributes
from lxpy.images.tarstream import BadArchive, Reader, Stream, printable
from lxpy.kernel.credentials import acting_as
from lxpy.kernel.libc import prctl
from lxpy.runtime.guestfiles import GuestFiles, Wish
from lxpy.runtime.guestpaths import QUIETLY, explain, is_stored, write_all
from lxpy.runtime.owners import Owners
from lxpy.runtime.upload import Upload

_PR_SET_PDEATHSIG = 1
_BLOCK = 512
_BUFFER = 1 << 20
_SMALL = 1 << 16
_CAPABILITY = "security.capability"
_PAX = "SCHILY.xattr."
# vfs_cap_data: revisions 2 and 3, the latter with the id of its user namespace's root.
_REVISION, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
_CAPABILITY_2_BYTES, _CAPABILITY_3_BYTES = 20, 24


@dataclass(frozen=True, slots=True)
class Job:
    """What to do: `verb` is "pack" or "unpack", `root` an inherited descriptor of the guest's "/".

    `uids` and `gids` are the spans of an `Owners`.
    """

    verb: str
    root: int
    path: str
    uids: list[tuple[int, int, int]]
    gids: list[tuple[int, int, int]]

    def files(self) -> GuestFiles:
        """Return the files that the job is about."""
        spans = (tuple((a, b, c) for a, b, c in each) for each in (self.uids, self.gids))
        return GuestFiles(self.root, Owners(*spans))


class Packer:
    """Writes the tree below a directory; the guest may change it meanwhile."""

    def __init__(self, files: GuestFiles, output: int) -> None:
        self._owners = files.owners
        self._files = files
        self._output = output
        self._buffer = bytearray()
        self._names: dict[tuple[int, int], str] = {}

    def run(self, path: str) -> None:
        """Pack the directory at `path`, whose members are named relative to it.

        Raises OSError, LxpyError.
        """
        top = self._files.open_directory(path)
        with acting_as(*self._owners.root):
            self._walk(top)
            self._buffer += bytes(2 * _BLOCK)
            self._flush()

    def _walk(self, top: int) -> None:
        """Write a directory and all below it; descriptors are as many as it is deep."""
        self._header(top, ".", os.fstat(top))
        waiting = [(top, ".", iter(os.listdir(top)))]
        while waiting:
            parent, place, names = waiting[-1]
            name = next(names, None)
            if name is None:
                os.close(parent)
                waiting.pop()
                continue
            below = self._member(parent, name, f"{place}/{name}")
            if below >= 0:
                waiting.append((below, f"{place}/{name}", iter(os.listdir(below))))

    def _member(self, parent: int, name: str, path: str) -> int:
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
                self._header(-1, path, status, link=os.readlink("", dir_fd=place))
            elif stat.S_ISREG(status.st_mode) and is_stored(place):
                self._regular(place, path, status)
            elif stat.S_ISDIR(status.st_mode):
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
                below = os.open(f"/proc/self/fd/{place}", flags)
                self._header(below, path, status)
                if is_stored(below):
                    return below
                os.close(below)
        finally:
            os.close(place)
        return -1

    def _regular(self, place: int, path: str, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            if first := self._names.get(key):
                self._header(-1, path, status, link=first)
                return
            self._names[key] = path
        fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._header(fd, path, status)
            self._content(fd, status.st_size)
        finally:
            os.close(fd)

    def _header(self, fd: int, path: str, status: os.stat_result, link: str = "") -> None:
        info = tarfile.TarInfo(path)
        info.uid, info.gid = self._owners.inside(status.st_uid, status.st_gid)
        info.mode = stat.S_IMODE(status.st_mode)
        info.mtime = int(status.st_mtime)
        if stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(status.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, link
        elif link:
            info.type, info.linkname = tarfile.LNKTYPE, link
        else:
            info.size = status.st_size
        if fd >= 0:
            info.pax_headers = {
                _PAX + name: value.decode("utf-8", "surrogateescape")
                for name, value in self._attributes(fd)
            }
        self._buffer += info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def _attributes(self, fd: int) -> list[tuple[str, bytes]]:
        names = [each for each in os.listxattr(fd) if _is_wanted(each)]
        found = ((each, _inside(each, os.getxattr(fd, each), self._owners)) for each in names)
        return [(name, value) for name, value in found if value]

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
        self._buffer += bytes(-size % _BLOCK)

    def _flush(self) -> None:
        write_all(self._output, self._buffer)
        self._buffer = bytearray()


class Unpacker:
    """Makes the files of an archive below a directory: what is there stays as it is.

    A file that is there gets the new content, and keeps owner and permissions.
    """

    def __init__(self, files: GuestFiles, read: Callable[[int], bytes]) -> None:
        self._files = files
        self._stream = Stream(read)
        self._parent = ""

    def run(self, path: str) -> None:
        """Unpack at `path`, which is a directory. Raises LxpyError, BadArchive, OSError."""
        os.close(self._files.open_directory(path))
        top = path.rstrip("/")
        reader = Reader(self._stream)
        while (member := reader.next()) is not None:
            place = _checked(member.name, member.name)
            if place:
                self._make_parent(f"{top}/{place}".rpartition("/")[0], top)
                self._member(reader, member, top, f"{top}/{place}")

    def _make_parent(self, parent: str, top: str) -> None:
        """Make a directory that an archive has left out."""
        if parent in (top, self._parent):
            return
        try:
            os.close(self._files.open_directory(parent))
        except NotFound:
            self._make_parent(parent.rpartition("/")[0], top)
            self._files.make_directory(parent, Wish(mode=0o755))
        self._parent = parent

    def _member(self, reader: Reader, member: tarfile.TarInfo, top: str, path: str) -> None:
        if member.isdir():
            self._files.make_directory(path, self._wish(member))
        elif member.issym():
            self._files.make_link(path, member.linkname, self._wish(member))
        elif member.islnk():
            target = _checked(member.linkname, member.name)
            self._files.make_name(path, f"{top}/{target}")
        elif member.isreg():
            self._regular(reader, member, path)
        else:
            raise BadArchive(f'"{printable(member.name)}" is neither a file nor a directory')

    def _regular(self, reader: Reader, member: tarfile.TarInfo, path: str) -> None:
        upload = Upload(self._files, path, self._wish(member))
        try:
            for offset, size in self._pieces(member, reader.stored(member)):
                upload.seek(offset)
                self._stream.copy(size, upload.write)
            upload.commit(member.size)
        finally:
            upload.close()

    def _pieces(self, member: tarfile.TarInfo, stored: int) -> list[tuple[int, int]]:
        """Return where the pieces of a file go: of a sparse one they are in order, and stored."""
        if member.sparse is None:
            return [(0, member.size)]
        # typeshed says bytes; tarfile makes it a list of pairs
        pieces = cast("list[tuple[int, int]]", member.sparse)
        pieces = [each for each in pieces if each[1] != 0]
        end = total = 0
        for offset, size in pieces:
            if offset < end or size < 0:
                raise BadArchive(f'"{printable(member.name)}" has a damaged map of its holes')
            end, total = offset + size, total + size
        if end > member.size or total > stored:
            raise BadArchive(f'"{printable(member.name)}" has a damaged map of its holes')
        return pieces

    def _wish(self, member: tarfile.TarInfo) -> Wish:
        found = attributes.from_pax(member.pax_headers) if member.pax_headers else {}
        kept = {
            name: _outside(name, value, self._files.owners)
            for name, value in found.items()
            if _is_wanted(name)
        }
        mode = stat.S_IMODE(member.mode)
        return Wish(member.uid, member.gid, mode, int(member.mtime) * 10**9, kept)


def _checked(name: str, member: str) -> str:
    """Return a member's path below the directory. Raises BadArchive for one that leaves it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise BadArchive(f'"{printable(member)}" leads out of the directory')
    return "/".join(parts)


def _is_wanted(name: str) -> bool:
    return name.startswith("user.") or name == _CAPABILITY


def _inside(name: str, value: bytes, owners: Owners) -> bytes:
    """Return an attribute as the guest has it: capabilities without their namespace's root.

    Those of another namespace's root are none for the guest: b"".
    """
    if name != _CAPABILITY or len(value) != _CAPABILITY_3_BYTES:
        return value
    magic, root = struct.unpack_from("<I", value)[0], struct.unpack_from("<I", value, 20)[0]
    if magic & _REVISION != _REVISION_3 or root != owners.root[0]:
        return b""
    return struct.pack("<I", _REVISION_2 | magic & ~_REVISION) + value[4:_CAPABILITY_2_BYTES]


def _outside(name: str, value: bytes, owners: Owners) -> bytes:
    """Return an attribute as it is set for the guest. Raises BadArchive for broken capabilities."""
    if name != _CAPABILITY:
        return value
    magic = struct.unpack_from("<I", value)[0] if len(value) == _CAPABILITY_2_BYTES else 0
    if magic & _REVISION != _REVISION_2:
        raise BadArchive("a file's capabilities are not of revision 2")
    if not owners.uids or owners.root[0] == 0:
        return value
    head = struct.pack("<I", _REVISION_3 | magic & ~_REVISION)
    return head + value[4:] + struct.pack("<I", owners.root[0])


def perform(job: Job) -> None:
    """Do the job. Raises LxpyError."""
    try:
        if job.verb == "pack":
            Packer(job.files(), sys.stdout.fileno()).run(job.path)
        else:
            Unpacker(job.files(), lambda size: os.read(sys.stdin.fileno(), size)).run(job.path)
    except (BadArchive, ValueError, OverflowError) as error:
        raise BadRequest(f"Invalid archive: {error}") from error
    except BrokenPipeError:
        raise Failed("Nobody reads the archive any more") from None
    except OSError as error:
        raise explain(error, job.path) from error


def main() -> None:
    """Run the job given as the only argument."""
    prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0)
    try:
        perform(Job(**json.loads(sys.argv[1])))
    except LxpyError as error:
        print(json.dumps({"error": str(error), "class": type(error).__name__}), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
