"""Queries on profiles."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import ProfileRow


async def find(session: AsyncSession, project: str, name: str) -> ProfileRow | None:
    """Return the profile of that name, or None."""
    query = select(ProfileRow).where(ProfileRow.project == project, ProfileRow.name == name)
    return (await session.execute(query)).scalar_one_or_none()


async def all_of(session: AsyncSession, project: str) -> Sequence[ProfileRow]:
    """Return the project's profiles by name."""
    query = select(ProfileRow).where(ProfileRow.project == project).order_by(ProfileRow.name)
    return (await session.execute(query)).scalars().all()
