"""Storage pools and their volumes."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, Struct, UnsetType, field

from lxpy.api.instances import Config, MigrationTarget


class PoolPut(Struct, kw_only=True):
    """The writable part of a pool."""

    description: str = ""
    config: Config | None = None


class PoolsPost(PoolPut, kw_only=True):
    """A new pool."""

    name: str = ""
    driver: str = ""


class PoolPatch(Struct, kw_only=True):
    """A change: what is missing stays."""

    description: str | UnsetType = UNSET
    config: Config | UnsetType | None = UNSET


class Pool(Struct, kw_only=True):
    """A pool; `used_by` are URLs of instances, profiles and images."""

    config: Config
    description: str
    name: str
    driver: str
    used_by: list[str]
    status: str
    locations: list[str] = field(default_factory=lambda: ["none"])


class Space(Struct, kw_only=True):
    """How much there is of something, and how much of it is taken."""

    used: int
    total: int


class Resources(Struct, kw_only=True):
    """How full a pool is: bytes and inodes."""

    space: Space
    inodes: Space


class VolumeSource(Struct, kw_only=True):
    """What a volume is made from; type "" is nothing."""

    type: str = ""
    name: str = ""
    pool: str = ""
    project: str = ""
    volume_only: bool = False
    refresh: bool = False
    mode: str = ""
    operation: str = ""
    secrets: dict[str, str] | None = None
    certificate: str = ""


class VolumePut(Struct, kw_only=True):
    """The writable part of a volume."""

    description: str = ""
    config: Config | None = None
    restore: str = ""


class VolumePatch(Struct, kw_only=True):
    """A change: what is missing stays."""

    description: str | UnsetType = UNSET
    config: Config | UnsetType | None = UNSET


class VolumesPost(Struct, kw_only=True):
    """A new custom volume."""

    name: str = ""
    type: str = ""
    content_type: str = ""
    description: str = ""
    config: Config | None = None
    source: VolumeSource | None = None


class VolumePost(Struct, kw_only=True):
    """A new name; with another pool, a move."""

    name: str = ""
    pool: str = ""
    project: str = ""
    migration: bool = False
    volume_only: bool = False
    target: MigrationTarget | None = None


class Volume(Struct, kw_only=True):
    """A volume of a pool: of an instance (type container), an image, or a custom one."""

    config: Config
    description: str
    name: str
    type: str
    used_by: list[str]
    location: str = "none"
    content_type: str = "filesystem"
    project: str = "default"
    created_at: datetime


class VolumeSnapshotPut(Struct, kw_only=True):
    """The writable part of a snapshot of a volume."""

    description: str = ""
    expires_at: datetime | None = None


class VolumeSnapshotsPost(VolumeSnapshotPut, kw_only=True):
    """A new snapshot; without `expires_at` the volume's config says when it ends."""

    name: str = ""


class VolumeSnapshotPatch(Struct, kw_only=True):
    """A change: what is missing stays."""

    description: str | UnsetType = UNSET
    expires_at: datetime | UnsetType | None = UNSET


class VolumeSnapshotPost(Struct, kw_only=True):
    """A new name, or a migration."""

    name: str = ""
    migration: bool = False


class VolumeSnapshot(Struct, kw_only=True):
    """A snapshot of a custom volume."""

    name: str
    description: str
    config: Config
    content_type: str
    created_at: datetime
    expires_at: datetime


class VolumeBackup(Struct, kw_only=True):
    """A backup of a custom volume; `size` is that of its file in bytes."""

    name: str
    created_at: datetime
    expires_at: datetime
    volume_only: bool
    optimized_storage: bool
    size: int
