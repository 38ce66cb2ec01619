"""Snapshots that are mounted on the host: lxpy's own `/1.0/lxpy/snapshot-mounts`."""

from __future__ import annotations

from msgspec import Struct


class SnapshotMountPost(Struct, kw_only=True):
    """Where to mount a snapshot: an empty directory of the host."""

    directory: str


class SnapshotMount(Struct, kw_only=True):
    """A mounted snapshot."""

    project: str
    instance: str
    snapshot: str
    directory: str
