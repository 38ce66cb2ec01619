"""`lxpy delete`: instances and snapshots."""

from __future__ import annotations

import click

from lxpy.cli.declare import argument, command, flag, names
from lxpy.cli.session import Session
from lxpy.cli.target import split_snapshot
from lxpy.client.client import Client, Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, NotFound, Refused


@command(None, "delete", short_help="Delete instances and snapshots")
@argument(
    "instances",
    "[<remote>:]<instance>[/<snapshot>] [[<remote>:]<instance>[/<snapshot>]...]",
    nargs=-1,
    required=True,
    shell_complete=names("instances"),
)
@flag("-f", "--force", help="Force the removal of running instances")
@flag("-i", "--interactive", help="Require user confirmation")
def delete(session: Session, instances: tuple[str, ...], force: bool, interactive: bool) -> None:
    """Delete instances and snapshots. Nothing is deleted if one of them does not exist."""
    targets = []
    for word in instances:
        remote, name = session.parse(word)
        client = session.client(remote)
        instance, snapshot = split_snapshot(name)
        try:
            found = client.get(path_of(name))
        except Refused as error:
            if error.code == 404 and not snapshot:
                text = f'Failed checking instance exists "{remote.name}:{instance}": {error}'
                raise NotFound(text) from error
            raise
        targets.append((client, name, found))
    for client, name, found in targets:
        if interactive and not click.confirm(f"Remove {name}"):
            raise BadRequest("User aborted delete operation")
        _delete(client, name, found, force=force)


def path_of(name: str) -> str:
    """Return the path of an instance, or of the snapshot in "c1/s1"."""
    instance, snapshot = split_snapshot(name)
    path = f"/1.0/instances/{quote(instance)}"
    return f"{path}/snapshots/{quote(snapshot)}" if snapshot else path


def _delete(client: Client, name: str, found: Json, *, force: bool) -> None:
    path = path_of(name)
    if not split_snapshot(name)[1] and found["status_code"] not in (0, 102, 112):
        if not force:
            raise BadRequest("The instance is currently running, stop it first or pass --force")
        try:
            body = {"action": "stop", "timeout": -1, "force": True}
            client.change("PUT", f"{path}/state", body)
        except Refused:
            # It may have stopped by itself meanwhile.
            if (now := client.find(path)) is not None and now["status_code"] != 102:
                raise
        if found["ephemeral"] and client.find(path) is None:
            return
    try:
        client.change("DELETE", path)
    except Refused as error:
        if not (found.get("ephemeral") and error.code == 404):
            raise
