"""`lxpy image import`: files into the image store."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lxpy.cli.declare import argument, command, flag, option
from lxpy.cli.image_alias import set_aliases
from lxpy.cli.progress import Meter
from lxpy.cli.session import Session
from lxpy.cli.target import pairs
from lxpy.client.client import Client, Json, succeeded
from lxpy.client.transport import BLOCK_BYTES, Upload, query
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
