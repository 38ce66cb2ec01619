"""Local directories as tar archives: packed for a server, and unpacked from one."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

from lxpy.client.transport import BLOCK_BYTES
from lxpy.errors import BadRequest, Refused

_PAX = "SCHILY.xattr."
_TAR_BLOCK = 512
_PAD = b"\0" * _TAR_BLOCK


class Packer:
    """Packs what lies at a local path, owners and permissions with it."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], str] = {}

    def pack(self, sources: tuple[str, ...]) -> Iterator[bytes]:
        """Yield an archive whose members begin with each source's own name.

        Raises BadRequest for what is neither file nor directory nor link, OSError.
        """
        buffer = bytearray()
        for source in sources:
            for path, name in walk(source):
                for piece in self._member(path, name):
                    buffer += piece
                    if len(buffer) >= BLOCK_BYTES:
                        yield bytes(buffer)
                        buffer.clear()
        yield bytes(buffer) + 2 * _PAD

    def _member(self, path: str, name: str) -> Iterator[bytes]:
        status = os.lstat(path)
        info = tarfile.TarInfo(name)
        info.uid, info.gid = status.st_uid, status.st_gid
        info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
        if stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(status.st_mode):
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif not stat.S_ISREG(status.st_mode):
            raise unsupported(path)
        elif first := self._first_name(status, name):
            info.type, info.linkname = tarfile.LNKTYPE, first
        else:
            info.size = status.st_size
        if not stat.S_ISLNK(status.st_mode):
            info.pax_headers = _attributes(path)
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if info.isreg():
            yield from _content(path, info.size)

    def _first_name(self, status: os.stat_result, name: str) -> str:
        """Return the member that has the same file, "" for the first one."""
        if status.st_nlink == 1:
            return ""
        key = (status.st_dev, status.st_ino)
        first = self._links.setdefault(key, name)
        return "" if first == name else first


def walk(source: str) -> Iterator[tuple[str, str]]:
    """Yield the paths of a file or of a directory and all below it, parents first.

    The second of each pair is the path as seen from where `source` lies. Links are not followed.
    """
    source = os.path.normpath(source)
    waiting = [(source, os.path.basename(os.path.abspath(source)))]
    while waiting:
        path, name = waiting.pop()
        yield path, name
        if os.path.isdir(path) and not os.path.islink(path):
            below = sorted(os.listdir(path), reverse=True)
            waiting += [(os.path.join(path, each), f"{name}/{each}") for each in below]


def unsupported(path: str) -> BadRequest:
    """Return the error for a file that cannot be sent."""
    return BadRequest(f"'{path}' isn't a supported file type")


def _attributes(path: str) -> dict[str, str]:
    found = {}
    with suppress(OSError):
        for name in os.listxattr(path):
            if name.startswith("user.") or name == "security.capability":
                found[_PAX + name] = os.getxattr(path, name).decode("utf-8", "surrogateescape")
    return found


def _content(path: str, size: int) -> Iterator[bytes]:
    """Yield exactly `size` bytes of a file, padded to a whole block. Raises BadRequest."""
    left = size
    with open(path, "rb", buffering=0) as file:
        while left:
            data = file.read(min(left, BLOCK_BYTES))
            if not data:
                raise BadRequest(f"'{path}' became shorter while it was read")
            left -= len(data)
            yield data
    yield _PAD[: -size % _TAR_BLOCK]


def unpack(pieces: Iterator[bytes], target: str) -> None:
    """Write an archive's members below a directory, which is made if it is missing.

    Owner is the user. Nothing is written through a link. Raises Refused for a member that does
    not belong there, OSError.
    """
    os.makedirs(target, 0o755, exist_ok=True)
    made = {""}
    with tarfile.open(
        fileobj=cast("tarfile._Fileobj", _Reader(pieces)), mode="r|", bufsize=BLOCK_BYTES,
        encoding="utf-8", errors="surrogateescape",
    ) as archive:  # fmt: skip
        try:
            while (member := archive.next()) is not None:
                _unpack_member(archive, member, target, made)
                archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
        except tarfile.TarError as error:
            raise Refused(f"The server sent a damaged archive: {error}") from error


def _unpack_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, target: str, made: set[str]
) -> None:
    name = _relative(member.name)
    if name.rpartition("/")[0] not in made:
        raise Refused(f"The server sent a file outside of its directory: {member.name}")
    path = os.path.join(target, name) if name else target
    mode = member.mode & 0o777
    if member.isdir():
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
        if not stat.S_ISDIR(os.lstat(path).st_mode) and name:
            raise Refused(f"{path} exists and is no directory")
        # Its own permissions may forbid what is still to be written; the owner's are not enough.
        os.chmod(path, mode | stat.S_IRWXU)
        made.add(name)
        return
    if os.path.lexists(path):
        os.unlink(path)
    if member.issym():
        os.symlink(member.linkname, path)
    elif member.islnk():
        os.link(os.path.join(target, _relative(member.linkname)), path, follow_symlinks=False)
    elif member.isreg():
        _write(archive, member, path, mode)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str, mode: int) -> None:
    content = archive.extractfile(member)
    assert content is not None, "a regular member has content"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:
        while data := content.read(BLOCK_BYTES):
            file.write(data)
        os.fchmod(file.fileno(), mode)
    os.utime(path, (member.mtime, member.mtime))


def _relative(name: str) -> str:
    """Return a member's name without "./". Raises Refused for one that leads elsewhere."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise Refused(f"The server sent a file outside of its directory: {name}")
    return "/".join(parts)


class _Reader:
    """The pieces of an answer as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and (piece := next(self._pieces, b"")):
            self._buffer += piece
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data
