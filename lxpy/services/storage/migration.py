"""Custom volumes go to and come from other servers, by LXD's protocol.

Source: LXD docs, "Storage volumes", "Copy or move a volume between servers".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from lxpy.api import storage as api
from lxpy.backups.index import by_name, moment, strings
from lxpy.db import volumes as queries
from lxpy.db.engine import Database
from lxpy.db.rows import VolumeRow, VolumeSnapshotRow
from lxpy.errors import BadRequest, NotSupported
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.names import check_snapshot_name
from lxpy.migration.messages import Header, SnapshotHeader
from lxpy.operations.channel import Channel
from lxpy.operations.registry import Operation, Registry
from lxpy.services.journal import Journal
from lxpy.services.locks import Locks
from lxpy.services.migration import meetings
from lxpy.services.migration.meetings import Peer
from lxpy.services.migration.receiving import Receiving
from lxpy.services.migration.source import Sending, peer_of
from lxpy.services.migration.staging import Staging
from lxpy.services.storage.exports import VolumeExports
from lxpy.services.storage.files import Record, SnapshotRecord, VolumeFiles
from lxpy.services.storage.places import (
    Place,
    check_custom,
    check_name,
    check_options,
    custom,
    find,
    given,
    portable,
    stored,
)
from lxpy.services.storage.pools import Pools
from lxpy.services.storage.users import VolumeUsers
from lxpy.services.storage.volumes import Volumes
from lxpy.storage import ContentType, Pool, Volume


class VolumeMigration:
    """Sends and receives volumes of files."""

    def __init__(
        self,
        *,
        db: Database,
        pools: Pools,
        locks: Locks,
        journal: Journal,
        files: VolumeFiles,
        users: VolumeUsers,
        volumes: Volumes,
        exports: VolumeExports,
        staging: Staging,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._pools = pools
        self._locks = locks
        self._journal = journal
        self._files = files
        self._users = users
        self._volumes = volumes
        self._exports = exports
        self._staging = staging
        self._registry = registry
        self._lifecycle = lifecycle

    # To another server

    async def send(self, place: Place, wish: api.VolumePost) -> Operation:
        """Start the migration of a volume: to a server that comes, or one that waits.

        Raises NotFound, BadRequest, NotSupported for a disk.
        """
        check_custom(place.kind)
        async with self._db.read() as session:
            _check_content((await find(session, place)).content_type)

        async def work(operation: Operation, control: Channel, fs: Channel) -> None:
            async with self._exports.still(place, volume_only=wish.volume_only) as still:
                storage = self._pools.storage
                sending = Sending(storage, self._staging, still.pool, fs, operation)
                headers = [_header(each) for each in still.snapshots]
                await sending.all(control, still.volume, headers, _index(still.about))

        return meetings.meet(
            self._registry, "Migrating storage volume", work, peer_of(wish.target),
            project=place.project, resources={"storage_volumes": [place.path]},
        )  # fmt: skip

    # From another server

    async def receive(self, pool_name: str, project: str, wish: api.VolumesPost) -> Operation:
        """Start the migration to here: from a server that waits (pull), or comes (push).

        Raises BadRequest, NotFound, Conflict when the volume exists, NotSupported for a disk.
        """
        source = wish.source or api.VolumeSource()
        check_custom(wish.type or "custom")
        _check_content(wish.content_type or ContentType.FILESYSTEM)
        mode = source.mode or "pull"
        if mode not in ("pull", "push"):
            raise BadRequest(f'Mode "{mode}" not implemented: use pull or push')
        place = custom(pool_name, check_name(wish.name), project)
        record = await self._record(place, wish)
        refreshes = source.refresh and await self._exists(place)
        if not refreshes:
            await self._volumes.check_free(place)

        async def work(operation: Operation, control: Channel, fs: Channel) -> None:
            pool = await self._pools.pool(place.pool)
            receiving = Receiving(
                self._pools.storage, self._staging, pool, fs, operation, place.name
            )
            if refreshes:
                await self._refresh(control, receiving, pool, place, alone=source.volume_only)
            else:
                await self._create(control, receiving, pool, record)
            action = "updated" if refreshes else "created"
            self._lifecycle.emit(f"storage-volume-{action}", place.path, project)

        peer = Peer(source.operation, source.secrets or {}, source.certificate)
        return meetings.meet(
            self._registry, "Creating storage volume", work, peer if mode == "pull" else None,
            project=project, resources={"storage_volumes": [place.path]},
        )  # fmt: skip

    async def _record(self, place: Place, wish: api.VolumesPost) -> Record:
        pool = await self._pools.pool(place.pool)
        config = portable(pool, given(wish.config))
        check_options(ContentType.FILESYSTEM, config)
        self._pools.storage.validate_volume(pool, config)
        await self._volumes.check_allowed(place, config)
        return Record(place, ContentType.FILESYSTEM, config, wish.description)

    async def _exists(self, place: Place) -> bool:
        async with self._db.read() as session:
            return await queries.find(session, place.pool, place.project, place.name) is not None

    async def _create(
        self, control: Channel, receiving: Receiving, pool: Pool, record: Record
    ) -> None:
        offer = await meetings.header(control)
        answer = receiving.answer(offer, refresh=None)
        await control.send(answer.encode())

        async def transfer() -> None:
            index = await receiving.description(answer)
            whole = replace(record, snapshots=tuple(_records(answer.snapshots, index)))
            async with self._locks.hold(*record.place.key):
                await self._volumes.check_free(record.place)
                async with self._files.making(whole) as intent:
                    await receiving.new(whole.volume, offer, answer)
                    async with self._files.or_removed(pool, whole.volume):
                        await self._files.insert(whole, ends=intent)

        await meetings.receive_all(control, transfer())

    async def _refresh(
        self, control: Channel, receiving: Receiving, pool: Pool, place: Place, *, alone: bool
    ) -> None:
        """Make a volume at rest what the source is; its files change on a copy first."""
        async with self._db.read() as session:
            row = await find(session, place)
            have = {each.name: each for each in await queries.snapshots(session, row.id)}
        volume = stored(row)
        async with self._users.locked(pool, volume, place):
            await self._users.check_at_rest(pool, volume, "A volume cannot be refreshed")
            offer = await meetings.header(control)
            needed = [each for each in offer.snapshots if not _is_here(each, have)]
            answer = receiving.answer(offer, refresh=needed)
            await control.send(answer.encode())

            async def transfer() -> None:
                index = await receiving.description(answer)
                stale = {each.name for each in needed}
                if not alone:
                    offered = {each.name for each in offer.snapshots}
                    stale |= have.keys() - offered
                for name in stale & have.keys():
                    snapshot = volume.at(name)
                    await self._files.delete_snapshot(pool, place, snapshot, have[name].id)
                async with self._copy(pool, place, row) as copy:
                    await self._take(receiving, offer, answer, pool, place, volume, copy, index)

            await meetings.receive_all(control, transfer())

    @asynccontextmanager
    async def _copy(self, pool: Pool, place: Place, row: VolumeRow) -> AsyncIterator[Volume]:
        """Copy a volume to one that nobody sees, for the length of a block."""
        hidden = place.named(f"refresh-{token_hex(8)}")
        record = Record(hidden, row.content_type, row.config)
        async with self._files.making(record) as intent:
            try:
                await self._pools.storage.copy(pool, stored(row), pool, record.volume)
                yield record.volume
            finally:
                await self._pools.storage.delete_volume(pool, record.volume)
            await self._journal.end(intent)

    async def _take(
        self,
        receiving: Receiving,
        offer: Header,
        answer: Header,
        pool: Pool,
        place: Place,
        volume: Volume,
        copy: Volume,
        index: Mapping[str, Any],
    ) -> None:
        """Receive snapshots and content into a copy; the volume gets them of that."""
        storage, hidden = self._pools.storage, f"refresh-{token_hex(8)}"
        records = list(_records(answer.snapshots, index))
        async with self._journal.undoable(
            "volume-refresh", place.project, place.name,
            pool=place.pool, hidden=hidden, snapshots=[hidden, *(r.name for r in records)],
        ) as intent:  # fmt: skip
            made: list[Volume] = []
            try:
                for name in (*(each.name for each in records), hidden):
                    await receiving.step(copy, offer, answer)
                    await storage.copy(pool, copy, pool, volume.at(name))
                    made.append(volume.at(name))
                await self._files.restored(pool, volume, hidden)
                await storage.delete_volume(pool, made.pop())
                await self._files.add_snapshots(place, records, ends=intent)
            except BaseException:
                for each in made:
                    await storage.delete_volume(pool, each)
                raise


def _check_content(content: str) -> None:
    if content != ContentType.FILESYSTEM:
        raise NotSupported(
            f'Storage volumes of content type "{content}" go to other servers as exports: use '
            "lxpy storage volume export and import"
        )


def _header(row: VolumeSnapshotRow) -> SnapshotHeader:
    return SnapshotHeader(row.name, made=int(row.created_at.timestamp()))


def _is_here(offered: SnapshotHeader, have: Mapping[str, VolumeSnapshotRow]) -> bool:
    found = have.get(offered.name)
    if found is None:
        return False
    return not offered.made or int(found.created_at.timestamp()) == offered.made


def _index(about: Mapping[str, Any]) -> dict[str, Any]:
    snapshots = [
        {**each, "name": str(each["name"]).rpartition("/")[2]} for each in about["volume_snapshots"]
    ]
    return {"Volume": about["volume"], "VolumeSnapshots": snapshots}


def _records(
    headers: Iterable[SnapshotHeader], index: Mapping[str, Any]
) -> Iterable[SnapshotRecord]:
    """Yield the rows of snapshots that come. Raises BadRequest, Failed for what cannot be one."""
    told = by_name(index.get("VolumeSnapshots"))
    for header in headers:
        found = told.get(header.name, {})
        yield SnapshotRecord(
            check_snapshot_name(header.name),
            moment(found.get("created_at")) or datetime.now(UTC),
            moment(found.get("expires_at")),
            str(found.get("description") or ""),
            strings(found.get("config"), f'the config of snapshot "{header.name}"'),
        )
