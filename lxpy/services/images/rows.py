"""Rows of images: found by fingerprint, shown to clients, inserted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from msgspec import UNSET
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.api import images as api
from lxpy.db import images as queries
from lxpy.db.base import now
from lxpy.db.rows import ImageAliasRow, ImageRow
from lxpy.errors import BadRequest, Conflict, Failed, NotFound
from lxpy.images.metadata import Metadata
from lxpy.images.store import Stored
from lxpy.instances import architectures


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request says of a new image, beside its files.

    Its properties come on top of those of metadata.yaml, or are `all_properties` there are.
    """

    filename: str = ""
    public: bool = False
    auto_update: bool = False
    cached: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    all_properties: bool = False
    profiles: Sequence[str] = ("default",)
    expires_at: datetime | None = None
    aliases: Sequence[api.ImageAlias] = ()
    update_source: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Obtained:
    """An image that instances can be made from, and what it brings along."""

    fingerprint: str
    architecture: str
    properties: Mapping[str, str]
    profiles: list[str]


class InstanceSource(Protocol):
    """What a new instance says of its image."""

    alias: str
    fingerprint: str
    properties: dict[str, str] | None
    server: str
    protocol: str
    secret: str
    certificate: str
    project: str
    image_type: str


def lasting(value: datetime | None) -> datetime | None:
    """Return a time, None for one that means never."""
    return None if value is None or value.year <= 1970 else value


def obtained(row: ImageRow) -> Obtained:
    """Return what an instance needs to know of an image."""
    return Obtained(row.fingerprint, row.architecture, row.properties, list(row.profiles))


def shown(row: ImageRow) -> api.Image:
    """Return an image as clients see it."""
    source = row.update_source
    return api.Image(
        fingerprint=row.fingerprint,
        filename=row.filename,
        size=row.size_bytes,
        architecture=row.architecture,
        type=row.type,
        public=row.public,
        auto_update=row.auto_update,
        cached=row.cached,
        created_at=row.created_at or api.NEVER,
        expires_at=row.expires_at or api.ENDLESS,
        uploaded_at=row.uploaded_at,
        last_used_at=row.last_used_at or api.NEVER,
        properties=row.properties,
        profiles=row.profiles,
        aliases=[
            api.ImageAlias(name=each.name, description=each.description) for each in row.aliases
        ],
        update_source=(
            api.UpdateSource(
                alias=source.get("alias", ""),
                certificate=source.get("certificate", ""),
                protocol=source.get("protocol", ""),
                server=source.get("server", ""),
            )
            if source
            else UNSET
        ),
    )


def writable(row: ImageRow) -> list[Any]:
    """Return what an image's ETag stands for."""
    return [row.public, row.auto_update, row.properties]


async def find(
    session: AsyncSession, project: str, prefix: str, *, public: bool = False
) -> ImageRow:
    """Return the image with that fingerprint, or the only (`public`) one that begins so.

    Raises NotFound, and BadRequest when more than one does.
    """
    found = await queries.by_prefix(session, project, prefix, public=public)
    if not found:
        raise NotFound("Image not found")
    if len(found) > 1:
        raise BadRequest(f'More than one image matches "{prefix}": write more of the fingerprint')
    return found[0]


async def check_aliases(
    session: AsyncSession, project: str, aliases: Sequence[api.ImageAlias]
) -> None:
    """Raise BadRequest for a name that cannot be one, Conflict for one that is taken."""
    for each in aliases:
        if not each.name:
            raise BadRequest("The alias name is missing")
        if await queries.alias(session, project, each.name) is not None:
            raise Conflict(f'Alias "{each.name}" already exists')


async def insert(
    session: AsyncSession, project: str, stored: Stored, found: Metadata, wish: Wish
) -> ImageRow:
    """Add an image. Raises Conflict for an alias that is taken, Failed for an architecture that
    nobody knows.
    """
    if found.architecture not in architectures.IDS:
        known = ", ".join(architectures.IDS)
        raise Failed(f"Architecture isn't supported: {found.architecture}: use one of {known}")
    await check_aliases(session, project, wish.aliases)
    row = ImageRow(
        project=project,
        fingerprint=stored.fingerprint,
        filename=Path(wish.filename).name or stored.fingerprint,
        size_bytes=stored.size_bytes,
        architecture=found.architecture,
        type=found.type,
        public=wish.public,
        auto_update=wish.auto_update,
        cached=wish.cached,
        created_at=datetime.fromtimestamp(found.creation_date, UTC),
        expires_at=(
            wish.expires_at
            or (datetime.fromtimestamp(found.expiry_date, UTC) if found.expiry_date else None)
        ),
        uploaded_at=now(),
        last_used_at=None,
        properties={**({} if wish.all_properties else found.properties), **wish.properties},
        profiles=list(wish.profiles),
        update_source=dict(wish.update_source),
        aliases=[_alias(project, each) for each in wish.aliases],
    )
    session.add(row)
    await session.flush()
    return row


def succeed(row: ImageRow, old: ImageRow) -> None:
    """Make an image the successor of an older one: names and what the user has said of that."""
    for alias in list(old.aliases):
        alias.image = row
    row.properties = {**old.properties, **row.properties}
    row.cached = row.cached and old.cached
    row.last_used_at = max(filter(None, (row.last_used_at, old.last_used_at)), default=None)


def claim(project: str, row: ImageRow, wish: Wish) -> None:
    """Make an image that was only cached one that the user has asked for."""
    row.cached = row.cached and wish.cached
    row.public = row.public or wish.public
    row.auto_update = row.auto_update or wish.auto_update
    if wish.properties:
        row.properties = {**row.properties, **wish.properties}
    row.aliases.extend(_alias(project, each) for each in wish.aliases)


def _alias(project: str, alias: api.ImageAlias) -> ImageAliasRow:
    return ImageAliasRow(project=project, name=alias.name, description=alias.description)
