"""`/1.0/storage-pools` and the volumes below."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from aiohttp import web

from lxpy.api import backups as backups_api
from lxpy.api import storage as api
from lxpy.daemon import http
from lxpy.daemon.routes.backups import receive, send
from lxpy.errors import BadRequest, NotSupported
from lxpy.events.lifecycle import url
from lxpy.operations.registry import Operation
from lxpy.services.projects.scopes import Feature
from lxpy.services.storage.backups import VolumeBackups
from lxpy.services.storage.copies import VolumeCopies
from lxpy.services.storage.exports import VolumeExports
from lxpy.services.storage.imports import VolumeImports
from lxpy.services.storage.migration import VolumeMigration
from lxpy.services.storage.places import Place, check_type
from lxpy.services.storage.pools import Pools
from lxpy.services.storage.snapshots import VolumeSnapshots
from lxpy.services.storage.volumes import Volumes
from lxpy.units import is_true

_PATH = "/1.0/storage-pools"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Services:
    """What works on volumes."""

    volumes: Volumes
    snapshots: VolumeSnapshots
    copies: VolumeCopies
    imports: VolumeImports
    exports: VolumeExports
    backups: VolumeBackups
    migration: VolumeMigration


class Handlers:
    """The handlers."""

    def __init__(self, service: Pools) -> None:
        self._service = service

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        return http.listing(request, _PATH, await self._service.list())

    async def create(self, request: web.Request) -> web.Response:
        """Make a pool."""
        wish = await http.body(request, api.PoolsPost)
        await self._service.create(wish)
        return http.created(f"{_PATH}/{wish.name}")

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one pool."""
        found, writable = await self._service.get(http.segment(request, "pool"))
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace a pool's writable part."""
        wish = await http.body(request, api.PoolPut)
        check = partial(http.check_match, request)
        await self._service.put(http.segment(request, "pool"), wish, check)
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.PoolPatch)
        check = partial(http.check_match, request)
        await self._service.patch(http.segment(request, "pool"), wish, check)
        return http.empty()

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a pool."""
        await self._service.delete(http.segment(request, "pool"))
        return http.empty()

    async def resources(self, request: web.Request) -> web.Response:
        """Reply with how full a pool is."""
        return http.sync(await self._service.resources(http.segment(request, "pool")))

    async def buckets(self, request: web.Request) -> web.Response:
        """Refuse: no driver has buckets."""
        found, _ = await self._service.get(http.segment(request, "pool"))
        raise NotSupported(
            f'Storage pool "{found.name}" of driver "{found.driver}" does not support buckets: run '
            "an S3 server in an instance, with a custom volume for its objects"
        )


class VolumeHandlers:
    """The handlers of what is in a pool."""

    def __init__(self, services: Services) -> None:
        self._volumes = services.volumes
        self._copies = services.copies
        self._imports = services.imports
        self._migration = services.migration

    async def list(self, request: web.Request) -> web.Response:
        """Reply with the volumes of a pool, or those of one type; snapshots are among them."""
        pool = http.segment(request, "pool")
        kind = request.match_info.get("type")
        if kind is not None:
            check_type(kind)
        project, owner = http.project_or_all(request), http.owner_or_all(request, Feature.VOLUMES)
        found = http.chosen(request, await self._volumes.list(pool, project, owner))
        chosen = [each for each in found if kind in (None, each.type)]
        if http.recursion(request):
            return http.sync(chosen)
        return http.sync([_url(pool, each) for each in chosen])

    async def create(self, request: web.Request) -> web.Response:
        """Make a custom volume; unlike other objects, LXD does not say where it is."""
        pool, project = http.segment(request, "pool"), http.owner(request, Feature.VOLUMES)
        if request.headers.get("Content-Type") == "application/octet-stream":
            return await self._receive(request)
        wish = await http.body(request, api.VolumesPost)
        wish.type = request.match_info.get("type", wish.type)
        if wish.source is not None and wish.source.type == "migration":
            return http.accepted(await self._migration.receive(pool, project, wish))
        if wish.source is not None and wish.source.type not in ("", "none"):
            return http.accepted(await self._copies.copy(pool, project, wish))
        await self._volumes.create(pool, project, wish)
        return http.empty()

    async def _receive(self, request: web.Request) -> web.Response:
        pool, project = http.segment(request, "pool"), http.owner(request, Feature.VOLUMES)
        kind, name = request.headers.get("X-LXD-type", ""), request.headers.get("X-LXD-name", "")
        if kind not in ("", "backup", "iso"):
            raise BadRequest(f'Invalid X-LXD-type "{kind}": use backup or iso')

        def take(chunks: AsyncIterator[bytes]) -> Awaitable[Operation]:
            if kind == "iso":
                return self._imports.iso(pool, project, name, chunks, request.content_length)
            return self._imports.backup(pool, project, name, chunks)

        return await receive(request, take)

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one volume."""
        found, writable = await self._volumes.get(_place(request))
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace a volume's writable part, or restore a snapshot."""
        wish = await http.body(request, api.VolumePut)
        await self._volumes.put(_place(request), wish, partial(http.check_match, request))
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.VolumePatch)
        await self._volumes.patch(_place(request), wish, partial(http.check_match, request))
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a volume, move it to another pool, or send it to another server."""
        wish = await http.body(request, api.VolumePost)
        place = _place(request)
        if wish.migration:
            return http.accepted(await self._migration.send(place, wish))
        elsewhere = wish.pool not in ("", place.pool) or wish.project not in ("", place.project)
        if elsewhere:
            return http.accepted(await self._copies.move(place, wish))
        await self._volumes.rename(place, wish)
        base = f"{_PATH}/{quote(place.pool)}/volumes/{place.kind}"
        return http.created(f"{base}/{quote(wish.name)}", place.project)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a volume."""
        await self._volumes.delete(_place(request))
        return http.empty()

    async def state(self, request: web.Request) -> web.Response:
        """Reply with how much a volume takes; null where that is not known without counting."""
        return http.sync({"usage": await self._volumes.usage(_place(request))})


