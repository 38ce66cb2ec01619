"""Backups between files, or standard input and output, and a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lxpy.cli.image_transfer import blocks, save
from lxpy.cli.progress import Meter
from lxpy.client.client import Client, Json, succeeded
from lxpy.client.transport import BLOCK_BYTES, Response, Upload, quote
from lxpy.errors import BadRequest, Refused

STDIO = "-"
#: what archives begin with, and the ends of their names
_SUFFIXES = {
    b"\x28\xb5\x2f\xfd": ".zst", b"\x1f\x8b": ".gz", b"\xfd7zXZ\0": ".xz", b"BZh": ".bz2",
    b"\x5d\0\0": ".lzma",
}  # fmt: skip


def check_target(target: str | None) -> None:
    """Raise BadRequest when an archive would be written to a terminal."""
    if target == STDIO and sys.stdout.isatty():
        raise BadRequest("An archive is nothing for a terminal: name a file, or send it on")


def fetch(client: Client, response: Response, name: str, target: str | None) -> None:
    """Write what comes to a file, by default NAME.tar.zst or the like, or to standard output.

    Raises Refused when it breaks off.
    """
    meter = Meter(client, "Exporting the backup")
    pieces = meter.watch(_explained(response.pieces()), response.length)
    try:
        if target == STDIO:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        first = next(pieces, b"")
        place = Path(target or ".")
        if place.is_dir():
            place /= f"{name}{suffix(first)}"
        save(_with(first, pieces), place)
    finally:
        meter.end()


def keep_and_fetch(client: Client, path: str, body: Json, name: str, target: str | None) -> None:
    """Have the server make a backup below `path`, fetch it, and have it deleted: LXD's way."""
    ends = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    done = client.change("POST", f"{path}/backups", {**body, "name": "", "expires_at": ends})
    backup = str(done["resources"]["backups"][0]).partition("?")[0].rpartition("/")[2]
    place = f"{path}/backups/{quote(backup)}"
    try:
        fetch(client, client.download(f"{place}/export"), name, target)
    finally:
        client.change("DELETE", place)


def content(file: str) -> tuple[int, Iterator[bytes]]:
    """Return how long a file is, -1 for standard input, and its content. Raises OSError."""
    if file == STDIO:
        return -1, _stdin()
    return Path(file).stat().st_size, blocks(Path(file))


def send(
    client: Client,
    path: str,
    source: tuple[int, Iterator[bytes]],
    headers: dict[str, str],
    what: str,
) -> Json:
    """Send a backup, and return the operation that took it. Raises Refused."""
    length, pieces = source
    fields = {"Content-Type": "application/octet-stream", **headers}
    meter = Meter(client, what)
    events = client.events("operation") if client.watcher is not None else None
    try:
        body = Upload(length, meter.watch(pieces, length))
        operation = client.ask("POST", path, body, fields).operation
        if operation is None:
            raise Refused("The server took the backup without an operation")
        return succeeded(client.wait(operation, events))
    finally:
        meter.end()
        if events is not None:
            events.close()


def suffix(head: bytes) -> str:
    """Return ".tar.zst" for what begins like an archive of zstd, and so on."""
    found = (end for magic, end in _SUFFIXES.items() if head.startswith(magic))
    return f".tar{next(found, '')}"


def _stdin() -> Iterator[bytes]:
    while block := os.read(sys.stdin.fileno(), BLOCK_BYTES):
        yield block


def _with(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _explained(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except Refused as error:
        raise Refused(
            f"The export broke off: {error}; the log of lxpyd says why, nothing is left of it"
        ) from error
