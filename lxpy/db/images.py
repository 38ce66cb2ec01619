"""Queries on images and their aliases."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import ImageAliasRow, ImageRow


async def all_of(session: AsyncSession, project: str | None) -> Sequence[ImageRow]:
    """Return the images of a project, or of all of them, oldest first."""
    query = select(ImageRow).order_by(ImageRow.id)
    if project is not None:
        query = query.where(ImageRow.project == project)
    return (await session.execute(query)).scalars().all()


async def by_prefix(
    session: AsyncSession, project: str, prefix: str, *, public: bool = False
) -> Sequence[ImageRow]:
    """Return the images (or `public` ones) whose fingerprint begins with `prefix`, at most two."""
    if not prefix or not all(each in "0123456789abcdef" for each in prefix):
        return []
    query = (
        select(ImageRow)
        .where(ImageRow.project == project, ImageRow.fingerprint.startswith(prefix))
        .limit(2)
    )
    if public:
        query = query.where(ImageRow.public)
    return (await session.execute(query)).scalars().all()


async def find(session: AsyncSession, project: str, fingerprint: str) -> ImageRow | None:
    """Return the image with exactly this fingerprint, or None."""
    query = select(ImageRow).where(ImageRow.project == project, ImageRow.fingerprint == fingerprint)
    return (await session.execute(query)).scalar_one_or_none()


async def is_known(session: AsyncSession, fingerprint: str) -> bool:
    """Tell whether some project has this image."""
    query = select(ImageRow.id).where(ImageRow.fingerprint == fingerprint)
    return (await session.execute(query.limit(1))).first() is not None


async def users_elsewhere(session: AsyncSession, fingerprint: str, not_id: int) -> bool:
    """Tell whether another project keeps an image with the same files."""
    query = select(ImageRow.id).where(ImageRow.fingerprint == fingerprint, ImageRow.id != not_id)
    return (await session.execute(query.limit(1))).first() is not None


async def alias(session: AsyncSession, project: str, name: str) -> ImageAliasRow | None:
    """Return the alias of that name, or None."""
    query = select(ImageAliasRow).where(
        ImageAliasRow.project == project, ImageAliasRow.name == name
    )
    return (await session.execute(query)).scalar_one_or_none()


async def aliases(session: AsyncSession, project: str) -> Sequence[ImageAliasRow]:
    """Return the project's aliases by name."""
    query = select(ImageAliasRow).where(ImageAliasRow.project == project)
    return (await session.execute(query.order_by(ImageAliasRow.name))).scalars().all()


async def fingerprints(session: AsyncSession) -> set[str]:
    """Return the fingerprints of all projects' images."""
    return set((await session.execute(select(ImageRow.fingerprint))).scalars())


async def cached(session: AsyncSession) -> Sequence[ImageRow]:
    """Return the images of all projects that nobody has asked for by themselves."""
    return (await session.execute(select(ImageRow).where(ImageRow.cached))).scalars().all()


async def updated(session: AsyncSession) -> Sequence[ImageRow]:
    """Return the images of all projects that are to be kept up to date."""
    return (await session.execute(select(ImageRow).where(ImageRow.auto_update))).scalars().all()
