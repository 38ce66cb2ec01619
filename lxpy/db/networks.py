"""Queries on managed networks."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import NetworkRow


async def find(session: AsyncSession, project: str, name: str) -> NetworkRow | None:
    """Return the network of that name, or None."""
    query = select(NetworkRow).where(NetworkRow.project == project, NetworkRow.name == name)
    return (await session.execute(query)).scalar_one_or_none()


async def all_of(session: AsyncSession, project: str) -> Sequence[NetworkRow]:
    """Return the project's networks by name."""
    query = select(NetworkRow).where(NetworkRow.project == project).order_by(NetworkRow.name)
    return (await session.execute(query)).scalars().all()
