"""The program that unpacks a tar archive, from standard input, into a directory of a guest."""

from __future__ import annotations

import os
import stat
import sys
import tarfile
from collections.abc import Callable
from typing import cast

from lxpy.errors import BadRequest, NotFound
from lxpy.images import attributes
from lxpy.images.tarstream import BadArchive, Reader, Stream, printable
from lxpy.kernel.credentials import acting_as
from lxpy.runtime.guestfiles import GuestFiles, Wish
from lxpy.runtime.upload import Upload
from lxpy.services.files.treejob import carry_out, is_wanted, outside


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
        with acting_as(*self._files.owners.root):
            self._run(path)

    def _run(self, path: str) -> None:
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
            name: outside(name, value, self._files.owners)
            for name, value in found.items()
            if is_wanted(name)
        }
        mode = stat.S_IMODE(member.mode)
        return Wish(member.uid, member.gid, mode, int(member.mtime) * 10**9, kept)


def _checked(name: str, member: str) -> str:
    """Return a member's path below the directory. Raises BadArchive for one that leaves it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise BadArchive(f'"{printable(member)}" leads out of the directory')
    return "/".join(parts)


def _unpack(files: GuestFiles, path: str) -> None:
    try:
        Unpacker(files, lambda size: os.read(sys.stdin.fileno(), size)).run(path)
    except BadArchive as error:
        raise BadRequest(f"Invalid archive: {error}") from error


def main() -> None:
    """Run the job given as the only argument."""
    carry_out(_unpack)


if __name__ == "__main__":
    main()
