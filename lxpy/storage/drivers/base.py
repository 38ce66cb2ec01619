"""What a storage driver can do, and the promise every driver keeps.

Each call either did all of its work or left no trace; a crash in the middle leaves only names
that `start` removes. Names are checked before a driver sees them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lxpy.storage.volume import Pool, Resources, Rootfs, Volume

Unpack = Callable[[Path], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Info:
    """A driver as `GET /1.0` lists it: name, version, and what it is good at."""

    name: str
    version: str
    remote: bool = False
    optimized_images: bool = True
    optimized_backups: bool = False
    quotas: bool = False


class Driver(Protocol):
    """One kind of storage pool."""

    info: Info

    async def create(self, pool: Pool) -> None:
        """Make a new pool at its source. Raises BadRequest when the source does not fit."""

    async def start(self, pool: Pool) -> None:
        """Make the pool usable, and remove what a crash left behind."""

    async def delete(self, pool: Pool) -> None:
        """Remove the pool's files. Raises BadRequest while volumes other than images exist."""

    async def resources(self, pool: Pool) -> Resources:
        """Tell how full the pool is."""

    async def has_image(self, pool: Pool, fingerprint: str) -> bool:
        """Tell whether the image is unpacked on this pool; if so it is kept from now on."""

    async def images(self, pool: Pool) -> list[str]:
        """Return the fingerprints of the images that are unpacked on this pool."""

    async def add_image(self, pool: Pool, fingerprint: str, unpack: Unpack) -> None:
        """Unpack an image into the pool; it appears whole or not at all."""

    async def delete_image(self, pool: Pool, fingerprint: str) -> None:
        """Remove an unpacked image, at once or as soon as no instance needs it."""

    async def create_volume(self, pool: Pool, volume: Volume, image: str | None) -> None:
        """Make a volume: on top of an unpacked image, or empty. Raises Conflict if it exists."""

    async def copy_volume(self, pool: Pool, source: Volume, to_pool: Pool, target: Volume) -> None:
        """Copy a volume that nobody writes to. Raises Conflict if the target exists."""

    async def rename_volume(self, pool: Pool, volume: Volume, target: Volume) -> None:
        """Rename a volume that is not mounted. Raises Conflict if the target exists."""

    async def delete_volume(self, pool: Pool, volume: Volume) -> None:
        """Remove a volume; one that does not exist is none."""

    async def usage(self, pool: Pool, volume: Volume) -> int | None:
        """Return the bytes a volume takes, or None where that is not known without counting."""

    async def rootfs(self, pool: Pool, volume: Volume) -> Rootfs:
        """Say how the volume is mounted as a rootfs."""

    async def image_of(self, pool: Pool, volume: Volume) -> str | None:
        """Return the fingerprint of the image the volume stands on, or None."""

    async def metadata(self, pool: Pool, volume: Volume) -> Path:
        """Return the directory with metadata.yaml and templates/ of an instance."""

    def directory(self, pool: Pool, volume: Volume) -> Path:
        """Return the volume's own directory (backup.yaml and the like)."""

    async def close(self) -> None:
        """Finish what goes on in the background."""
