"""`lxpy export`: an instance as an archive, written while it is read."""

from __future__ import annotations

from lxpy.cli import archives
from lxpy.cli.declare import argument, command, flag, names, option
from lxpy.cli.session import Session
from lxpy.client.client import Client, Json
from lxpy.client.transport import query, quote
from lxpy.errors import NotSupported

_STREAM = "lxpy_export_stream"


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
    archives.check_target(target)
    wish = {"compression": compression, "instance-only": "1" if instance_only else "",
            "since": since}  # fmt: skip
    if target is not None and target.startswith("s3://"):
        _to_bucket(client, name, wish, target, endpoint)
        session.say(f"Backup exported to {target}")
        return
    if optimized_storage or not _streams(client):
        if since:
            raise NotSupported("This server has no incremental exports: it is not an lxpyd")
        body = _request(wish, optimized=optimized_storage)
        archives.keep_and_fetch(client, f"/1.0/instances/{quote(name)}", body, name, target)
    else:
        path = f"/1.0/instances/{quote(name)}/export{query(wish)}"
        archives.fetch(client, client.download(path), name, target)
    if target != archives.STDIO:
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


def _to_bucket(client: Client, name: str, wish: Json, target: str, endpoint: str) -> None:
    """Have the server send a backup to a bucket. Raises BadRequest without keys."""
    from lxpy.bucket import parse

    place = parse(target, endpoint)
    wanted = {"protocol": "s3", "url": endpoint, "bucket_name": place.bucket, "path": place.key,
              "access_key": place.access_key, "secret_key": place.secret_key}  # fmt: skip
    body = {**_request(wish), "since": wish["since"], "target": wanted}
    client.change("POST", f"/1.0/instances/{quote(name)}/backups", body)
