"""Queries on projects, and on what is in them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
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
