"""How `lxpy file push` and `pull` transfer: one request for a tree where the server can."""

from __future__ import annotations

import os
import posixpath
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress

from lxpy.cli.file_place import TAR, Found, Owner, Place
from lxpy.cli.progress import Meter
from lxpy.client.client import Answer
from lxpy.client.transport import BLOCK_BYTES, Upload
from lxpy.errors import BadRequest, Refused

#: what a server says that takes and gives trees
_TREES = "lxpy_file_tree"
_DIRECTORY_MODE = 0o755


# Pulling


def pull(places: list[Place], target: str, *, recursive: bool = False, mkdir: bool = False) -> None:
    """Write files of instances to a local file or directory, "-" for stdout. Raises BadRequest."""
    into = _is_directory(target, several=len(places) > 1, mkdir=mkdir)
    for place in places:
        found = place.get(TAR if recursive else "")
        if found.type == "directory":
            if not recursive:
                raise BadRequest("Can't pull a directory without --recursive")
            os.makedirs(target, _DIRECTORY_MODE, exist_ok=True)
            into = True
            _pull_tree(found, os.path.join(target, place.name))
        elif target == "-":
            _to_stdout(place.followed() if found.type == "symlink" else found)
        else:
            path = os.path.join(target, place.name) if into else target
            _pull_one(found, path, f"Pulling {path} from {place.path}")


def _is_directory(target: str, *, several: bool, mkdir: bool) -> bool:
    """Tell whether files go into a directory of their own names; it is made if need be."""
    if target == "-":
        return False
    if os.path.exists(target):
        if several and not os.path.isdir(target):
            raise BadRequest("More than one file to download, but target is not a directory")
        return os.path.isdir(target)
    if target.endswith("/") or several:
        os.makedirs(target, _DIRECTORY_MODE, exist_ok=True)
        return True
    if mkdir:
        os.makedirs(os.path.dirname(os.path.abspath(target)), _DIRECTORY_MODE, exist_ok=True)
    return False


def _to_stdout(found: Found) -> None:
    for piece in found.pieces(f"Pulling {found.place.path}"):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _pull_one(found: Found, path: str, what: str) -> None:
    if found.type == "symlink":
        target = found.text()
        if os.path.islink(path) or os.path.isfile(path):
            os.unlink(path)
        os.symlink(target, path)
    else:
        save(found.pieces(what), path, found.mode)


def save(pieces: Iterator[bytes], path: str, mode: int) -> None:
    """Write a file that is there only when it is whole; what is no plain file is written to."""
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        with open(path, "wb") as file:
            file.writelines(pieces)
        return
    part = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.part")
    try:
        with open(part, "wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
            os.fchmod(file.fileno(), mode)
        os.rename(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def _pull_tree(found: Found, path: str) -> None:
    if found.is_tree:
        from lxpy.cli import file_tree  # tarfile takes 20 ms

        file_tree.unpack(found.pieces(f"Pulling {found.place.path}"), path)
        return
    _pull_each(found, path)


def _pull_each(found: Found, path: str) -> None:
    """Pull a tree from a server that has no archives of it: a request for each file."""
    if found.type != "directory":
        _pull_one(found, path, f"Pulling {found.place.path}")
        return
    os.makedirs(path, _DIRECTORY_MODE, exist_ok=True)
    os.chmod(path, found.mode | stat.S_IRWXU)
    for name in _names(found):
        place = found.place.at(posixpath.join(found.place.path, name))
        _pull_each(place.get(), os.path.join(path, name))


def _names(found: Found) -> list[str]:
    names = [str(each) for each in Answer(found.response, found.response.read()).metadata or []]
    if any("/" in each or each in ("", ".", "..") for each in names):
        raise Refused("The server sent an impossible file name")
    return names


# Pushing


def check(source: str) -> None:
    """Raise OSError unless a local file can be read, BadRequest for a directory."""
    if source == "-":
        return
    if os.path.isdir(source):
        raise BadRequest(f"{source} is a directory: push it with --recursive")
    with open(source, "rb"):
        pass


def push(source: str, place: Place, owner: Owner) -> None:
    """Send a local file, "-" for stdin."""
    file = sys.stdin.buffer if source == "-" else open(source, "rb", buffering=0)  # noqa: SIM115
    try:
        status = os.fstat(file.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) and source != "-" else -1
        meter = Meter(place.client, f"Pushing {source} to {place.path}")
        pieces = iter(lambda: file.read(BLOCK_BYTES), b"")
        try:
            place.put("file", owner, Upload(size, meter.watch(pieces, size)))
        finally:
            meter.end()
    finally:
        if source != "-":
            file.close()


def push_trees(sources: tuple[str, ...], place: Place) -> None:
    """Send files and directories, with all below them, into a directory."""
    from lxpy.cli import file_tree

    for source in sources:
        os.lstat(source)
    if _TREES in place.client.get("/1.0").get("api_extensions", []):
        meter = Meter(place.client, f"Pushing to {place.path}")
        try:
            place.unpack(meter.watch(file_tree.Packer().pack(sources), -1))
        finally:
            meter.end()
        return
    for source in sources:
        for path, name in file_tree.walk(source):
            _push_each(path, place.at(posixpath.join(place.path, name)))


def _push_each(path: str, place: Place) -> None:
    status = os.lstat(path)
    owner = owner_of(status)
    if stat.S_ISDIR(status.st_mode):
        place.put("directory", owner)
    elif stat.S_ISLNK(status.st_mode):
        place.put("symlink", owner, os.fsencode(os.readlink(path)))
    elif stat.S_ISREG(status.st_mode):
        push(path, place, owner)
    else:
        raise BadRequest(f"'{path}' isn't a supported file type")


def owner_of(status: os.stat_result) -> Owner:
    """Return a local file's owner and permissions."""
    return Owner(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode) & 0o777)
