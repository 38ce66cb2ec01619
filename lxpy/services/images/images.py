"""Images: uploaded, fetched, built, looked at, changed, deleted; made ready for instances.

Source: LXD docs, "REST API", "Images".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from msgspec import UNSET
from msgspec.structs import asdict

from lxpy.api import images as api
from lxpy.client.fetch import Unreachable
from lxpy.db.engine import Database
from lxpy.db.rows import ImageRow
from lxpy.errors import BadRequest, Failed, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.images.metadata import Metadata
from lxpy.images.progress import Progress, silent
from lxpy.images.remotes.lxd import LxdServer, Place
from lxpy.images.store import ImageStore, Stored
from lxpy.instances.expand import merge_patch
from lxpy.operations.registry import Operation, Registry
from lxpy.services.images import rows as image_rows
from lxpy.services.images.aliases import ImageAliases
from lxpy.services.images.records import ImageRecords
from lxpy.services.images.rows import (
    InstanceSource,
    Obtained,
    Wish,
    lasting,
    obtained,
    shown,
    writable,
)
from lxpy.services.images.sources import Fetched, ImageSources, Origin, is_fingerprint
from lxpy.services.images.tokens import ImageTokens
from lxpy.services.images.upkeep import CACHED, HOURS, INTERVAL, ImageUpkeep
from lxpy.services.projects.allowances import Allowances
from lxpy.services.projects.scopes import Feature, Scopes
from lxpy.services.server.settings import Settings
from lxpy.storage import Pool, StoragePools
from lxpy.units import is_true

Check = Callable[[Any], None]
Chunks = AsyncIterator[bytes]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Exported:
    """An image's files, and the names under which they are handed out."""

    files: list[tuple[str, Path]]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks: those who are not trusted see what is public, and what they have a secret of."""

    trusted: bool = True
    secret: str = ""


class Images:
    """The images of every project. `aliases` has their names, `sources` where they come from."""

    def __init__(
        self,
        db: Database,
        scopes: Scopes,
        store: ImageStore,
        storage: StoragePools,
        settings: Settings,
        registry: Registry,
        lifecycle: Lifecycle,
        cache: Path,
        allowances: Allowances,
    ) -> None:
        self.aliases = ImageAliases(db, lifecycle)
        self.tokens = ImageTokens(registry, lifecycle)
        self._records = ImageRecords(db, store, storage, lifecycle, allowances.check_image)
        self.sources = ImageSources(store, settings, cache, self._records.keeping)
        self.upkeep = ImageUpkeep(self._records, self.sources, settings, registry, self._fetch)
        self._db = db
        self._scopes = scopes
        self._store = store
        self._storage = storage
        self._settings = settings
        self._registry = registry

    async def start(self, *, complete: bool = True) -> None:
        """Make the store usable: what has files but no row, or was half received, is removed.

        Unless rows are `complete`, files without stay.
        """
        await self._records.sweep(complete=complete)
        await self.sources.start()

    # Looking at them

    async def everything(self, project: str | None, viewer: Viewer) -> list[api.Image]:
        """Return the images of a project, or of all of them, oldest first."""
        rows = [row for row in await self._records.all_of(project) if viewer.trusted or row.public]
        if project is not None:
            return [shown(row) for row in rows]
        return [api.ProjectImage(**asdict(shown(row)), project=row.project) for row in rows]

    async def get(self, project: str, prefix: str, viewer: Viewer) -> tuple[api.Image, list[Any]]:
        """Return an image, and what its ETag stands for. Raises NotFound, BadRequest."""
        row = await self._visible(project, prefix, viewer)
        return shown(row), writable(row)

    async def export(self, project: str, prefix: str, viewer: Viewer) -> Exported:
        """Return an image's files. Raises NotFound, BadRequest."""
        row = await self._visible(project, prefix, viewer)
        stored = await self._store.stored(row.fingerprint)
        self._records.tell("retrieved", project, row.fingerprint)
        return Exported(list(zip(await self._names(stored), stored.files, strict=True)))

    async def alias(self, project: str, name: str, viewer: Viewer) -> api.AliasEntry:
        """Return an alias; those of images that are not public only to the trusted.

        Raises NotFound.
        """
        found = await self.aliases.get(project, name)
        if not viewer.trusted and not (await self._records.row(project, found.target)).public:
            raise NotFound("Image alias not found")
        return found

    async def _visible(self, project: str, prefix: str, viewer: Viewer) -> ImageRow:
        """Return an image that the viewer may see. Raises NotFound, BadRequest."""
        if viewer.trusted:
            return await self._records.row(project, prefix)
        if self.tokens.redeem(project, prefix, viewer.secret) is not None:
            return await self._records.row(project, prefix)
        return await self._records.row(project, prefix, public=True)

    async def _names(self, stored: Stored) -> list[str]:
        """Return the names under which an image's files are handed out."""
        suffixes = await self._store.suffixes(stored)
        names = [f"{stored.fingerprint}{each}" for each in suffixes]
        if stored.is_split:
            names[0] = f"meta-{names[0]}"
        return names

    # Changing them

    async def put(self, project: str, prefix: str, wish: api.ImagePut, check: Check) -> None:
        """Replace the writable part. Raises NotFound, BadRequest."""
        async with self._db.write() as session:
            row = await image_rows.find(session, project, prefix)
            check(writable(row))
            row.public = wish.public
            row.auto_update = wish.auto_update
            row.properties = merge_patch({}, wish.properties)
            row.expires_at = lasting(wish.expires_at)
            if wish.profiles is not None:
                row.profiles = wish.profiles
        self._records.tell("updated", project, row.fingerprint)

    async def patch(self, project: str, prefix: str, wish: api.ImagePatch, check: Check) -> None:
        """Change what is given. Raises NotFound, BadRequest."""
        async with self._db.write() as session:
            row = await image_rows.find(session, project, prefix)
            check(writable(row))
            if wish.public is not UNSET:
                row.public = wish.public
            if wish.auto_update is not UNSET:
                row.auto_update = wish.auto_update
            if wish.properties is not UNSET:
                row.properties = merge_patch(row.properties, wish.properties or {})
            if wish.expires_at is not UNSET:
                row.expires_at = lasting(wish.expires_at)
            if wish.profiles is not UNSET:
                row.profiles = wish.profiles or []
        self._records.tell("updated", project, row.fingerprint)

    async def delete(self, project: str, prefix: str) -> Operation:
        """Start deleting an image. Raises NotFound, BadRequest."""
        fingerprint = (await self._records.row(project, prefix)).fingerprint

        async def work(_: Operation) -> None:
            await self._records.delete(project, fingerprint)

        return self._spawn("Deleting image", work, project, fingerprint)

    # New ones

    async def upload_unified(
        self, project: str, chunks: Chunks, wish: Wish, expected: str, *, waiter: str = ""
    ) -> Operation:
        """Receive an image of one file, then check it; `waiter` is a secret to wait for that.

        Raises Failed when the disk is full.
        """
        await self._records.check(project, wish)
        stored = await self._store.receive_unified(chunks, expected or None)
        return self._adopt(project, stored, wish, waiter)

    async def upload_split(
        self,
        project: str,
        meta: Chunks,
        rootfs: Chunks,
        wish: Wish,
        expected: str,
        *,
        waiter: str = "",
    ) -> Operation:
        """Receive an image of two files, then check it; `waiter` is a secret to wait for that.

        Raises Failed when the disk is full.
        """
        await self._records.check(project, wish)
        stored = await self._store.receive_split(meta, rootfs, expected or None)
        return self._adopt(project, stored, wish, waiter)

    async def create(self, project: str, wish: api.ImagesPost) -> Operation:
        """Start fetching or building an image.

        Raises BadRequest for a source that cannot be one, NotFound for an unknown recipe,
        Conflict for an alias that is taken, NotSupported.
        """
        source = wish.source
        new = _new(wish)
        await self._records.check(project, new)
        if source.mode == "push":
            return self._await_push(project, wish)
        if source.type == "url":
            if not source.url:
                raise BadRequest("Missing URL")
            return self._fetch_url(project, source.url, new)
        if source.type != "image" or source.mode not in ("", "pull"):
            raise BadRequest(
                f'Invalid images source "{source.type}" with mode "{source.mode}": '
                "use an image in mode pull, or a url"
            )
        origin = self.sources.origin(project, source)

        async def work(operation: Operation) -> None:
            row: ImageRow | None = None
            if origin.protocol != "build":
                row = await self._cached(project, origin)
            if row is None:
                row = await self._fetch(project, origin, new, operation.progress)
            else:
                await self._records.claim(project, row.fingerprint, new)
            _report(operation, row.fingerprint, row.size_bytes)

        return self._spawn("Downloading image", work, project, cancellable=True)

    async def check(self, project: str, wish: api.ImagesPost) -> None:
        """Raise Conflict for an alias that is taken, BadRequest for one that cannot be."""
        await self._records.check(self._owner(project), _new(wish))

    async def keep(
        self, project: str, chunks: Chunks, found: Metadata, wish: api.ImagesPost
    ) -> api.Image:
        """Store an image that this daemon packs, whose content needs no check, and record it.

        Raises Failed for one that is there already or a full disk, Conflict for an alias.
        """
        stored = await self._store.receive_unified(chunks)
        async with self._records.keeping(stored.fingerprint):
            return shown(
                await self._records.add(
                    self._owner(project), stored, found, _new(wish), claim=False
                )
            )

    # For instances

    async def resolve(self, project: str, source: InstanceSource) -> None:
        """Check up front what can be checked of a new instance's image.

        Raises NotFound for an unknown alias or recipe, BadRequest, NotSupported.
        """
        if source.protocol or source.server:
            self.sources.origin(project, source)
        elif source.alias:
            await self.aliases.get(self._owner(project), source.alias)
        elif not source.fingerprint and not source.properties:
            raise BadRequest("Must specify one of alias, fingerprint or properties for init")

    async def obtain(
        self,
        project: str,
        source: InstanceSource,
        operation: Operation,
        used: AsyncExitStack,
    ) -> Obtained:
        """Return a new instance's image; one that is not here is fetched or built, and cached.

        Its files stay until `used` ends. Raises Failed, NotFound and others that say why there is
        none.
        """
        while True:
            removals = self._records.removals
            row = await self._wanted(self._owner(project), source, operation.progress)
            await used.enter_async_context(self._records.keeping(row.fingerprint))
            if removals == self._records.removals:
                await self._records.touch(row)
                return obtained(row)

    async def _wanted(self, project: str, source: InstanceSource, progress: Progress) -> ImageRow:
        if not source.protocol and not source.server:
            return await self._records.local(project, source)
        origin = self.sources.origin(project, source)
        known = await self._cached(project, origin)
        fresh = is_true(self._settings.get(CACHED, "true", project=project))
        wish = Wish(cached=True, auto_update=fresh)
        return known or await self._fetch(project, origin, wish, progress)

    async def ensure_on_pool(
        self, pool: Pool, fingerprint: str, progress: Progress = silent
    ) -> None:
        """Have an image unpacked on a pool. Raises Failed, NotFound when its files are gone."""

        async def unpack(target: Path) -> None:
            await self._store.unpack(fingerprint, target, progress)

        await self._storage.ensure_image(pool, fingerprint, unpack)

    def _owner(self, project: str) -> str:
        return self._scopes.owner(Feature.IMAGES, project)

    # From server to server

    async def secret(self, project: str, prefix: str) -> Operation:
        """Return a token with which an image may be fetched by anyone. Raises NotFound."""
        row = await self._records.row(project, prefix)
        return self.tokens.issue(project, row.fingerprint)

    def _await_push(self, project: str, wish: api.ImagesPost) -> Operation:
        """Return a token with which another server may send an image. Raises BadRequest."""
        if not is_fingerprint(wish.source.fingerprint):
            raise BadRequest("Missing or invalid fingerprint of the image that is to be pushed")
        metadata = {
            "aliases": wish.aliases,
            "expires_at": wish.expires_at or api.NEVER,
            "properties": wish.properties,
            "public": wish.public,
        }
        return self.tokens.issue(project, wish.source.fingerprint, metadata)

    async def push(self, project: str, prefix: str, wish: api.ImageExportPost) -> Operation:
        """Start sending an image to a server that awaits it. Raises NotFound, BadRequest."""
        row = await self._records.row(project, prefix)
        stored = await self._store.stored(row.fingerprint)
        place = Place(wish.target, wish.certificate, wish.project, wish.secret)
        server, profiles = LxdServer(place), wish.profiles or []

        async def work(operation: Operation) -> None:
            await server.push(stored, await self._names(stored), profiles, operation.progress)

        return self._spawn("Downloading image", work, project, cancellable=True)

    async def refresh(self, project: str, prefix: str) -> Operation:
        """Start fetching an image anew where it came from. Raises NotFound, BadRequest."""
        fingerprint = (await self._records.row(project, prefix)).fingerprint

        async def work(operation: Operation) -> None:
            refreshed = await self.upkeep.refresh(project, fingerprint, operation.progress)
            operation.update(refreshed=refreshed)

        return self._spawn("Refreshing image", work, project, fingerprint, cancellable=True)

    # The work

    async def _cached(self, project: str, origin: Origin) -> ImageRow | None:
        """Return the image that has come from there before: one that is kept up to date, or,
        the server being asked, is the newest."""
        if origin.fingerprint:
            return await self._records.from_source(project, origin.fingerprint, {})
        if int(self._settings.get(INTERVAL, HOURS, project=project)):
            kept = await self._records.from_source(project, None, origin.update_source())
            if kept is not None and kept.auto_update:
                return kept
        try:
            offered = await self.sources.offered(origin)
        except Unreachable as error:
            _log.info("image server does not answer", error=str(error))
            offered = None
        return await self._records.from_source(project, offered, origin.update_source())

    async def _fetch(
        self, project: str, origin: Origin, wish: Wish, progress: Progress
    ) -> ImageRow:
        fetched = await self.sources.fetch(origin, progress)
        return await self._record(project, fetched, wish, origin.update_source())

    async def _record(
        self, project: str, fetched: Fetched, wish: Wish, source: dict[str, str]
    ) -> ImageRow:
        """Record an image; one that another request has recorded meanwhile is used, too."""
        full = replace(
            wish,
            auto_update=wish.auto_update and bool(source),
            filename=wish.filename or fetched.filename,
            properties={**fetched.properties, **wish.properties},
            update_source=source,
        )
        stored = fetched.stored
        async with self._records.keeping(stored.fingerprint):
            return await self._records.add(project, stored, fetched.metadata, full, claim=True)

    def _adopt(self, project: str, stored: Stored, wish: Wish, waiter: str) -> Operation:
        """Start recording an image that was uploaded."""

        async def work(operation: Operation) -> None:
            _report(operation, stored.fingerprint, stored.size_bytes)
            if await self._records.knows(project, stored.fingerprint):
                raise Failed("Image with same fingerprint already exists")
            async with self._records.keeping(stored.fingerprint):
                found = await self.sources.checked(stored)
                await self._records.add(project, stored, found, wish, claim=False)

        metadata = {"secret": waiter} if waiter else {}
        return self._registry.spawn("Downloading image", work, project=project, metadata=metadata)

    def _fetch_url(self, project: str, url: str, wish: Wish) -> Operation:
        async def work(operation: Operation) -> None:
            fetched = await self.sources.fetch_url(url, operation.progress)
            row = await self._record(project, fetched, wish, {})
            _report(operation, row.fingerprint, row.size_bytes)

        return self._spawn("Downloading image", work, project, cancellable=True)

    def _spawn(
        self,
        description: str,
        work: Callable[[Operation], Any],
        project: str,
        fingerprint: str = "",
        *,
        cancellable: bool = False,
    ) -> Operation:
        resources = {"images": [f"/1.0/images/{fingerprint}"]} if fingerprint else {}
        return self._registry.spawn(
            description, work, project=project, resources=resources, cancellable=cancellable
        )


def _report(operation: Operation, fingerprint: str, size_bytes: int) -> None:
    operation.update(fingerprint=fingerprint, size=str(size_bytes))


def _new(wish: api.ImagesPost) -> Wish:
    """Return what a request says of a new image."""
    return Wish(
        filename=wish.filename,
        public=wish.public,
        auto_update=wish.auto_update,
        properties=wish.properties or {},
        profiles=wish.profiles or ["default"],
        expires_at=lasting(wish.expires_at),
        aliases=wish.aliases or [],
    )
