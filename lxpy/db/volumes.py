"""Queries on custom volumes and their snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import PoolRow, VolumeRow, VolumeSnapshotRow


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


async def remove(session: AsyncSession, id: int) -> None:
    """Delete a volume's row; those of its snapshots go along."""
    await session.execute(delete(VolumeRow).where(VolumeRow.id == id))


# Snapshots


async def snapshots(session: AsyncSession, volume_id: int) -> Sequence[VolumeSnapshotRow]:
    """Return a volume's snapshots, oldest first."""
    return await _snapshots(session, VolumeSnapshotRow.volume_id == volume_id)


async def all_snapshots(session: AsyncSession) -> dict[int, list[VolumeSnapshotRow]]:
    """Return the snapshots of all volumes, oldest first, by the volume's id."""
    found: dict[int, list[VolumeSnapshotRow]] = {}
    for row in await _snapshots(session):
        found.setdefault(row.volume_id, []).append(row)
    return found


async def find_snapshot(
    session: AsyncSession, volume_id: int, name: str
) -> VolumeSnapshotRow | None:
    """Return a volume's snapshot of that name, or None."""
    query = select(VolumeSnapshotRow).where(
        VolumeSnapshotRow.volume_id == volume_id, VolumeSnapshotRow.name == name
    )
    return (await session.execute(query)).scalar_one_or_none()


async def expired(session: AsyncSession, now: datetime) -> Sequence[VolumeSnapshotRow]:
    """Return the snapshots whose time is over."""
    return await _snapshots(session, VolumeSnapshotRow.expires_at <= now)


async def remove_snapshot(session: AsyncSession, id: int) -> None:
    """Delete a snapshot's row."""
    await session.execute(delete(VolumeSnapshotRow).where(VolumeSnapshotRow.id == id))


async def _snapshots(session: AsyncSession, *conditions: object) -> Sequence[VolumeSnapshotRow]:
    query = (
        select(VolumeSnapshotRow)
        .where(*conditions)  # type: ignore[arg-type]  # any SQL expression
        .order_by(VolumeSnapshotRow.created_at, VolumeSnapshotRow.id)
    )
    return (await session.execute(query)).scalars().all()
