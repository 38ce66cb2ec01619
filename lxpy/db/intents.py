"""The journal of work that changes the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.base import now
from lxpy.db.rows import IntentRow


def add(
    session: AsyncSession, kind: str, project: str, name: str, id: str = "", /, **data: Any
) -> str:
    """Note in the running transaction that `kind` is about to happen; return the intent's id."""
    row = IntentRow(
        id=id or str(uuid4()), kind=kind, project=project, name=name, data=data, created_at=now()
    )
    session.add(row)
    return row.id


async def end(session: AsyncSession, id: str) -> None:
    """Forget an intent: its work is done, or undone."""
    await session.execute(delete(IntentRow).where(IntentRow.id == id))


async def unfinished(session: AsyncSession) -> Sequence[IntentRow]:
    """Return what was under way when the daemon ended, oldest first."""
    query = select(IntentRow).order_by(IntentRow.created_at)
    return (await session.execute(query)).scalars().all()
