"""Instances as archives: read while they are sent, from a snapshot that lasts as long.

Source: LXD docs, "Backups", "Use export files".
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

import structlog

from lxpy.backups import index, source, writer
from lxpy.backups.index import Base, Index
from lxpy.backups.pack import Directory, Job, Part, Text
from lxpy.backups.writer import Chunks
from lxpy.errors import LxpyError, NotFound
from lxpy.images import pack
from lxpy.images.pack import Packer
from lxpy.instances.model import Instance, Snapshot
from lxpy.runtime.container import Runtime
from lxpy.services.backups import described
from lxpy.services.instances.power import Power
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.instances.views import Views
from lxpy.services.journal import Journal
from lxpy.services.locks import Locks
from lxpy.services.projects.profiles import Profiles
from lxpy.services.server.settings import Settings
from lxpy.services.snapshots.quiet import Pause
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume
from lxpy.threads import in_thread

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wish:
    """What an archive is to hold: without snapshots, or only what changed `since` one of them."""

    packer: Packer
    instance_only: bool = False
    since: str = ""


@dataclass(frozen=True, slots=True)
class Still:
    """An instance at one moment, and where its files of then are."""

    instance: Instance
    pool: Pool
    volume: Volume
    snapshots: Sequence[Snapshot]


class Exports:
    """Makes archives of instances."""

    def __init__(
        self,
        *,
        store: InstanceStore,
        locks: Locks,
        journal: Journal,
        pools: Pools,
        profiles: Profiles,
        power: Power,
        runtime: Runtime,
        views: Views,
        settings: Settings,
    ) -> None:
        self._store = store
        self._locks = locks
        self._journal = journal
        self._pools = pools
        self._profiles = profiles
        self._power = power
        self._runtime = runtime
        self._views = views
        self._settings = settings

    async def packer(self, project: str, algorithm: str, unset: str = "") -> Packer:
        """Return how to compress; "" is what the project's or the server's config says.

        `unset` if these are silent. Raises BadRequest.
        """
        chosen = algorithm or self._settings.get(
            "backups.compression_algorithm", unset, project=project
        )
        return await in_thread(pack.packer, chosen)

    def check(self, project: str, name: str, wish: Wish) -> Instance:
        """Return the instance. Raises NotFound for it, or for the snapshot to start from."""
        instance = self._store.get(project, name)
        if wish.since and self._store.snapshots.find(instance.id, wish.since) is None:
            raise NotFound(
                f'Snapshot "{name}/{wish.since}" not found: an incremental export needs a '
                "snapshot that exists here and where it will be imported"
            )
        return instance

    @asynccontextmanager
    async def stream(self, project: str, name: str, wish: Wish) -> AsyncIterator[Chunks]:
        """Export an instance; the block reads the archive as it comes, to its end.

        Raises NotFound, Failed, NotSupported. Whatever happens, nothing is left behind.
        """
        async with self._job(project, name, wish) as job:
            async with writer.stream(job, wish.packer, "export the instance") as chunks:
                yield chunks

    async def write(self, project: str, name: str, wish: Wish, output: int) -> None:
        """Export an instance into an open file. Raises as `stream`."""
        async with self._job(project, name, wish) as job:
            await writer.write(job, wish.packer, output, "export the instance")

    @asynccontextmanager
    async def still(
        self, project: str, name: str, *, instance_only: bool
    ) -> AsyncIterator[tuple[Still, dict[str, Any]]]:
        """Have an instance and its snapshots stay as they are; describe them as a backup does.

        Raises NotFound, Failed.
        """
        wish = Wish(await self.packer(project, "none"), instance_only)
        async with AsyncExitStack() as stack:
            async with self._locks.hold("instance", project, name):
                still = await self._still(stack, self.check(project, name, wish), wish)
                for each in still.snapshots:
                    held = self._pools.storage.held(still.pool, still.volume.at(each.name))
                    await stack.enter_async_context(held)
            yield still, dict((await self._about(still, wish)).config)

    @asynccontextmanager
    async def still_snapshot(
        self, project: str, name: str, snapshot: str
    ) -> AsyncIterator[tuple[Still, dict[str, Any]]]:
        """Have a snapshot stay for the length of a block; it is described as an instance.

        Raises NotFound.
        """
        async with AsyncExitStack() as stack:
            async with self._locks.hold("instance", project, name):
                instance = self.check(
                    project, name, Wish(await self.packer(project, "none"), since=snapshot)
                )
                pool = await self._pools.pool(instance.root_device[1]["pool"])
                volume = volume_of(instance).at(snapshot)
                await stack.enter_async_context(self._pools.storage.held(pool, volume))
            still = Still(instance, pool, volume, ())
            wish = Wish(await self.packer(project, "none"), instance_only=True)
            yield still, dict((await self._about(still, wish)).config)

    @asynccontextmanager
    async def _job(self, project: str, name: str, wish: Wish) -> AsyncIterator[Job]:
        async with AsyncExitStack() as stack:
            async with self._locks.hold("instance", project, name):
                still = await self._still(stack, self.check(project, name, wish), wish)
                # They are held before the lock is let go: nobody deletes them now.
                contents = await self._contents(stack, still, wish)
            about = await self._about(still, wish)
            yield Job(_parts(about, contents), time.time_ns())

    async def _still(self, stack: AsyncExitStack, instance: Instance, wish: Wish) -> Still:
        """Make a snapshot that goes with `stack`. The instance's lock is held."""
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume = volume_of(instance).at(f"export-{token_hex(6)}")
        pause = Pause(self._runtime, self._power, instance)
        intent = await self._journal.begin(
            "snapshot", instance.project, instance.name,
            pool=pool.name, snapshot=volume.snapshot, paused=pause.freezes,
        )  # fmt: skip
        stack.push_async_callback(self._drop, pool, volume, intent)
        await self._pools.storage.snapshot(pool, volume, pause)
        snapshots = [] if wish.instance_only else self._store.snapshots.of(instance.id)
        if wish.since:
            base = self._base(instance, wish.since)
            snapshots = [each for each in snapshots if each.created_at > base.created_at]
        return Still(instance, pool, volume, snapshots)

    async def _drop(self, pool: Pool, volume: Volume, intent: str) -> None:
        """Remove the snapshot; one that cannot be goes when the daemon starts again."""
        try:
            await self._pools.storage.delete_volume(pool, volume)
            await self._journal.end(intent)
        except LxpyError as error:
            _log.warning("snapshot of an export stays", volume=volume.label, error=str(error))

    async def _contents(
        self, stack: AsyncExitStack, still: Still, wish: Wish
    ) -> dict[str, list[Part]]:
        """Open everything; the parts by their snapshot's name, "" for the instance itself."""
        storage, pool = self._pools.storage, still.pool
        about = Index(still.instance.name, pool.name, pool.driver,
                      snapshots=[each.name for each in still.snapshots])  # fmt: skip
        found: dict[str, list[Part]] = {}
        for directory, snapshot in about.targets().items():
            volume = still.volume.at(snapshot) if snapshot else still.volume
            opened = source.opened(storage, pool, volume, directory)
            found[snapshot] = await stack.enter_async_context(opened)
        if wish.since:
            old = source.tree(storage, pool, still.volume.at(wish.since))
            before = await stack.enter_async_context(old)
            for snapshot, parts in found.items():
                found[snapshot] = _since(parts, before, about.gone(snapshot))
        return found

    async def _about(self, still: Still, wish: Wish) -> Index:
        instance = still.instance
        pool, _ = await self._pools.get(still.pool.name)
        profiles = await self._profiles.profiles(instance.project, instance.profiles)
        config = described.config_of(self._views, instance, still.snapshots, pool, profiles)
        return Index(
            name=instance.name,
            pool=pool.name,
            backend=pool.driver,
            snapshots=[each.name for each in still.snapshots],
            config=config,
            checksums=True,
            since=self._base(instance, wish.since) if wish.since else None,
        )

    def _base(self, instance: Instance, snapshot: str) -> Base:
        found = self._store.snapshots.find(instance.id, snapshot)
        if found is None:
            raise NotFound(f'Snapshot "{instance.name}/{snapshot}" not found')
        return Base(snapshot, found.created_at, instance.config.get("volatile.uuid", ""))


#: of backups that the daemon keeps, as LXD's are; scripts call them .tar.gz
KEPT_COMPRESSION = "gzip"


def _since(parts: list[Part], before: int, gone: str) -> list[Part]:
    """Return the parts with only those files of the tree that are not as they were before."""
    return [
        replace(each, since=before, gone=gone)
        if isinstance(each, Directory) and each.name.endswith("/rootfs")
        else each
        for each in parts
    ]


def _parts(about: Index, contents: dict[str, list[Part]]) -> list[Part]:
    """Return the archive's members in their order: snapshots before the instance, as LXD does."""
    found: list[Part] = [Text(index.NAME, index.dump(about))]
    config = dict(about.config)
    for directory, snapshot in reversed(about.targets().items()):
        own = described.of_snapshot(config, snapshot) if snapshot else config
        found.append(Text(f"{directory}/backup.yaml", index.to_yaml(own)))
        found += contents[snapshot]
    return found
