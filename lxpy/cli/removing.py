"""Deleting instances and snapshots: what `delete` does."""

from __future__ import annotations

from lxpy.cli.target import split_snapshot
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, NotFound, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lxpy.cli.session import Session
    from lxpy.client.client import Client, Json


def delete(
    session: Session,
    instances: tuple[str, ...],
    *,
    force: bool = False,
    confirm: Callable[[str], bool] | None = None,
) -> int:
    """Delete instances and snapshots, each if `confirm` says so; none if one does not exist.

    Raises NotFound, BadRequest, Refused.
    """
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
        if confirm is not None and not confirm(f"Remove {name}"):
            raise BadRequest("User aborted delete operation")
        _delete(client, name, found, force=force)
    return 0


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
