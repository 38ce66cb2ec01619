"""Snapshots of instances: requests and objects of `/1.0/instances/NAME/snapshots`.

Source: LXD docs, "REST API", "Instances".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import UNSET, Struct, UnsetType

from lxpy.api.instances import MigrationTarget

#: how LXD writes that something never expires
NEVER = datetime(1, 1, 1, tzinfo=UTC)
#: a size that is not known
UNKNOWN = -1


class SnapshotsPost(Struct, kw_only=True):
    """A new snapshot; without `expires_at` the instance's config says when it ends."""

    name: str = ""
    stateful: bool = False
    expires_at: datetime | None = None


class SnapshotPut(Struct, kw_only=True):
    """The writable part of a snapshot."""

    expires_at: datetime | None = None


class SnapshotPatch(Struct, kw_only=True):
    """A change: what is missing stays."""

    expires_at: datetime | UnsetType | None = UNSET


class SnapshotPost(Struct, kw_only=True):
    """A new name, or a migration."""

    name: str = ""
    migration: bool = False
    live: bool = False
    target: MigrationTarget | None = None


class Making(Struct, kw_only=True):
    """What lxpy adds about the making of a snapshot.

    `frozen_ms`: how long the instance stood still for it, null when it did not run.
    """

    scheduled: bool = False
    frozen_ms: float | None = None


class Stateful(Struct, kw_only=True):
    """What the memory in a snapshot takes on disk, and how long it took to save it.

    `size` is in bytes, -1 when it is not known; `frozen_ms`: how long the processes stood still.
    """

    size: int
    frozen_ms: float | None


class Snapshot(Struct, kw_only=True):
    """A snapshot; `size` is in bytes, -1 when it is not known.

    `lxpy_stateful` is null unless it has the memory.
    """

    name: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime
    architecture: str
    config: Mapping[str, str]
    devices: Mapping[str, Mapping[str, str]]
    ephemeral: bool
    expanded_config: Mapping[str, str]
    expanded_devices: Mapping[str, Mapping[str, str]]
    profiles: list[str]
    stateful: bool
    size: int = UNKNOWN
    description: str = ""
    lxpy: Making
    lxpy_stateful: Stateful | None


class Change(Struct, kw_only=True):
    """A path that differs between two snapshots.

    `what` is "added", "removed" or "modified"; `type` is "file", "directory", "symlink",
    "char-device", "block-device", "fifo" or "socket"; `how` says what of a modified one differs:
    "type", "mode", "owner", "size", "mtime", "target", "device". What is not printable in a name
    is written as `\\xNN`, a backslash as two.
    """

    path: str
    what: str
    type: str
    how: list[str]


class Diff(Struct, kw_only=True):
    """What is different in `to` (a snapshot, or "" for the instance as it is) from `base`.

    `truncated` says that there are more changes than these.
    """

    base: str
    to: str
    added: int
    removed: int
    modified: int
    changes: list[Change]
    truncated: bool = False
