"""Queries on projects."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import ProjectRow


async def everything(session: AsyncSession) -> Sequence[ProjectRow]:
    """Return all projects by name."""
    return (await session.execute(select(ProjectRow).order_by(ProjectRow.name))).scalars().all()
