"""Names of images: made, moved to another image, renamed, deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from msgspec import UNSET
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.api import images as api
from lxpy.db import images as queries
from lxpy.db.engine import Database
from lxpy.db.rows import ImageAliasRow
from lxpy.errors import BadRequest, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.services.images import rows as image_rows

Check = Callable[[Any], None]


class ImageAliases:
    """The aliases of every project; a name may hold slashes."""

    def __init__(self, db: Database, lifecycle: Lifecycle) -> None:
        self._db = db
        self._lifecycle = lifecycle

    async def list(self, project: str) -> list[api.AliasEntry]:
        """Return a project's aliases by name."""
        async with self._db.read() as session:
            return [_shown(row) for row in await queries.aliases(session, project)]

    async def get(self, project: str, name: str) -> api.AliasEntry:
        """Return an alias. Raises NotFound."""
        async with self._db.read() as session:
            return _shown(await _find(session, project, name))

    async def create(self, project: str, wish: api.AliasesPost) -> None:
        """Name an image. Raises BadRequest, NotFound for the image, Conflict for the name."""
        if not wish.name or not wish.target:
            raise BadRequest("name and target are required")
        _check_name(wish.name)
        new = api.ImageAlias(name=wish.name, description=wish.description)
        async with self._db.write() as session:
            await image_rows.check_aliases(session, project, [new])
            image = await image_rows.find(session, project, wish.target)
            row = ImageAliasRow(project=project, name=wish.name, description=wish.description)
            image.aliases.append(row)
        self._tell("created", project, wish.name, {"target": image.fingerprint})

    async def put(self, project: str, name: str, wish: api.AliasPut, check: Check) -> None:
        """Replace description and target. Raises NotFound, BadRequest."""
        if not wish.target:
            raise BadRequest("The target field is required")
        await self._change(project, name, wish.description, wish.target, check)

    async def patch(self, project: str, name: str, wish: api.AliasPatch, check: Check) -> None:
        """Change what is given. Raises NotFound."""
        description = None if wish.description is UNSET else wish.description
        target = None if wish.target is UNSET else wish.target
        await self._change(project, name, description, target, check)

    async def rename(self, project: str, name: str, to: str) -> None:
        """Give an alias another name. Raises BadRequest, NotFound, Conflict."""
        _check_name(to)
        async with self._db.write() as session:
            await image_rows.check_aliases(session, project, [api.ImageAlias(name=to)])
            (await _find(session, project, name)).name = to
        self._tell("renamed", project, to, {"old_name": name})

    async def delete(self, project: str, name: str) -> None:
        """Remove a name; the image stays. Raises NotFound."""
        async with self._db.write() as session:
            await session.delete(await _find(session, project, name))
        self._tell("deleted", project, name)

    async def _change(
        self, project: str, name: str, description: str | None, target: str | None, check: Check
    ) -> None:
        async with self._db.write() as session:
            row = await _find(session, project, name)
            check(_shown(row))
            if description is not None:
                row.description = description
            if target is not None:
                row.image_id = (await image_rows.find(session, project, target)).id
        self._tell("updated", project, name)

    def _tell(
        self, action: str, project: str, name: str, context: dict[str, Any] | None = None
    ) -> None:
        path = f"/1.0/images/aliases/{quote(name, safe='')}"
        self._lifecycle.emit(f"image-alias-{action}", path, project, context)


async def _find(session: AsyncSession, project: str, name: str) -> ImageAliasRow:
    row = await queries.alias(session, project, name)
    if row is None:
        raise NotFound("Image alias not found")
    return row


def _check_name(name: str) -> None:
    if not name or not name.isprintable():
        raise BadRequest(f'Invalid alias name "{name}": it must be text without control characters')


def _shown(row: ImageAliasRow) -> api.AliasEntry:
    return api.AliasEntry(
        name=row.name,
        description=row.description,
        target=row.image.fingerprint,
        type=row.image.type,
    )
