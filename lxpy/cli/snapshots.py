"""Making and restoring snapshots: what `snapshot` and `restore` do."""

from __future__ import annotations

from lxpy.cli.target import split_snapshot
from lxpy.client.transport import quote
from lxpy.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.cli.session import Session

#: How the API writes that something never expires.
_NEVER = "0001-01-01T00:00:00Z"
#: What `snapshot` may be followed by other than an instance: click looks at these calls.
VERBS = ("create", "delete", "diff", "list", "mount", "rename", "umount")


def snapshot(
    session: Session,
    instance: str,
    name: str | None = None,
    *,
    reuse: bool = False,
    no_expiry: bool = False,
    stateful: bool = False,
) -> int:
    """Make a snapshot. Raises BadRequest, Refused."""
    client, target = session.server(instance)
    if split_snapshot(target)[1]:
        raise BadRequest(f'"{target}" is a snapshot: name an instance, then the new snapshot')
    path = f"/1.0/instances/{quote(target)}/snapshots"
    if reuse and name and client.find(f"{path}/{quote(name)}") is not None:
        client.change("DELETE", f"{path}/{quote(name)}")
    ends = _NEVER if no_expiry else None
    client.change("POST", path, {"name": name or "", "stateful": stateful, "expires_at": ends})
    return 0


def restore(
    session: Session, instance: str, name: str, *, stateful: bool = False, stateless: bool = False
) -> int:
    """Make an instance what its snapshot is, with the memory that was saved unless `stateless`.

    Raises BadRequest, Refused.
    """
    client, target = session.server(instance)
    owner, slash, wanted = name.partition("/")
    if slash and owner != target:
        raise BadRequest(f'Snapshot "{name}" is not of instance "{target}": copy it instead')
    if stateful and stateless:
        raise BadRequest("--stateful and --stateless exclude each other")
    path, snapshot = f"/1.0/instances/{quote(target)}", wanted if slash else name
    if not stateful and not stateless:
        found = client.find(f"{path}/snapshots/{quote(snapshot)}")
        stateful = found is not None and bool(found["stateful"])
    client.change("PUT", path, {"restore": snapshot, "stateful": stateful})
    return 0
