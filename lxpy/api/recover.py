"""Recovery: `/internal/recover`, as `lxd recover` speaks it, with what lxpy adds to it.

Source: LXD docs, "How to recover instances in case of disaster".
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field

from lxpy.api.storage import PoolsPost


class RecoverPost(Struct, kw_only=True):
    """Pools to look on beside those that are known; `bare` takes in what has no record, too."""

    pools: list[PoolsPost] | None = None
    bare: bool = False


class UnknownVolume(Struct, kw_only=True):
    """A volume or snapshot on a pool that the database does not know.

    `record` says that its config was found, `problem` why it cannot be taken in as it is.
    """

    name: str
    type: str
    snapshot_count: int = field(default=0, name="snapshotCount")
    project: str = "default"
    pool: str = ""
    snapshots: list[str] = field(default_factory=list)
    record: bool = True
    problem: str = ""


class Found(Struct, kw_only=True):
    """What recovery would take in. The capital letters are LXD's."""

    unknown_volumes: list[UnknownVolume] = field(default_factory=list, name="UnknownVolumes")
    dependency_errors: list[str] = field(default_factory=list, name="DependencyErrors")
    pools: list[PoolsPost] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    profiles: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    condition: str = ""


class Replaced(Struct, kw_only=True):
    """What was put in the place of a damaged database: a copy made at a time, if at all.

    Without a time nothing is lost; without a path it begins empty.
    """

    path: str = ""
    made_at: datetime | None = None
