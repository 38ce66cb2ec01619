"""Queries on snapshots of instances. Each change is one statement; rows are read once, at start."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Text, delete, insert, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import InstanceSnapshotRow as Row

_JSON = ("config", "devices", "profiles", "data")


async def everything(session: AsyncSession) -> list[dict[str, Any]]:
    """Return the columns of all snapshots, by instance and age.

    Equal JSON is decoded once and shared: the snapshots of an instance are much alike.
    """
    columns = [
        type_coerce(each, Text).label(each.key) if each.key in _JSON else each
        for each in Row.__table__.columns
    ]
    query = select(*columns).order_by(Row.instance_id, Row.created_at, Row.id)
    decoded = cache(msgspec.json.decode)
    found = [dict(row) for row in (await session.execute(query)).mappings()]
    for row in found:
        for key in _JSON:
            row[key] = decoded(row[key])
    return found


async def add(session: AsyncSession, values: Mapping[str, Any]) -> int:
    """Insert a snapshot and return its id. Raises IntegrityError when its name is taken."""
    done = await session.execute(insert(Row).values(**values).returning(Row.id))
    return done.scalar_one()


async def set_expiry(session: AsyncSession, id: int, expires_at: datetime | None) -> None:
    """Note another end of a snapshot."""
    await session.execute(update(Row).where(Row.id == id).values(expires_at=expires_at))


async def set_devices(
    session: AsyncSession, id: int, devices: Mapping[str, Any], data: Mapping[str, Any]
) -> None:
    """Note other devices of a snapshot, its own and, in `data`, those of its profiles."""
    changed = {"devices": dict(devices), "data": dict(data)}
    await session.execute(update(Row).where(Row.id == id).values(**changed))


async def set_data(session: AsyncSession, id: int, data: Mapping[str, Any]) -> None:
    """Note other things that lxpy itself keeps of a snapshot."""
    await session.execute(update(Row).where(Row.id == id).values(data=dict(data)))


async def rename(session: AsyncSession, id: int, name: str) -> None:
    """Note another name of a snapshot."""
    await session.execute(update(Row).where(Row.id == id).values(name=name))


async def remove(session: AsyncSession, id: int) -> None:
    """Delete the row of a snapshot."""
    await session.execute(delete(Row).where(Row.id == id))
