"""`lxpy storage volume copy`, `move`, `snapshot` and `restore`."""

from __future__ import annotations

from lxpy.cli.declare import argument, command, flag, names, option, target_option
from lxpy.cli.session import Session
from lxpy.cli.volume import path_of, pool_argument
from lxpy.client.client import Client, Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, NotSupported

_NEVER = "0001-01-01T00:00:00Z"
_VOLATILE = "volatile."


@command(None, "copy", short_help="Copy storage volumes")
@argument("source", "[<remote>:]<pool>/<volume>[/<snapshot>]", required=True,
          shell_complete=names("storage-pools"))  # fmt: skip
@argument("destination", "[<remote>:]<pool>/<volume>", shell_complete=names("storage-pools"))
@flag("--refresh", help="Refresh and update the existing storage volume copies")
@flag("--volume-only", help="Copy the volume without its snapshots")
@option("--mode", default="pull", hidden=True, help="Accepted for compatibility")
@option("--target-project", default="", metavar="NAME", help="Copy to a project")
@target_option()
@target_option("--destination-target")
def copy(
    session: Session,
    source: str,
    destination: str,
    refresh: bool,
    volume_only: bool,
    mode: str,
    target_project: str,
) -> None:
    """Copy a storage volume with its snapshots, or one snapshot, to a new volume in any pool.

    With --refresh a volume that exists becomes what the source is.
    """
    client, pool, name, to_pool, new = _places(session, source, destination)
    found = client.get(path_of(pool, name))
    body: Json = {
        "name": new,
        "type": "custom",
        "content_type": found["content_type"],
        "description": found["description"],
        "config": {
            key: value
            for key, value in (found["config"] or {}).items()
            if not key.startswith(_VOLATILE)
        },
        "source": {
            "type": "copy",
            "name": name,
            "pool": pool,
            "project": client.project,
            "volume_only": volume_only,
            "refresh": refresh,
        },
    }
    client.project = target_project or client.project
    client.change("POST", f"/1.0/storage-pools/{quote(to_pool)}/volumes/custom", body)
    session.say("Storage volume copied successfully!")


@command(None, "move", short_help="Move storage volumes between pools")
@argument("source", "[<remote>:]<pool>/<volume>", shell_complete=names("storage-pools"))
@argument("destination", "[<remote>:]<pool>/<volume>", shell_complete=names("storage-pools"))
@option("--mode", default="pull", hidden=True, help="Accepted for compatibility")
@option("--target-project", default="", metavar="NAME", help="Move to a project")
@target_option()
@target_option("--destination-target")
def move(session: Session, source: str, destination: str, mode: str, target_project: str) -> None:
    """Move a storage volume with its snapshots to another pool, or rename it."""
    client, pool, name, to_pool, new = _places(session, source, destination)
    body = {"name": new}
    if pool != to_pool or target_project:
        body["pool"] = to_pool
    if target_project:
        body["project"] = target_project
    client.change("POST", path_of(pool, name), body)
    session.say("Storage volume moved successfully!")


def _places(session: Session, source: str, destination: str) -> tuple[Client, str, str, str, str]:
    """Return client, pool and volume of the source, pool and volume of the destination.

    Raises BadRequest, NotSupported for two servers.
    """
    client, text = session.server(source)
    other, wanted = session.server(destination)
    if other.path != client.path:
        raise NotSupported("This version copies and moves within one server only")
    pool, _, name = text.partition("/")
    to_pool, _, new = wanted.partition("/")
    if not (pool and name and to_pool and new):
        raise BadRequest("Write source and destination as <pool>/<volume>")
    return client, pool, name, to_pool, new


@command(None, "snapshot", short_help="Snapshot storage volumes")
@pool_argument()
@argument("name", "<volume>")
@argument("snapshot", "[<snapshot>]")
@flag("--no-expiry", help="Ignore any configured auto-expiry for the storage volume")
@flag("--reuse", help="If the snapshot name already exists, delete and create a new one")
@target_option()
def take(
    session: Session, pool: str, name: str, snapshot: str | None, no_expiry: bool, reuse: bool
) -> None:
    """Make a snapshot of a custom volume; without a name it gets one by snapshots.pattern."""
    client, pool = session.server(pool)
    path = path_of(pool, name)
    if reuse and snapshot and client.find(f"{path}/snapshots/{quote(snapshot)}") is not None:
        client.change("DELETE", f"{path}/snapshots/{quote(snapshot)}")
    body: Json = {"name": snapshot or ""}
    if no_expiry:
        body["expires_at"] = _NEVER
    client.change("POST", f"{path}/snapshots", body)


@command(None, "restore", short_help="Restore storage volume snapshots")
@pool_argument()
@argument("name", "<volume>")
@argument("snapshot", "<snapshot>")
@target_option()
def restore(session: Session, pool: str, name: str, snapshot: str) -> None:
    """Make a custom volume what a snapshot of it is; later snapshots stay."""
    client, pool = session.server(pool)
    client.change("PUT", path_of(pool, name), {"restore": snapshot})
