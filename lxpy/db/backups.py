"""Queries on backups that the daemon keeps: each is of an instance or of a custom volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.base import now
from lxpy.db.rows import BackupRow


@dataclass(frozen=True, slots=True)
class Owner:
    """What backups are of: "instances" or "volumes", and the id there."""

    kind: str
    id: int


def owner_of(row: BackupRow) -> Owner:
    """Return what a backup is of."""
    if row.instance_id is not None:
        return Owner("instances", row.instance_id)
    assert row.volume_id is not None
    return Owner("volumes", row.volume_id)


async def all_of(session: AsyncSession, owner: Owner) -> Sequence[BackupRow]:
    """Return the backups of one instance or volume, oldest first."""
    query = select(BackupRow).where(_is_of(owner)).order_by(BackupRow.id)
    return (await session.execute(query)).scalars().all()


async def everything(session: AsyncSession) -> Sequence[BackupRow]:
    """Return all backups."""
    return (await session.execute(select(BackupRow))).scalars().all()


async def expired(session: AsyncSession) -> Sequence[BackupRow]:
    """Return the backups whose time is over."""
    query = select(BackupRow).where(BackupRow.expires_at <= now())
    return (await session.execute(query)).scalars().all()


async def find(session: AsyncSession, owner: Owner, name: str) -> BackupRow | None:
    """Return the backup of that name, or None."""
    query = select(BackupRow).where(_is_of(owner), BackupRow.name == name)
    return (await session.execute(query)).scalar_one_or_none()


def add(
    session: AsyncSession,
    owner: Owner,
    name: str,
    expires_at: datetime | None,
    data: dict[str, Any],
) -> None:
    """Insert a backup."""
    row = BackupRow(name=name, created_at=now(), expires_at=expires_at, data=data)
    row.instance_id = owner.id if owner.kind == "instances" else None
    row.volume_id = owner.id if owner.kind == "volumes" else None
    session.add(row)


async def rename(session: AsyncSession, owner: Owner, name: str, new_name: str) -> None:
    """Give a backup another name."""
    query = update(BackupRow).where(_is_of(owner), BackupRow.name == name)
    await session.execute(query.values(name=new_name))


async def remove(session: AsyncSession, owner: Owner, name: str) -> None:
    """Delete a backup's row; one that is not there is none."""
    await session.execute(delete(BackupRow).where(_is_of(owner), BackupRow.name == name))


def _is_of(owner: Owner) -> Any:
    column = BackupRow.instance_id if owner.kind == "instances" else BackupRow.volume_id
    return column == owner.id
