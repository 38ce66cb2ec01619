"""`lxpy import`: an instance from an archive, unpacked while it is sent."""

from __future__ import annotations

import os
from collections.abc import Iterator

from lxpy.cli import archives
from lxpy.cli.declare import argument, command, option
from lxpy.cli.session import Session
from lxpy.errors import BadRequest


@command(None, "import", short_help="Import instance backups")
@argument("words", "[<remote>:] <backup file> [<instance name>]", nargs=-1, required=True)
@option("-s", "--storage", default="", metavar="POOL", help="Storage pool name")
@option("--endpoint", default="", metavar="URL", help="Server of the bucket, of s3://BUCKET/KEY")
def import_backup(session: Session, words: tuple[str, ...], storage: str, endpoint: str) -> None:
    """Import a backup of an instance including its snapshots.

    "-" is standard input. s3://BUCKET/KEY is fetched with the keys in AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY. An export that was made --since a snapshot changes the instance that
    has this snapshot.

    \b
    lxpy import backup0.tar.zst
    lxpy import - c2 <backup0.tar.zst
    """
    remote, file, name = _sort(words)
    client, _ = session.server(remote)
    headers = {
        key: value for key, value in (("X-LXD-name", name), ("X-LXD-pool", storage)) if value
    }
    source = _source(file, endpoint)
    archives.send(client, "/1.0/instances", source, headers, "Importing instance")


def _sort(words: tuple[str, ...]) -> tuple[str, str, str]:
    """Return remote, file and name among the words. Raises BadRequest."""
    rest = list(words)
    remote = ""
    if rest[0].endswith(":") and not os.path.exists(rest[0]):
        remote = rest.pop(0)
    if not 1 <= len(rest) <= 2:
        raise BadRequest("Write [<remote>:] <backup file> [<instance name>]")
    return remote, rest[0], rest[1] if len(rest) > 1 else ""


def _source(file: str, endpoint: str) -> tuple[int, Iterator[bytes]]:
    """Return how long a backup is, -1 if nobody knows, and its content. Raises OSError."""
    if file.startswith("s3://"):
        from lxpy.bucket import fetch  # boto3 is seldom there, and takes half a second

        return fetch(file, endpoint)
    return archives.content(file)
