"""`lxpy image import` and `lxpy image export`: files to and from the image store."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lxpy.cli.declare import argument, command, flag, names, option
from lxpy.cli.image_alias import set_aliases
from lxpy.cli.image_source import fingerprint
from lxpy.cli.progress import Meter
from lxpy.cli.session import Session
from lxpy.cli.target import pairs
from lxpy.client.client import Client, Json, succeeded
from lxpy.client.transport import BLOCK_BYTES, Upload, query, quote
from lxpy.errors import BadRequest, LxpyError, Refused

_URL = re.compile(r"https?://")


@command(None, "import", short_help="Import image into the image store")
@argument("source", "<tarball>|<directory>|<URL>", required=True)
@argument("words", "[<rootfs tarball>] [<remote>:] [key=value...]", nargs=-1)
@option("--alias", "aliases", multiple=True, metavar="NAME", help="New aliases to add to the image")
@flag("--public", help="Make image public")
def import_image(
    session: Session, source: str, words: tuple[str, ...], aliases: tuple[str, ...], public: bool
) -> None:
    """Import image into the image store: one file, or two if metadata and rootfs are apart.

    Directory import must be performed as root.
    """
    rootfs, remote, properties = _sort(words)
    client, _ = session.server(remote)
    if _URL.match(source):
        if rootfs:
            raise BadRequest("Can't combine a URL with a rootfs tarball")
        wanted = {"type": "url", "mode": "pull", "url": source}
        body = {"source": wanted, "public": public, "properties": properties}
        done = client.change("POST", "/1.0/images", body)
    else:
        done = _upload(client, Path(source), Path(rootfs) if rootfs else None, public, properties)
    mark = str((done.get("metadata") or {})["fingerprint"])
    set_aliases(client, mark, aliases)
    session.say(f"Image imported with fingerprint: {mark}")


def _sort(words: tuple[str, ...]) -> tuple[str, str, dict[str, str]]:
    """Return rootfs, remote and properties among the words. Raises BadRequest."""
    rootfs = remote = ""
    properties = []
    for word in words:
        if word.endswith(":") and not os.path.exists(word):
            remote = word
        elif "=" in word and not os.path.exists(word):
            properties.append(word)
        elif rootfs:
            raise BadRequest(f"Too many files: {word}")
        else:
            rootfs = word
    return rootfs, remote, pairs(properties)


def _upload(
    client: Client, source: Path, rootfs: Path | None, public: bool, properties: dict[str, str]
) -> Json:
    """Send the files of an image; return the finished operation. Raises OSError, Refused."""
    if rootfs is not None and rootfs.is_dir():
        raise BadRequest(f"{rootfs} is a directory: the rootfs must be a tarball or squashfs")
    if source.is_dir() and rootfs is not None:
        raise BadRequest("Can't combine a directory with a rootfs tarball")
    headers = {"X-LXD-filename": source.name.encode("ascii", "replace").decode()}
    if public:
        headers["X-LXD-public"] = "true"
    if properties:
        headers["X-LXD-properties"] = query(properties).removeprefix("?")
    meter = Meter(client, "Transferring image")
    if source.is_dir():
        headers["Content-Type"] = "application/octet-stream"
        body = Upload(-1, meter.watch(_packed(source), -1))
    elif rootfs is None:
        headers["Content-Type"] = "application/octet-stream"
        body = Upload(source.stat().st_size, meter.watch(blocks(source), source.stat().st_size))
    else:
        body, headers["Content-Type"] = _multipart(source, rootfs, meter)
    return send(client, body, headers, meter)


def send(client: Client, body: Upload, headers: dict[str, str], meter: Meter) -> Json:
    """Upload an image; return the finished operation. Raises Refused."""
    events = client.events("operation") if client.watcher is not None else None
    try:
        operation = client.ask("POST", "/1.0/images", body, headers).operation
        if operation is None:
            raise Refused("The server took the image without an operation")
        return succeeded(client.wait(operation, events))
    finally:
        meter.end()
        if events is not None:
            events.close()


def _packed(directory: Path) -> Iterator[bytes]:
    """Yield a directory with metadata.yaml and rootfs/ as a tarball. Raises LxpyError."""
    if os.geteuid() != 0:
        raise BadRequest("Must run as root to import from directory")
    words = ["tar", "-C", str(directory), "--numeric-owner", "--xattrs", "--acls", "-cz"]
    names = [
        name for name in ("metadata.yaml", "rootfs", "templates") if (directory / name).exists()
    ]
    if "metadata.yaml" not in names or "rootfs" not in names:
        raise BadRequest(f"{directory} has no metadata.yaml and rootfs: it is no image")
    with subprocess.Popen([*words, "--", *names], stdout=subprocess.PIPE) as tar:
        assert tar.stdout is not None
        while block := tar.stdout.read(BLOCK_BYTES):
            yield block
    if tar.returncode:
        raise LxpyError(f"tar could not pack {directory} (exit {tar.returncode})")


def _multipart(metadata: Path, rootfs: Path, meter: Meter) -> tuple[Upload, str]:
    """Return both files as one body, and its content type."""
    boundary = f"lxpy-{os.urandom(16).hex()}"
    heads = [
        (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="{name}"; filename="{file.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        for name, file in (("metadata", metadata), ("rootfs", rootfs))
    ]
    tail = f"\r\n--{boundary}--\r\n".encode()
    size = metadata.stat().st_size + rootfs.stat().st_size

    def pieces() -> Iterator[bytes]:
        yield heads[0]
        yield from blocks(metadata)
        yield b"\r\n" + heads[1]
        yield from blocks(rootfs)
        yield tail

    length = sum(map(len, heads)) + len(b"\r\n") + len(tail) + size
    return Upload(
        length, meter.watch(pieces(), length)
    ), f"multipart/form-data; boundary={boundary}"


def blocks(file: Path) -> Iterator[bytes]:
    """Yield a file's content."""
    with file.open("rb") as opened:
        while block := opened.read(BLOCK_BYTES):
            yield block


@command(None, "export", short_help="Export and download images")
@argument("name", "[<remote>:]<image>", shell_complete=names("images/aliases"))
@argument("target", "[<target>]")
@flag("--vm", hidden=True, help="Query virtual machine images")
def export(session: Session, name: str, target: str | None, vm: bool) -> None:
    """Export and download images.

    The output target is optional and defaults to the working directory. A file's extension is
    added to the name; an image whose metadata and rootfs are apart gives two files.
    """
    client, word = session.server(name)
    mark = fingerprint(client, word)
    place = Path(target or ".")
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
    session.say("Image exported successfully!")


def extension(filename: str) -> str:
    """Return ".tar.xz" of "debian-13.1.tar.xz", ".squashfs" of "x.squashfs"."""
    found = re.search(r"(\.tar(\.[A-Za-z0-9]+)?|\.t[a-z]z2?|\.squashfs|\.img|\.qcow2)$", filename)
    return found[0] if found else ""


def _parameter(header: str, name: str) -> str:
    found = re.search(rf'{name}="?([^";]*)"?', header)
    return found[1] if found else ""


def save(pieces: Iterator[bytes], path: Path) -> None:
    """Write a file that is there only when it is complete."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            for piece in pieces:
                file.write(piece)
        part.rename(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


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
