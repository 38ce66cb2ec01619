"""Images made from instances and snapshots.

Source: LXD docs, "REST API", "Images", POST with source.type instance or snapshot.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from lxpy.api import images as api
from lxpy.backups import source, writer
from lxpy.backups.pack import Job, Part, Text
from lxpy.backups.writer import Chunks
from lxpy.errors import BadRequest, Failed
from lxpy.images import metadata, pack
from lxpy.images.metadata import Metadata
from lxpy.images.progress import Meter
from lxpy.instances.model import Instance
from lxpy.operations.registry import Operation, Registry
from lxpy.services.images.images import Images
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.server.settings import Settings
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume
from lxpy.threads import in_thread

#: what `source.type` may be for an image to be made from an instance
SOURCES = ("instance", "container", "snapshot", "virtual-machine")


class Publish:
    """Packs instances into images; what fails or is cancelled leaves nothing."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        locks: Locks,
        pools: Pools,
        power: Power,
        images: Images,
        settings: Settings,
        registry: Registry,
    ) -> None:
        self._store = store
        self._locks = locks
        self._pools = pools
        self._power = power
        self._images = images
        self._settings = settings
        self._registry = registry

    async def create(self, project: str, wish: api.ImagesPost) -> Operation:
        """Start making an image.

        Raises NotFound for the instance, BadRequest for an unknown compression or a snapshot
        without a name, Conflict for an alias that is taken.
        """
        name, _, snapshot = wish.source.name.partition("/")
        if (wish.source.type == "snapshot") != bool(snapshot):
            raise BadRequest(
                f'Invalid {wish.source.type} "{wish.source.name}" to publish: write INSTANCE, or '
                "INSTANCE/SNAPSHOT with type snapshot"
            )
        instance = self._store.get(project, name)
        algorithm = wish.compression_algorithm or self._settings.get(
            "images.compression_algorithm", project=project
        )
        packer = await in_thread(pack.packer, algorithm)
        await self._images.check(project, wish)

        async def work(operation: Operation) -> None:
            # Nobody starts the instance, or deletes the snapshot, while it is read.
            async with self._locks.hold("instance", project, name):
                made = await self._publish(
                    self._store.get(project, name), snapshot, wish, packer, operation
                )
            operation.update(fingerprint=made.fingerprint, size=str(made.size))

        return self._registry.spawn(
            "Downloading image",
            work,
            project=project,
            resources={"instances": [f"/1.0/instances/{instance.name}"]},
            cancellable=True,
        )

    async def _publish(
        self,
        instance: Instance,
        snapshot: str,
        wish: api.ImagesPost,
        packer: pack.Packer,
        operation: Operation,
    ) -> api.Image:
        if not snapshot and self._power.is_running(instance):
            raise BadRequest(
                "Cannot export a running instance as an image: stop it (or publish with --force), "
                "or publish a snapshot"
            )
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume = volume_of(instance)
        if snapshot:
            if snapshot not in await self._pools.storage.snapshots(pool, volume):
                raise Failed(
                    f'Failed to fetch snapshot "{snapshot}" of instance "{instance.name}" in '
                    f'project "{instance.project}": InstanceSnapshot not found'
                )
            volume = volume.at(snapshot)
        async with source.opened(self._pools.storage, pool, volume, "") as parts:
            found = await self._metadata(instance, pool, volume, wish)
            job = Job([Text("metadata.yaml", metadata.dump(found)), *_files(parts)],
                      time.time_ns(), checksums=False)  # fmt: skip
            meter = Meter(operation.progress, "create_image_from_container_pack", "Image pack")
            async with writer.stream(job, packer, "pack the image") as chunks:
                return await self._images.keep(
                    instance.project, _counted(chunks, meter), found, _named(wish, packer)
                )

    async def _metadata(
        self, instance: Instance, pool: Pool, volume: Volume, wish: api.ImagesPost
    ) -> Metadata:
        """Return the new image's metadata: the instance's own, or a plain one. Raises Failed."""
        directory = await self._pools.storage.metadata(pool, volume)
        text = await in_thread(_read, directory / "metadata.yaml")
        if text is None:
            properties = {
                key.removeprefix("image."): value
                for key, value in instance.config.items()
                if key.startswith("image.")
            }
            found = Metadata(instance.architecture, 0, properties=properties)
        else:
            found = metadata.kept(text)
        expires = wish.expires_at
        return replace(
            found,
            architecture=metadata.architecture_name(found.architecture or instance.architecture),
            creation_date=int(time.time()),
            expiry_date=int(expires.timestamp()) if expires and expires.year > 1970 else 0,
            properties=wish.properties or found.properties,
        )


def _files(parts: list[Part]) -> list[Part]:
    """Return the parts without the instance's own metadata.yaml."""
    return [each for each in parts if each.name != "metadata.yaml"]


def _named(wish: api.ImagesPost, packer: pack.Packer) -> api.ImagesPost:
    if wish.filename:
        return wish
    wish.filename = f"{wish.source.name.replace('/', '-')}{packer.suffix}"
    return wish


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


async def _counted(chunks: Chunks, meter: Meter) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        meter.add(len(chunk))
        yield chunk
