"""`lxpy storage volume copy`, `move`, `snapshot` and `restore`."""

from __future__ import annotations

import click

from lxpy.cli.declare import argument, command, flag, names, option, target_option
from lxpy.cli.session import Session
from lxpy.cli.transfer import MODES, Transfer
from lxpy.cli.volume import path_of, pool_argument
from lxpy.client.client import Client, Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest

_NEVER = "0001-01-01T00:00:00Z"
_VOLATILE = "volatile."


@command(None, "copy", short_help="Copy storage volumes")
@argument("source", "[<remote>:]<pool>/<volume>[/<snapshot>]", required=True,
          shell_complete=names("storage-pools"))  # fmt: skip
@argument("destination", "[<remote>:]<pool>/<volume>", shell_complete=names("storage-pools"))
@flag("--refresh", help="Refresh and update the existing storage volume copies")
@flag("--volume-only", help="Copy the volume without its snapshots")
@option(
    "--mode",
    type=click.Choice(MODES),
    default=None,
    help="Between servers: the target fetches (pull), the source sends (push), or this program "
    "passes on (relay)",
)
@option("--target-project", default="", metavar="NAME", help="Copy to a project")
@target_option()
@target_option("--destination-target")
def copy(
    session: Session,
    source: str,
    destination: str,
    refresh: bool,
    volume_only: bool,
    mode: str | None,
    target_project: str,
) -> None:
    """Copy a storage volume with its snapshots, or one snapshot, to a new volume in any pool.

    With --refresh a volume that exists becomes what the source is.
    """
    if _is_elsewhere(session, source, destination):
        _send(
            session, source, destination, mode,
            target_project=target_project, refresh=refresh, volume_only=volume_only,
        )  # fmt: skip
        session.say("Storage volume copied successfully!")
        return
    client, pool, name, to_pool, new = _places(session, source, destination)
    body: Json = {
        **_definition(client, pool, name),
        "name": new,
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
@option(
    "--mode",
    type=click.Choice(MODES),
    default=None,
    help="Between servers: the target fetches (pull), the source sends (push), or this program "
    "passes on (relay)",
)
@option("--target-project", default="", metavar="NAME", help="Move to a project")
@target_option()
@target_option("--destination-target")
def move(
    session: Session, source: str, destination: str, mode: str | None, target_project: str
) -> None:
    """Move a storage volume with its snapshots to another pool or server, or rename it."""
    if _is_elsewhere(session, source, destination):
        _send(session, source, destination, mode, target_project=target_project)
        client, text = session.server(source)
        client.change("DELETE", path_of(*_split(text)))
        session.say("Storage volume moved successfully!")
        return
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

    Raises BadRequest.
    """
    client, text = session.server(source)
    _, wanted = session.server(destination)
    return client, *_split(text), *_split(wanted)


def _split(text: str) -> tuple[str, str]:
    """Return pool and volume. Raises BadRequest."""
    pool, _, name = text.partition("/")
    if not (pool and name):
        raise BadRequest("Write source and destination as <pool>/<volume>")
    return pool, name


def _is_elsewhere(session: Session, source: str, destination: str) -> bool:
    return session.server(source)[0].path != session.server(destination)[0].path


def _definition(client: Client, pool: str, name: str) -> Json:
    """Return what a copy of a volume, or of one of its snapshots, has from it."""
    found = client.get(path_of(pool, name))
    return {
        "type": "custom",
        "content_type": found["content_type"],
        "description": found["description"],
        "config": {
            key: value
            for key, value in (found["config"] or {}).items()
            if not key.startswith(_VOLATILE)
        },
    }


def _send(
    session: Session,
    source: str,
    destination: str,
    mode: str | None,
    *,
    target_project: str,
    refresh: bool = False,
    volume_only: bool = False,
) -> None:
    """Copy a volume to another server. Raises BadRequest, Refused."""
    here, text = session.parse(source)
    there, wanted = session.parse(destination)
    client, target = session.client(here), session.client(there)
    (pool, name), (to_pool, new) = _split(text), _split(wanted)
    if "/" in name:
        raise BadRequest("A snapshot of a volume is copied within its server: copy the volume")
    target.project = target_project or target.project
    more = {"name": name, "pool": pool, "volume_only": volume_only, "refresh": refresh}
    Transfer(
        (here, client), (there, target),
        path=path_of(pool, name),
        ask={"name": name, "pool": pool, "volume_only": volume_only},
        make_at=f"/1.0/storage-pools/{quote(to_pool)}/volumes/custom",
        make={**_definition(client, pool, name), "name": new, "source": more},
    ).run(mode)  # fmt: skip


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
