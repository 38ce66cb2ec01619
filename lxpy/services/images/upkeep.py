"""Images as time goes by: newer ones are fetched, and what nobody has used for long is deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from lxpy.db.base import now
from lxpy.db.rows import ImageRow
from lxpy.errors import LxpyError
from lxpy.images.progress import Progress
from lxpy.operations.registry import Operation, Registry
from lxpy.services.images.records import ImageRecords
from lxpy.services.images.rows import Wish
from lxpy.services.images.sources import ImageSources, Origin
from lxpy.services.locks import Locks
from lxpy.services.server.settings import Settings
from lxpy.units import is_true

#: whether images that were fetched for an instance are kept up to date
CACHED = "images.auto_update_cached"
INTERVAL, _EXPIRY = "images.auto_update_interval", "images.remote_cache_expiry"
_KEYS = {CACHED, INTERVAL, _EXPIRY}
HOURS, _DAYS = "6", "10"
_TURN_S = 3600
_GRACE = timedelta(days=1)  # an image that its publisher calls obsolete, but that is in use

#: fetches what an origin has and records it for a project
Fetch = Callable[[str, Origin, Wish, Progress], Awaitable[ImageRow]]

_log = structlog.get_logger()


class ImageUpkeep:
    """Keeps the images of every project fresh, and the cache small."""

    def __init__(
        self,
        records: ImageRecords,
        sources: ImageSources,
        settings: Settings,
        registry: Registry,
        fetch: Fetch,
    ) -> None:
        self._records = records
        self._sources = sources
        self._settings = settings
        self._registry = registry
        self._fetch = fetch
        self._locks = Locks()
        self._wake = asyncio.Event()
        self._looked: dict[str, datetime] = {}
        settings.on_change.append(self._settings_changed)

    async def maintain(self) -> None:
        """Look after the images now, every hour, and when the settings have changed; for ever."""
        while True:
            self._wake.clear()
            await self._turn()
            try:
                async with asyncio.timeout(_TURN_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def prune(self) -> None:
        """Delete cached images that nobody has used for `images.remote_cache_expiry` days.

        0 is never. One that its publisher calls obsolete goes a day after its last use.
        """
        expired = [row for row in await self._records.cached() if self._is_stale(row, now())]

        async def work(_: Operation) -> None:
            for row in expired:
                _log.info("cached image expired", project=row.project, image=row.fingerprint)
                await self._records.delete(row.project, row.fingerprint)

        if expired:
            await self._registry.spawn("Cleaning up expired images", work).wait()

    async def update(self) -> None:
        """Fetch newer ones of the images that are to be kept up to date, where it is time."""
        rows = [
            row for row in await self._records.updated() if row.update_source and self._follows(row)
        ]
        due = {each for each in {row.project for row in rows} if self._is_due(each)}
        self._looked |= dict.fromkeys(due, now())
        rows = [row for row in rows if row.project in due]

        async def work(operation: Operation) -> None:
            for row in rows:
                try:
                    await self.refresh(row.project, row.fingerprint, operation.progress)
                except LxpyError as error:
                    _log.warning("image not updated", image=row.fingerprint, error=str(error))

        if rows:
            await self._registry.spawn("Updating images", work, cancellable=True).wait()

    async def refresh(self, project: str, fingerprint: str, progress: Progress) -> bool:
        """Fetch an image anew; a newer one takes its place. Tell whether there was one.

        Instances of the old one keep it. Killed in the middle, both are there, and the next
        refresh goes on. Raises NotFound, BadRequest for an image without source, Failed.
        """
        async with self._locks.hold("refresh", project, fingerprint):
            row = await self._records.row(project, fingerprint)
            origin = self._sources.wanted(project, Origin.of(row.update_source))
            if await self._sources.offered(origin) == fingerprint:
                return False
            wish = Wish(
                public=row.public, auto_update=row.auto_update, cached=row.cached,
                profiles=row.profiles,
            )  # fmt: skip
            new = (await self._fetch(project, origin, wish, progress)).fingerprint
            if new == fingerprint:
                return False
            await self._records.replace(project, fingerprint, new)
            self._records.tell("refreshed", project, new)
            return True

    async def _turn(self) -> None:
        try:
            await self.prune()
            await self.update()
        except LxpyError as error:
            _log.warning("images not looked after", error=str(error))

    def _follows(self, row: ImageRow) -> bool:
        fresh = self._settings.get(CACHED, "true", project=row.project)
        return not row.cached or is_true(fresh)

    def _is_due(self, project: str) -> bool:
        hours = int(self._settings.get(INTERVAL, HOURS, project=project))
        looked = self._looked.get(project)
        return hours > 0 and (looked is None or now() - looked >= timedelta(hours=hours))

    def _is_stale(self, row: ImageRow, at: datetime) -> bool:
        used = row.last_used_at or row.uploaded_at
        days = int(self._settings.get(_EXPIRY, _DAYS, project=row.project))
        if days and used < at - timedelta(days=days):
            return True
        return row.expires_at is not None and row.expires_at < at and used < at - _GRACE

    def _settings_changed(self, keys: set[str]) -> None:
        if keys & _KEYS:
            self._looked.clear()
            self._wake.set()
