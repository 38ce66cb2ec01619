"""Storage pools and their volumes: where images are unpacked and instances keep their files."""

from lxpy.storage.drivers.base import Quiet
from lxpy.storage.pool import StoragePools
from lxpy.storage.volume import (
    ContentType,
    Layers,
    Plain,
    Pool,
    Resources,
    Rootfs,
    Usage,
    Volume,
    VolumeType,
)

__all__ = [
    "ContentType",
    "Layers",
    "Plain",
    "Pool",
    "Quiet",
    "Resources",
    "Rootfs",
    "StoragePools",
    "Usage",
    "Volume",
    "VolumeType",
]
