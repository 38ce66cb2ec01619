"""Which volume a request is about, and what its name, type and row say of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db import volumes as queries
from lxpy.db.rows import VolumeRow
from lxpy.errors import BadRequest, NotFound
from lxpy.instances.model import DEFAULT_PROJECT
from lxpy.storage import ContentType, Pool, Volume, VolumeType, keys

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DEFAULTS = "volume."
_VOLATILE = "volatile."
#: what a volume of this content cannot have
_NOT_OF: Mapping[ContentType, tuple[str, ...]] = {
    ContentType.FILESYSTEM: ("security.shared",),
    ContentType.BLOCK: ("security.shifted", "security.unmapped"),
    ContentType.ISO: ("security.shifted", "security.unmapped", "security.shared"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a volume is; `kind` is a VolumeType, as clients write it."""

    pool: str
    kind: str
    name: str
    project: str = DEFAULT_PROJECT

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The name of its lock."""
        return ("volume", self.pool, self.project, self.name)

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"/1.0/storage-pools/{self.pool}/volumes/{self.kind}/{self.name}"

    def named(self, name: str) -> Place:
        """Return the place of a volume of another name."""
        return replace(self, name=name)


def custom(pool: str, name: str, project: str = DEFAULT_PROJECT) -> Place:
    """Return the place of a custom volume."""
    return Place(pool, VolumeType.CUSTOM, name, project)


def place_of(row: VolumeRow) -> Place:
    """Return the place of a row's volume."""
    return custom(row.pool.name, row.name, row.project)


def stored(row: VolumeRow) -> Volume:
    """Return a row's volume as storage knows it."""
    return volume_for(row.project, row.name, row.content_type, row.config)


def volume_for(project: str, name: str, content: str, config: Mapping[str, str]) -> Volume:
    """Return a custom volume as storage knows it: of the options only the size counts there."""
    size = config.get("size", "")
    return Volume(
        name, VolumeType.CUSTOM, project, {"size": size} if size else {}, ContentType(content)
    )


async def find(session: AsyncSession, place: Place) -> VolumeRow:
    """Return the row of a custom volume. Raises NotFound, BadRequest for another type."""
    check_custom(place.kind)
    row = await queries.find(session, place.pool, place.project, place.name)
    if row is None:
        raise missing()
    return row


def missing() -> NotFound:
    """Return the error of a volume that does not exist."""
    return NotFound("Storage pool volume not found")


def check_type(kind: str) -> None:
    """Raise BadRequest unless there are volumes of this type."""
    if kind not in list(VolumeType):
        raise BadRequest(
            f'Invalid storage volume type "{kind}": use one of {", ".join(VolumeType)}'
        )


def check_custom(kind: str) -> None:
    """Raise BadRequest unless volumes of this type are their own object."""
    check_type(kind)
    if kind != VolumeType.CUSTOM:
        raise BadRequest(
            f'Storage volumes of type "{kind}" cannot be changed: change the instance or image'
        )


def check_name(name: str) -> str:
    """Return the name of a custom volume. Raises BadRequest when it cannot be one."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f'Invalid storage volume name "{name[:80]}": use 1 to 63 letters, digits, ".", "_", "-"'
        )
    return name


def check_options(content: ContentType, config: Mapping[str, str]) -> None:
    """Raise BadRequest at the first option that says nothing of a volume with this content."""
    for key in _NOT_OF[content]:
        if config.get(key):
            raise BadRequest(
                f'Invalid option "{key}": a volume of content type "{content}" does not have it'
            )


def defaults(pool: Pool, content: ContentType) -> dict[str, str]:
    """Return the options that the pool's config gives its volumes of this content."""
    return {
        key.removeprefix(_DEFAULTS): value
        for key, value in pool.config.items()
        if key.startswith(_DEFAULTS) and key.removeprefix(_DEFAULTS) not in _NOT_OF[content]
    }


def given(config: Mapping[str, str] | None) -> dict[str, str]:
    """Return the options that are set: "" unsets one."""
    return {key: value for key, value in (config or {}).items() if value != ""}


def portable(pool: Pool, config: Mapping[str, str]) -> dict[str, str]:
    """Return the options of another volume that a new one in this pool can have."""
    known = keys.VOLUME_KEYS[pool.driver]
    return {
        key: value
        for key, value in config.items()
        if known.find(key) and not key.startswith(_VOLATILE)
    }
