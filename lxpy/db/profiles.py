"""Queries on profiles."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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


async def users(session: AsyncSession) -> dict[int, list[tuple[str, str]]]:
    """Return project and name of the instances that use each profile, by the profile's id."""
    query = (
        select(InstanceProfileRow.profile_id, InstanceRow.project, InstanceRow.name)
        .join(InstanceRow, InstanceRow.id == InstanceProfileRow.instance_id)
        .order_by(InstanceRow.project, InstanceRow.name)
    )
    found: dict[int, list[tuple[str, str]]] = {}
    for profile_id, project, name in await session.execute(query):
        found.setdefault(profile_id, []).append((project, name))
    return found


async def instances_with(session: AsyncSession, profile_id: int) -> Sequence[InstanceRow]:
    """Return the instances that use a profile, by name."""
    ids = select(InstanceProfileRow.instance_id).where(InstanceProfileRow.profile_id == profile_id)
    query = select(InstanceRow).where(InstanceRow.id.in_(ids)).order_by(InstanceRow.name)
    return (await session.execute(query)).scalars().all()


async def named(
    session: AsyncSession, project: str, names: Collection[str]
) -> dict[str, ProfileRow]:
    """Return those of the profiles `names` that exist, by name."""
    query = select(ProfileRow).where(ProfileRow.project == project, ProfileRow.name.in_(names))
    return {row.name: row for row in (await session.execute(query)).scalars()}


async def everything(session: AsyncSession) -> Sequence[ProfileRow]:
    """Return the profiles of all projects, by project and name."""
    query = select(ProfileRow).order_by(ProfileRow.project, ProfileRow.name)
    return (await session.execute(query)).scalars().all()
