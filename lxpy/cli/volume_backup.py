"""`lxpy storage volume export` and `import`."""

from __future__ import annotations

import click

from lxpy.cli import archives
from lxpy.cli.declare import argument, command, flag, option, target_option
from lxpy.cli.session import Session
from lxpy.cli.volume import path_of, pool_argument
from lxpy.client.transport import query, quote

_STREAM = "lxpy_volume_export"


@command(None, "export", short_help="Export custom storage volumes")
@pool_argument()
@argument("name", "<volume>")
@argument("file", "[<path>]")
@option("--compression", default="", metavar="ALGORITHM",
        help="Compression algorithm to use (none for uncompressed)")  # fmt: skip
@flag("--volume-only", help="Export the volume without its snapshots")
@flag("--optimized-storage", hidden=True, help="Use storage driver optimized format")
@target_option()
def export(
    session: Session,
    pool: str,
    name: str,
    file: str | None,
    compression: str,
    volume_only: bool,
    optimized_storage: bool,
) -> None:
    """Export a custom volume as a backup tarball.

    The target is a file, by default named after the volume, or "-" for standard output.
    """
    archives.check_target(file)
    client, pool = session.server(pool)
    path = path_of(pool, name)
    streams = _STREAM in (client.get("/1.0").get("api_extensions") or ())
    if streams and not optimized_storage:
        wish = {"compression": compression, "volume-only": "1" if volume_only else ""}
        archives.fetch(client, client.download(f"{path}/export{query(wish)}"), name, file)
    else:
        body = {
            "volume_only": volume_only,
            "optimized_storage": optimized_storage,
            "compression_algorithm": compression,
        }
        archives.keep_and_fetch(client, path, body, name, file)
    if file != archives.STDIO:
        session.say("Backup exported successfully!")


@command(None, "import", short_help="Import custom storage volumes")
@pool_argument()
@argument("file", "<backup file>")
@argument("name", "[<volume name>]")
@click.option(
    "--type",
    "kind",
    type=click.Choice(("backup", "iso")),
    help="What the file is; by default what its name says (.iso)",
)
@target_option()
def import_volume(
    session: Session, pool: str, file: str, name: str | None, kind: str | None
) -> None:
    """Import a backup of a custom volume including its snapshots, or an ISO image.

    \b
    lxpy storage volume import default data.tar.zst
    lxpy storage volume import default - data2 <data.tar.zst
    lxpy storage volume import default debian.iso debian --type=iso
    """
    client, pool = session.server(pool)
    kind = kind or ("iso" if file.endswith(".iso") else "backup")
    if kind == "iso" and not name:
        raise click.UsageError("Importing ISO images requires a volume name to be set")
    headers = {"X-LXD-name": name} if name else {}
    if kind == "iso":
        headers["X-LXD-type"] = "iso"
    path = f"/1.0/storage-pools/{quote(pool)}/volumes/custom"
    archives.send(client, path, archives.content(file), headers, "Importing custom volume")
