"""How volumes look: those of instances and images follow from these, custom ones have rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from lxpy.api import storage as api
from lxpy.api.snapshots import NEVER
from lxpy.db.rows import VolumeRow, VolumeSnapshotRow
from lxpy.events.lifecycle import url
from lxpy.instances.devices import disk
from lxpy.instances.model import Instance, RootVolume, Snapshot
from lxpy.services.instances.starting import volume_of
from lxpy.services.storage.users import Users
from lxpy.storage import ContentType, VolumeType

_UNKNOWN = datetime(1, 1, 1, tzinfo=UTC)


def writable(volume: api.Volume) -> object:
    """Return what the ETag of a volume stands for."""
    return [volume.name, volume.type, volume.config, volume.description]


def of_instance(instance: Instance, snapshots: Sequence[Snapshot]) -> list[api.Volume]:
    """Return the volume of an instance, and those of its snapshots."""
    options = dict(volume_of(instance).config)
    path = f"/1.0/instances/{instance.name}"

    def volume(name: str, created_at: datetime, used_by: str, written: RootVolume) -> api.Volume:
        return api.Volume(
            name=name,
            type=VolumeType.CONTAINER,
            config={**options, **written.config},
            description=written.description,
            used_by=[url(used_by, instance.project)],
            created_at=created_at,
            project=instance.project,
        )

    return [
        volume(instance.name, instance.created_at, path, instance.volume),
        *(
            volume(
                f"{instance.name}/{each.name}",
                each.created_at,
                f"{path}/snapshots/{each.name}",
                each.volume,
            )
            for each in snapshots
        ),
    ]


def of_instance_snapshot(instance: Instance, snapshot: Snapshot) -> api.VolumeSnapshot:
    """Return the volume of an instance's snapshot."""
    return api.VolumeSnapshot(
        name=snapshot.name,
        description=snapshot.volume.description,
        config={**volume_of(instance).config, **snapshot.volume.config},
        content_type=ContentType.FILESYSTEM,
        created_at=snapshot.created_at,
        expires_at=snapshot.expires_at or NEVER,
    )


def of_image(fingerprint: str) -> api.Volume:
    """Return the volume of an image that is unpacked on a pool."""
    return api.Volume(
        name=fingerprint,
        type=VolumeType.IMAGE,
        config={},
        description="",
        used_by=[f"/1.0/images/{fingerprint}"],
        created_at=_UNKNOWN,
    )


def of_row(row: VolumeRow, users: Users) -> api.Volume:
    """Return a custom volume."""
    return api.Volume(
        name=row.name,
        type=VolumeType.CUSTOM,
        config=row.config,
        description=row.description,
        used_by=users.get((row.project, row.pool.name, row.name), []),
        created_at=row.created_at,
        content_type=row.content_type,
        project=row.project,
    )


def listed_snapshot(row: VolumeRow, snapshot: VolumeSnapshotRow, users: Users) -> api.Volume:
    """Return a snapshot as the list of a pool's volumes shows it."""
    return api.Volume(
        name=f"{row.name}/{snapshot.name}",
        type=VolumeType.CUSTOM,
        config=snapshot.config,
        description=snapshot.description,
        used_by=users.get((row.project, row.pool.name, row.name), []),
        created_at=snapshot.created_at,
        content_type=row.content_type,
        project=row.project,
    )


def of_snapshot(row: VolumeRow, snapshot: VolumeSnapshotRow) -> api.VolumeSnapshot:
    """Return a snapshot of a custom volume."""
    return api.VolumeSnapshot(
        name=snapshot.name,
        description=snapshot.description,
        config=snapshot.config,
        content_type=row.content_type,
        created_at=snapshot.created_at,
        expires_at=snapshot.expires_at or NEVER,
    )


def writable_snapshot(snapshot: api.VolumeSnapshot) -> object:
    """Return what the ETag of a snapshot stands for."""
    return [snapshot.description, snapshot.expires_at]


def root_pool(instance: Instance) -> str:
    """Return the name of the pool an instance lies on."""
    roots = (each for each in instance.expanded_devices.values() if disk.is_root(each))
    return next((each.get("pool", "") for each in roots), "")
