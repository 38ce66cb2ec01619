"""What a storage driver can do, and the promise every driver keeps.

Each call either did all of its work or left no trace; a crash in the middle leaves only names
that `start` removes. Names are checked before a driver sees them. The caller holds the lock of
the volume it changes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lxpy.storage.volume import Pool, Resources, Rootfs, Usage, Volume

Unpack = Callable[[Path], Awaitable[None]]
#: makes a block during which nobody writes to the volume: as short as a driver can
Quiet = Callable[[], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def quiet_already() -> AsyncIterator[None]:
    """Be the `Quiet` of a volume that nobody uses."""
    yield


@dataclass(frozen=True, slots=True)
class Info:
    """A driver as `GET /1.0` lists it: name, version, and what it is good at.

    `quotas` are held; `block` volumes are known; `streams` has send and receive; `mounts` says
    that volumes have to be mounted before use.
    """

    name: str
    version: str
    remote: bool = False
    optimized_images: bool = True
    quotas: bool = True
    block: bool = True
    streams: bool = False


class Driver(Protocol):
    """One kind of storage pool."""

    info: Info

    # Pools

    def fill(self, name: str, config: dict[str, str], root: Path) -> dict[str, str]:
        """Return the config of a new pool with what the driver chooses, "source" at least.

        `root` is the directory for the pools that lie in this installation's own directory.
        """

    def mount_point(self, name: str, config: Mapping[str, str], root: Path) -> Path:
        """Return the directory below which a pool's files are once it is started."""

    async def create(self, pool: Pool) -> None:
        """Make a new pool at its source, and start it.

        Raises BadRequest when the source does not fit, MissingTool, Failed.
        """

    async def start(self, pool: Pool) -> None:
        """Make the pool usable, and remove what a crash left behind. Raises Failed."""

    async def stop(self, pool: Pool) -> None:
        """Let go of the pool: nothing stays mounted. Volumes are not in use."""

    async def update(self, pool: Pool, config: Mapping[str, str]) -> None:
        """Apply another config to a started pool, such as a larger size.

        Raises BadRequest for what cannot be changed; nothing is changed then.
        """

    async def delete(self, pool: Pool) -> None:
        """Remove the pool's files. Raises BadRequest while volumes other than images exist."""

    async def resources(self, pool: Pool) -> Resources:
        """Tell how full the pool is."""

    # Images

    async def has_image(self, pool: Pool, fingerprint: str) -> bool:
        """Tell whether the image is unpacked on this pool; if so it is kept from now on."""

    async def images(self, pool: Pool) -> list[str]:
        """Return the fingerprints of the images that are unpacked on this pool."""

    async def add_image(self, pool: Pool, fingerprint: str, unpack: Unpack) -> None:
        """Unpack an image into the pool; it appears whole or not at all."""

    async def delete_image(self, pool: Pool, fingerprint: str) -> None:
        """Remove an unpacked image, at once or as soon as no volume needs it."""

    # Volumes

    async def create_volume(self, pool: Pool, volume: Volume, image: str | None) -> None:
        """Make a volume: on top of an unpacked image, or empty. Raises Conflict if it exists."""

    def filling(self, pool: Pool, volume: Volume) -> AbstractAsyncContextManager[Path]:
        """Make a volume, or a snapshot, whose content the block writes.

        The block gets an empty directory: of an instance's volume it fills rootfs/,
        metadata.yaml and templates/, of a custom one the files themselves, of a block volume the
        sparse file root.img. At its end the volume appears whole; when it raises, not at all.
        Raises Conflict if it exists, NotSupported for a snapshot that cannot be made so.
        """

    async def copy_volume(
        self, pool: Pool, source: Volume, to_pool: Pool, target: Volume, quiet: Quiet
    ) -> None:
        """Copy a volume or a snapshot, without its snapshots, to a new volume.

        Or to a new snapshot of a volume that exists: so are copies made with their snapshots.
        Both pools are of this driver. Raises Conflict if the target exists, NotFound.
        """

    async def rename_volume(self, pool: Pool, volume: Volume, target: Volume) -> None:
        """Rename a volume that is not in use with its snapshots; or one snapshot.

        Raises NotFound, Conflict if the target exists.
        """

    async def delete_volume(self, pool: Pool, volume: Volume) -> None:
        """Remove a volume with its snapshots, or one snapshot; what does not exist is none."""

    async def resize_volume(self, pool: Pool, volume: Volume, size_bytes: int | None) -> None:
        """Give a volume another quota, in use or not; None lifts it.

        Raises Failed when it holds more than that, NotSupported for what the driver cannot do
        (or cannot do while it is in use); the old quota holds then.
        """

    async def usage(self, pool: Pool, volume: Volume) -> Usage | None:
        """Return what a volume takes, or None where that is not known without counting."""

    # Snapshots

    async def snapshot_volume(self, pool: Pool, snapshot: Volume, quiet: Quiet) -> None:
        """Make a snapshot of the volume as it is within `quiet`. Raises NotFound, Conflict."""

    async def restore_volume(self, pool: Pool, volume: Volume, snapshot: str) -> None:
        """Make a volume that is not in use what its snapshot is; all snapshots stay.

        May be repeated after a crash. Raises NotFound.
        """

    async def snapshots(self, pool: Pool, volume: Volume) -> list[str]:
        """Return the names of a volume's snapshots as they lie on the pool."""

    async def volumes(self, pool: Pool) -> list[Volume]:
        """Return the volumes of instances and the custom ones as they lie on the pool."""

    # Use

    async def mount(self, pool: Pool, volume: Volume) -> None:
        """Have a volume's or snapshot's files at hand; may be repeated."""

    async def unmount(self, pool: Pool, volume: Volume) -> None:
        """Take away what `mount` made; may be repeated."""

    async def rootfs(self, pool: Pool, volume: Volume) -> Rootfs:
        """Say where the files of a mounted volume or snapshot are, and how they are stacked.

        Of an instance's volume it is the rootfs, of a custom one the files. Raises NotFound.
        """

    async def disk(self, pool: Pool, volume: Volume) -> Path:
        """Return the file or device of a mounted block volume. Raises NotFound."""

    async def image_of(self, pool: Pool, volume: Volume) -> str | None:
        """Return the fingerprint of the image that must be on a pool before a copy, or None."""

    async def metadata(self, pool: Pool, volume: Volume) -> Path:
        """Return the directory with metadata.yaml and templates/ of a mounted instance."""

    def directory(self, pool: Pool, volume: Volume) -> Path:
        """Return the mounted volume's own directory: its metadata.yaml if it has one."""

    # Streams (drivers whose `info.streams` is true)

    async def send(self, pool: Pool, volume: Volume, since: str, descriptor: int) -> None:
        """Write a volume or snapshot as the driver's own stream; `since` names a snapshot.

        Raises NotSupported.
        """

    async def receive(self, pool: Pool, volume: Volume, descriptor: int) -> None:
        """Make a volume or snapshot from such a stream. Raises NotSupported, Conflict."""

    async def close(self) -> None:
        """Finish what goes on in the background."""
