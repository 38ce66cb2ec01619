"""`lxpy export`: an instance as an archive, written while it is read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lxpy.cli.declare import argument, command, flag, names, option
from lxpy.cli.image_transfer import save
from lxpy.cli.progress import Meter
from lxpy.cli.session import Session
from lxpy.client.client import Client, Json
from lxpy.client.transport import Response, query, quote
from lxpy.errors import BadRequest, NotSupported, Refused

_STREAM = "lxpy_export_stream"
#: what archives begin with, and the ends of their names
_SUFFIXES = {
    b"\x28\xb5\x2f\xfd": ".zst", b"\x1f\x8b": ".gz", b"\xfd7zXZ\0": ".xz", b"BZh": ".bz2",
    b"\x5d\0\0": ".lzma",
}  # fmt: skip


@command(None, "export", short_help="Export instances as backup tarballs")
@argument("source", "[<remote>:]<instance>", required=True, shell_complete=names("instances"))
@argument("target", "[<target>]")
@option("--compression", default="", metavar="ALGORITHM",
        help="Compression algorithm to use (none for uncompressed)")  # fmt: skip
@flag("--instance-only", help="Whether or not to only backup the instance (without snapshots)")
@flag("--optimized-storage", hidden=True, help="Use storage driver optimized format")
@option("--since", default="", metavar="SNAPSHOT", help="Only what has changed since a snapshot")
@option("--endpoint", default="", metavar="URL", help="Server of the bucket, of s3://BUCKET/KEY")
def export(
    session: Session,
    source: str,
    target: str | None,
    compression: str,
    instance_only: bool,
    optimized_storage: bool,
    since: str,
    endpoint: str,
) -> None:
    """Export an instance as a backup tarball.

    The target is a file, by default named after the instance, or "-" for standard output.
    s3://BUCKET/KEY is sent there by the server, with the keys in AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY. An export --since a snapshot is put on top of it by lxpy import.

    \b
    lxpy export c1 - | ssh elsewhere lxpy import -
    lxpy export c1 c1.tar.zst --instance-only
    lxpy export c1 s3://backups/c1.tar.zst --endpoint https://s3.example.org
    """
    client, name = session.server(source)
    if target == "-" and sys.stdout.isatty():
        raise BadRequest("An archive is nothing for a terminal: name a file, or send it on")
    wish = {"compression": compression, "instance-only": "1" if instance_only else "",
            "since": since}  # fmt: skip
    if target is not None and target.startswith("s3://"):
        _to_bucket(client, name, wish, target, endpoint)
        session.say(f"Backup exported to {target}")
        return
    if optimized_storage or not _streams(client):
        if since:
            raise NotSupported("This server has no incremental exports: it is not an lxpyd")
        _kept(client, name, wish, target, optimized=optimized_storage)
    else:
        path = f"/1.0/instances/{quote(name)}/export{query(wish)}"
        _fetch(client, client.download(path), name, target)
    if target != "-":
        session.say("Backup exported successfully!")


def _streams(client: Client) -> bool:
    return _STREAM in (client.get("/1.0").get("api_extensions") or ())


def _request(wish: Json, *, optimized: bool = False) -> Json:
    return {
        "name": "",
        "instance_only": bool(wish["instance-only"]),
        "container_only": bool(wish["instance-only"]),
        "compression_algorithm": wish["compression"],
        "optimized_storage": optimized,
    }


def _kept(client: Client, name: str, wish: Json, target: str | None, *, optimized: bool) -> None:
    """Have the server make a backup, fetch it, and have it deleted: LXD's way."""
    ends = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = {**_request(wish, optimized=optimized), "expires_at": ends}
    path = f"/1.0/instances/{quote(name)}/backups"
    done = client.change("POST", path, body)
    backup = str(done["resources"]["backups"][0]).partition("?")[0].rpartition("/")[2]
    try:
        _fetch(client, client.download(f"{path}/{quote(backup)}/export"), name, target)
    finally:
        client.change("DELETE", f"{path}/{quote(backup)}")


def _fetch(client: Client, response: Response, name: str, target: str | None) -> None:
    """Write what comes to a file, or to standard output."""
    meter = Meter(client, "Exporting the backup")
    pieces = meter.watch(_explained(response.pieces()), response.length)
    try:
        if target == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        first = next(pieces, b"")
        place = Path(target) if target else Path(f"{name}{suffix(first)}")
        if place.is_dir():
            place /= f"{name}{suffix(first)}"
        save(_with(first, pieces), place)
    finally:
        meter.end()


def suffix(head: bytes) -> str:
    """Return ".tar.zst" for what begins like an archive of zstd, and so on."""
    found = (end for magic, end in _SUFFIXES.items() if head.startswith(magic))
    return f".tar{next(found, '')}"


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


def _to_bucket(client: Client, name: str, wish: Json, target: str, endpoint: str) -> None:
    """Have the server send a backup to a bucket. Raises BadRequest without keys."""
    from lxpy.bucket import parse

    place = parse(target, endpoint)
    wanted = {"protocol": "s3", "url": endpoint, "bucket_name": place.bucket, "path": place.key,
              "access_key": place.access_key, "secret_key": place.secret_key}  # fmt: skip
    body = {**_request(wish), "since": wish["since"], "target": wanted}
    client.change("POST", f"/1.0/instances/{quote(name)}/backups", body)