class BackupHandlers:
    """The handlers of backups of volumes."""

    def __init__(self, services: Services) -> None:
        self._backups = services.backups
        self._exports = services.exports

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        place = _place(request)
        return http.listing(request, f"{place.path}/backups", await self._backups.list(place))

    async def create(self, request: web.Request) -> web.Response:
        """Make a backup."""
        wish = await http.body(request, backups_api.BackupsPost)
        how = await self._exports.wish(
            http.project(request), wish.compression_algorithm,
            volume_only=wish.volume_only, kept=True,
        )  # fmt: skip
        return http.accepted(await self._backups.create(_place(request), wish, how))

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one backup."""
        return http.sync(await self._backups.get(*_backup(request)))

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a backup."""
        wish = await http.body(request, backups_api.BackupPost)
        return http.accepted(await self._backups.rename(*_backup(request), wish))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a backup."""
        return http.accepted(await self._backups.delete(*_backup(request)))

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Reply with a backup's file."""
        path = await self._backups.path(*_backup(request))
        headers = {"Content-Type": "application/octet-stream"}
        return web.FileResponse(path, headers=headers, chunk_size=_CHUNK)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Reply with an archive that is made while it is sent."""
        alone = is_true(request.query.get("volume-only"))
        compression = request.query.get("compression", "")
        how = await self._exports.wish(http.project(request), compression, volume_only=alone)
        async with self._exports.stream(_place(request), how) as chunks:
            return await send(request, chunks)


class SnapshotHandlers:
    """The handlers of snapshots of volumes."""

    def __init__(self, snapshots: VolumeSnapshots) -> None:
        self._snapshots = snapshots

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        place = _place(request)
        return http.listing(request, f"{place.path}/snapshots", await self._snapshots.list(place))

    async def create(self, request: web.Request) -> web.Response:
        """Make a snapshot."""
        wish = await http.body(request, api.VolumeSnapshotsPost)
        return http.accepted(await self._snapshots.create(_place(request), wish))

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one snapshot."""
        found, writable = await self._snapshots.get(*_snapshot(request))
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace a snapshot's writable part."""
        wish = await http.body(request, api.VolumeSnapshotPut)
        check = partial(http.check_match, request)
        await self._snapshots.put(*_snapshot(request), wish, check)
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.VolumeSnapshotPatch)
        check = partial(http.check_match, request)
        await self._snapshots.patch(*_snapshot(request), wish, check)
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a snapshot."""
        wish = await http.body(request, api.VolumeSnapshotPost)
        return http.accepted(await self._snapshots.rename(*_snapshot(request), wish))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a snapshot."""
        return http.accepted(await self._snapshots.delete(*_snapshot(request)))


