"""Queries on profiles."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import InstanceProfileRow, InstanceRow, ProfileRow


async def find(session: AsyncSession, project: str, name: str) -> ProfileRow | None:
    """Return the profile of that name, or None."""
    query = select(ProfileRow).where(ProfileRow.project == project, ProfileRow.name == name)
    return (await session.execute(query)).scalar_one_or_none()


async def all_of(session: AsyncSession, project: str) -> Sequence[ProfileRow]:
    """Return the project's profiles by name."""
    query = select(ProfileRow).where(ProfileRow.project == project).order_by(ProfileRow.name)
    return (await session.execute(query)).scalars().all()


async def users(
    session: AsyncSession, project: str, profile_id: int | None = None
) -> Sequence[tuple[int, str]]:
    """Return (profile's id, instance's name) of the project's instances, of one profile or all."""
    query = (
        select(InstanceProfileRow.profile_id, InstanceRow.name)
        .join(InstanceRow, InstanceRow.id == InstanceProfileRow.instance_id)
        .where(InstanceRow.project == project)
        .order_by(InstanceRow.name)
    )
    if profile_id is not None:
        query = query.where(InstanceProfileRow.profile_id == profile_id)
    return [(id, name) for id, name in (await session.execute(query)).all()]


async def everything(session: AsyncSession) -> Sequence[ProfileRow]:
    """Return the profiles of all projects, by project and name."""
    query = select(ProfileRow).order_by(ProfileRow.project, ProfileRow.name)
    return (await session.execute(query)).scalars().all()
