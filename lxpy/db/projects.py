"""Queries on projects, and on what is in them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import ImageRow, InstanceRow, NetworkRow, ProfileRow, ProjectRow, VolumeRow


async def everything(session: AsyncSession) -> Sequence[ProjectRow]:
    """Return all projects by name."""
    return (await session.execute(select(ProjectRow).order_by(ProjectRow.name))).scalars().all()


async def contents(session: AsyncSession, project: str) -> dict[str, list[str]]:
    """Return the names of all that is in a project, by kind as URLs have it."""
    queries = {
        "instances": select(InstanceRow.name).where(InstanceRow.project == project),
        "profiles": select(ProfileRow.name).where(ProfileRow.project == project),
        "images": select(ImageRow.fingerprint).where(ImageRow.project == project),
        "networks": select(NetworkRow.name).where(NetworkRow.project == project),
    }
    return {
        kind: sorted((await session.execute(query)).scalars()) for kind, query in queries.items()
    }


async def volumes(session: AsyncSession, project: str) -> Sequence[VolumeRow]:
    """Return the custom volumes of a project."""
    query = select(VolumeRow).where(VolumeRow.project == project).order_by(VolumeRow.name)
    return (await session.execute(query)).scalars().all()


async def named(session: AsyncSession, name: str) -> ProjectRow:
    """Return a project that exists."""
    return (await session.execute(select(ProjectRow).where(ProjectRow.name == name))).scalar_one()


async def remove_profiles(session: AsyncSession, project: str) -> None:
    """Remove the profiles of a project that has no instances."""
    await session.execute(delete(ProfileRow).where(ProfileRow.project == project))


async def rename(session: AsyncSession, name: str, new_name: str) -> None:
    """Rename a project that has nothing but profiles."""
    for row, column in ((ProjectRow, ProjectRow.name), (ProfileRow, ProfileRow.project)):
        await session.execute(update(row).where(column == name).values({column: new_name}))


async def ensure(session: AsyncSession, name: str) -> None:
    """Make a project that has everything of its own unless it is there."""
    found = await session.execute(select(ProjectRow).where(ProjectRow.name == name))
    if found.scalar_one_or_none() is None:
        features = ("images", "profiles", "storage.volumes")
        config = {f"features.{each}": "true" for each in features}
        session.add(ProjectRow(name=name, description="", config=config))
