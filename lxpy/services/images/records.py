"""Images in the database, together with their files and their unpacked copies on pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db import images as queries
from lxpy.db import pools as pool_queries
from lxpy.db.base import now
from lxpy.db.engine import Database
from lxpy.db.rows import ImageRow
from lxpy.errors import Failed, LxpyError, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.images.metadata import Metadata
from lxpy.images.store import ImageStore, Stored
from lxpy.services.images import rows as image_rows
from lxpy.services.images.rows import InstanceSource, Wish
from lxpy.services.locks import Locks
from lxpy.storage import Pool, StoragePools

_log = structlog.get_logger()

_TOUCH = timedelta(minutes=1)  # how exact last_used_at is: a write for each launch would cost


class ImageRecords:
    """Finds, adds and deletes images; row and files come and go together."""

    def __init__(
        self,
        db: Database,
        store: ImageStore,
        storage: StoragePools,
        lifecycle: Lifecycle,
        allows: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._db = db
        self._store = store
        self._storage = storage
        self._lifecycle = lifecycle
        self._allows = allows
        self._locks = Locks()
        self._keeping: Counter[str] = Counter()
        self._struck: set[str] = set()
        #: how often files went, or were about to; who sees it change looks again
        self.removals = 0

    async def sweep(self, *, complete: bool) -> None:
        """Make the store usable: what was half received is removed.

        So is what has files, or is unpacked on a pool, but has no row, if rows are `complete`.
        """
        async with self._db.read() as session:
            known = await queries.fingerprints(session)
            pools = await self._pools(session)
        await self._store.sweep(known if complete else None)
        for pool in pools if complete else ():
            try:
                for each in set(await self._storage.images(pool)) - known:
                    await self._storage.delete_image(pool, each)
            except (LxpyError, OSError) as error:
                _log.warning("unpacked images stay", pool=pool.name, error=str(error))

    async def row(self, project: str, prefix: str, *, public: bool = False) -> ImageRow:
        """Return the (`public`) image that a fingerprint begins with.

        Raises NotFound, BadRequest.
        """
        async with self._db.read() as session:
            return await image_rows.find(session, project, prefix, public=public)

    async def all_of(self, project: str | None) -> list[ImageRow]:
        """Return the images of a project, or of all of them, oldest first."""
        async with self._db.read() as session:
            return list(await queries.all_of(session, project))

    async def cached(self) -> list[ImageRow]:
        """Return the images of all projects that are only cached."""
        async with self._db.read() as session:
            return list(await queries.cached(session))

    async def updated(self) -> list[ImageRow]:
        """Return the images of all projects that are to be kept up to date."""
        async with self._db.read() as session:
            return list(await queries.updated(session))

    async def check(self, project: str, wish: Wish) -> None:
        """Raise Conflict for an alias that is taken, BadRequest for one that cannot be."""
        async with self._db.read() as session:
            await image_rows.check_aliases(session, project, wish.aliases)

    async def local(self, project: str, source: InstanceSource) -> ImageRow:
        """Return the image for a new instance. Raises NotFound for the alias, Failed."""
        async with self._db.read() as session:
            if source.alias:
                alias = await queries.alias(session, project, source.alias)
                if alias is None:
                    raise NotFound("Image alias not found")
                return alias.image
            if source.fingerprint:
                found = await queries.by_prefix(session, project, source.fingerprint)
            else:
                wanted = (source.properties or {}).items()
                images = await queries.all_of(session, project)
                found = [row for row in reversed(images) if wanted <= row.properties.items()][:1]
        if len(found) != 1:
            what = source.fingerprint or source.properties
            number = "more than one image matches" if found else "no image matches"
            raise Failed(f"Image not provided for instance creation: {number} {what}")
        return found[0]

    async def from_source(
        self, project: str, fingerprint: str | None, update_source: dict[str, str]
    ) -> ImageRow | None:
        """Return the image with that fingerprint, or the newest that came from that source."""
        async with self._db.read() as session:
            if fingerprint is not None:
                return await queries.find(session, project, fingerprint)
            images = await queries.all_of(session, project)
        return next((row for row in reversed(images) if row.update_source == update_source), None)

    async def add(
        self, project: str, stored: Stored, found: Metadata, wish: Wish, *, claim: bool
    ) -> ImageRow:
        """Record an image whose files are in the store.

        One that is recorded already is claimed, or refused with Failed. Raises Conflict for an
        alias that is taken, NotFound when somebody has deleted the files meanwhile, Failed when
        the project has no room for it.
        """
        fingerprint = stored.fingerprint
        async with self._locks.hold("image", fingerprint):
            if await self.knows(project, fingerprint):
                if not claim:
                    raise Failed("Image with same fingerprint already exists")
                return await self.claim(project, fingerprint, wish)
            await self._allows(project, stored.size_bytes)
            await self._store.stored(fingerprint)
            async with self._db.write() as session:
                row = await image_rows.insert(session, project, stored, found, wish)
        self.tell("created", project, fingerprint, {"type": "container"})
        return row

    @asynccontextmanager
    async def keeping(self, fingerprint: str) -> AsyncIterator[None]:
        """Keep an image's files for the length of a block, even if it is deleted meanwhile.

        After the last of such blocks the files go if no project has the image, and it was deleted
        or the block has failed.
        """
        self._keeping[fingerprint] += 1
        try:
            yield
        except BaseException:
            self._struck.add(fingerprint)
            raise
        finally:
            self._keeping[fingerprint] -= 1
            if not self._keeping[fingerprint]:
                del self._keeping[fingerprint]
                if fingerprint in self._struck:
                    await self._drop(fingerprint)

    async def _drop(self, fingerprint: str) -> None:
        async with self._locks.hold("image", fingerprint):
            self._struck.discard(fingerprint)
            async with self._db.read() as session:
                known = await queries.is_known(session, fingerprint)
                pools = await self._pools(session)
            if not known:
                await self._remove(fingerprint, pools)

    async def knows(self, project: str, fingerprint: str) -> bool:
        """Tell whether a project has this image."""
        async with self._db.read() as session:
            return await queries.find(session, project, fingerprint) is not None

    async def claim(self, project: str, fingerprint: str, wish: Wish) -> ImageRow:
        """Give an image that is here what a request wants of it. Raises NotFound, Conflict."""
        async with self._db.write() as session:
            row = await image_rows.find(session, project, fingerprint)
            await image_rows.check_aliases(session, project, wish.aliases)
            image_rows.claim(project, row, wish)
        return row

    async def replace(self, project: str, old: str, new: str) -> None:
        """Let a newer image take over an older one's names and use, and delete that.

        Raises NotFound.
        """
        async with self._locks.hold("image", old):
            async with self._db.write(frees=True) as session:
                row = await image_rows.find(session, project, old)
                image_rows.succeed(await image_rows.find(session, project, new), row)
                await session.flush()
                pools = await self._strike(session, row)
            await self._remove(old, pools)
        self.tell("deleted", project, old)

    async def delete(self, project: str, fingerprint: str) -> None:
        """Delete an image; files and unpacked copies go with the last project's.

        Raises NotFound.
        """
        async with self._locks.hold("image", fingerprint):
            async with self._db.write(frees=True) as session:
                row = await queries.find(session, project, fingerprint)
                if row is None:
                    raise NotFound("Image not found")
                pools = await self._strike(session, row)
            await self._remove(fingerprint, pools)
        self.tell("deleted", project, fingerprint)

    async def _strike(self, session: AsyncSession, row: ImageRow) -> list[Pool] | None:
        """Delete a row; return the pools that may have the image, None if it is used elsewhere."""
        shared = await queries.users_elsewhere(session, row.fingerprint, row.id)
        await session.delete(row)
        return None if shared else await self._pools(session)

    async def _pools(self, session: AsyncSession) -> list[Pool]:
        return [
            self._storage.pool(each.name, each.driver, each.config)
            for each in await pool_queries.everything(session)
        ]

    async def _remove(self, fingerprint: str, pools: list[Pool] | None) -> None:
        """Remove the files and unpacked copies, or leave that to who keeps them."""
        if pools is None:
            return
        self.removals += 1
        if fingerprint in self._keeping:
            self._struck.add(fingerprint)
            return
        await self._store.delete(fingerprint)
        for pool in pools:
            await self._storage.delete_image(pool, fingerprint)

    async def touch(self, row: ImageRow) -> None:
        """Note that an image has been used."""
        if row.last_used_at is not None and now() - row.last_used_at < _TOUCH:
            return
        async with self._db.write() as session:
            found = await queries.find(session, row.project, row.fingerprint)
            if found is not None:
                found.last_used_at = now()

    def tell(
        self, action: str, project: str, fingerprint: str, context: dict[str, Any] | None = None
    ) -> None:
        """Send a lifecycle event."""
        self._lifecycle.emit(f"image-{action}", f"/1.0/images/{fingerprint}", project, context)
