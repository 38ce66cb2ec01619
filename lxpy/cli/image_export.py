"""`lxpy image export`: images as files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lxpy.cli import image_source
from lxpy.cli.declare import argument, command, flag, names
from lxpy.cli.image_copy import Copy
from lxpy.cli.image_transfer import save
from lxpy.cli.progress import Meter
from lxpy.cli.session import Session
from lxpy.client.client import Client
from lxpy.client.remotes import Remote
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, Refused


@command(None, "export", short_help="Export and download images")
@argument("name", "[<remote>:]<image>", shell_complete=names("images/aliases"))
@argument("target", "[<target>]")
@flag("--vm", hidden=True, help="Query virtual machine images")
def export(session: Session, name: str, target: str | None, vm: bool) -> None:
    """Export and download images.

    The output target is optional and defaults to the working directory. A file's extension is
    added to the name; an image whose metadata and rootfs are apart gives two files.
    """
    remote, word = session.parse(name)
    if not word:
        raise BadRequest("Image identifier missing")
    place = Path(target or ".")
    if remote.protocol == "lxd":
        client = session.client(remote)
        _download(client, image_source.fingerprint(client, word), place)
    else:
        with _borrowed(session, remote, word) as (client, mark):
            _download(client, mark, place)
    session.say("Image exported successfully!")


@contextmanager
def _borrowed(session: Session, remote: Remote, word: str) -> Iterator[tuple[Client, str]]:
    """Let the default server fetch an image for the length of a block, unless it has it."""
    mark = str(image_source.find(session, remote, word)["fingerprint"])
    client, _ = session.server("")
    is_new = client.find(f"/1.0/images/{mark}") is None
    if is_new:
        place = session.parse("")[0]
        Copy(session, remote, word, place, client, public=False, auto_update=False).run(None)
    try:
        yield client, mark
    finally:
        if is_new:
            client.change("DELETE", f"/1.0/images/{mark}")


def _download(client: Client, mark: str, place: Path) -> None:
    """Save an image's file, or its two, below a directory or under a name."""
    response = client.download(f"/1.0/images/{quote(mark)}/export")
    meter = Meter(client, "Exporting the image")
    pieces = meter.watch(response.pieces(), response.length)
    kind = response.headers.get("content-type", "")
    if kind.startswith("multipart/"):
        _save_parts(pieces, kind, place, mark)
    else:
        filename = _parameter(response.headers.get("content-disposition", ""), "filename")
        path = place / mark if place.is_dir() else place
        save(pieces, path.with_name(path.name + extension(filename)))
    meter.end()


def extension(filename: str) -> str:
    """Return ".tar.xz" of "debian-13.1.tar.xz", ".squashfs" of "x.squashfs"."""
    found = re.search(r"(\.tar(\.[A-Za-z0-9]+)?|\.t[a-z]z2?|\.squashfs|\.img|\.qcow2)$", filename)
    return found[0] if found else ""


def _parameter(header: str, name: str) -> str:
    found = re.search(rf'{name}="?([^";]*)"?', header)
    return found[1] if found else ""


def _save_parts(pieces: Iterator[bytes], kind: str, place: Path, mark: str) -> None:
    """Write metadata and rootfs of a split image. Raises Refused when they are malformed."""
    boundary = f"--{_parameter(kind, 'boundary')}".encode()
    reader = _Parts(pieces, boundary)
    while (head := reader.head()) is not None:
        disposition = head.get("content-disposition", "")
        end = extension(_parameter(disposition, "filename"))
        first = re.search(r'\bname="?metadata"?', disposition) is not None
        if place.is_dir():
            path = place / f"{'meta-' if first else ''}{mark}{end}"
        else:
            path = place.with_name(f"{place.name}{'' if first else '.root'}")
        save(reader.body(), path)


class _Parts:
    """Reads a multipart body whose parts are larger than memory."""

    def __init__(self, pieces: Iterator[bytes], boundary: bytes) -> None:
        self._pieces = pieces
        self._mark = b"\r\n" + boundary
        self._buffer = bytearray(b"\r\n")

    def _fill(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise Refused("The server sent an image that ends too early")
        self._buffer += piece

    def head(self) -> dict[str, str] | None:
        """Return the next part's headers, or None after the last."""
        while len(self._buffer) < len(self._mark) + 2:
            self._fill()
        if not self._buffer.startswith(self._mark):
            raise Refused("The server sent an image in an unknown format")
        del self._buffer[: len(self._mark)]
        if self._buffer.startswith(b"--"):
            return None
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._fill()
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        fields = (line.partition(":") for line in lines if line)
        return {name.strip().lower(): value.strip() for name, _, value in fields}

    def body(self) -> Iterator[bytes]:
        """Yield the part's content."""
        while (end := self._buffer.find(self._mark)) < 0:
            keep = len(self._mark) - 1
            if len(self._buffer) > keep:
                yield bytes(self._buffer[:-keep])
                del self._buffer[:-keep]
            self._fill()
        yield bytes(self._buffer[:end])
        del self._buffer[:end]
