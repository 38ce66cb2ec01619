"""Queries on custom volumes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import PoolRow, VolumeRow


async def find(session: AsyncSession, pool: str, project: str, name: str) -> VolumeRow | None:
    """Return the volume of that name, or None."""
    query = (
        select(VolumeRow)
        .join(PoolRow)
        .where(PoolRow.name == pool, VolumeRow.project == project, VolumeRow.name == name)
    )
    return (await session.execute(query)).scalar_one_or_none()


async def everything(session: AsyncSession) -> Sequence[VolumeRow]:
    """Return the volumes of all pools and projects, by pool, project and name."""
    query = (
        select(VolumeRow).join(PoolRow).order_by(PoolRow.name, VolumeRow.project, VolumeRow.name)
    )
    return (await session.execute(query)).scalars().all()
