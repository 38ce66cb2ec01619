"""Storage pools and their volumes: where images are unpacked and instances keep their files."""

from lxpy.storage.pool import StoragePools
from lxpy.storage.volume import Layers, Plain, Pool, Resources, Rootfs, Volume, VolumeType

__all__ = ["Layers", "Plain", "Pool", "Resources", "Rootfs", "StoragePools", "Volume", "VolumeType"]