def _place(request: web.Request) -> Place:
    """Return the volume that a request is about."""
    pool, kind, name = (http.segment(request, part) for part in ("pool", "type", "volume"))
    if kind == "custom":
        return Place(pool, kind, name, http.owner(request, Feature.VOLUMES))
    return Place(pool, kind, name, http.project(request))


def _snapshot(request: web.Request) -> tuple[Place, str]:
    """Return the snapshot that a request is about."""
    return _place(request), http.segment(request, "snapshot")


def _backup(request: web.Request) -> tuple[Place, str]:
    """Return the backup that a request is about."""
    return _place(request), http.segment(request, "backup")


def _url(pool: str, volume: api.Volume) -> str:
    name, _, snapshot = volume.name.partition("/")
    path = f"{_PATH}/{quote(pool)}/volumes/{volume.type}/{quote(name)}"
    return url(f"{path}/snapshots/{quote(snapshot)}" if snapshot else path, volume.project)


def routes(pools: Pools, services: Services) -> list[web.RouteDef]:
    """Return the routes of storage."""
    handlers = Handlers(pools)
    pool = _PATH + "/{pool}"
    return [
        web.get(_PATH, handlers.list),
        web.post(_PATH, handlers.create),
        web.get(pool, handlers.get),
        web.put(pool, handlers.put),
        web.patch(pool, handlers.patch),
        web.delete(pool, handlers.delete),
        web.get(f"{pool}/resources", handlers.resources),
        web.route("*", f"{pool}/buckets{{rest:(/.*)?}}", handlers.buckets),
        *_volume_routes(VolumeHandlers(services), SnapshotHandlers(services.snapshots), pool),
        *_backup_routes(BackupHandlers(services), pool),
    ]


def _volume_routes(
    inside: VolumeHandlers, snapshots: SnapshotHandlers, pool: str
) -> list[web.RouteDef]:
    of_type = f"{pool}/volumes/{{type}}"
    volume = f"{of_type}/{{volume}}"
    snapshot = f"{volume}/snapshots/{{snapshot}}"
    return [
        web.get(f"{pool}/volumes", inside.list),
        web.post(f"{pool}/volumes", inside.create),
        web.get(of_type, inside.list),
        web.post(of_type, inside.create),
        web.get(volume, inside.get),
        web.put(volume, inside.put),
        web.patch(volume, inside.patch),
        web.post(volume, inside.rename),
        web.delete(volume, inside.delete),
        web.get(f"{volume}/state", inside.state),
        web.get(f"{volume}/snapshots", snapshots.list),
        web.post(f"{volume}/snapshots", snapshots.create),
        web.get(snapshot, snapshots.get),
        web.put(snapshot, snapshots.put),
        web.patch(snapshot, snapshots.patch),
        web.post(snapshot, snapshots.rename),
        web.delete(snapshot, snapshots.delete),
    ]


def _backup_routes(backups: BackupHandlers, pool: str) -> list[web.RouteDef]:
    volume = f"{pool}/volumes/{{type}}/{{volume}}"
    every = f"{volume}/backups"
    one = f"{every}/{{backup}}"
    return [
        web.get(every, backups.list),
        web.post(every, backups.create),
        web.get(one, backups.get),
        web.post(one, backups.rename),
        web.delete(one, backups.delete),
        web.get(f"{one}/export", backups.export),
        web.get(f"{volume}/export", backups.stream),
    ]
