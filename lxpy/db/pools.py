"""Queries on storage pools."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import PoolRow


async def find(session: AsyncSession, name: str) -> PoolRow | None:
    """Return the pool of that name, or None."""
    return (await session.execute(select(PoolRow).where(PoolRow.name == name))).scalar_one_or_none()


async def everything(session: AsyncSession) -> Sequence[PoolRow]:
    """Return all pools by name."""
    return (await session.execute(select(PoolRow).order_by(PoolRow.name))).scalars().all()
