"""Queries on instances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.base import Config
from lxpy.db.rows import InstanceProfileRow, InstanceRow, ProfileRow


async def find(session: AsyncSession, project: str, name: str) -> InstanceRow | None:
    """Return the instance of that name, or None."""
    query = select(InstanceRow).where(InstanceRow.project == project, InstanceRow.name == name)
    return (await session.execute(query)).scalar_one_or_none()


async def everything(session: AsyncSession) -> Sequence[InstanceRow]:
    """Return the instances of all projects, by project and name."""
    query = select(InstanceRow).order_by(InstanceRow.project, InstanceRow.name)
    return (await session.execute(query)).scalars().all()


async def assign(
    session: AsyncSession, row: InstanceRow, project: str, profiles: Iterable[str]
) -> None:
    """Make `profiles`, in this order, the profiles of a flushed `row`.

    Raises LookupError naming the first profile that does not exist.
    """
    wanted = list(profiles)
    query = select(ProfileRow.name, ProfileRow.id).where(
        ProfileRow.project == project, ProfileRow.name.in_(wanted)
    )
    ids = dict((await session.execute(query)).all())
    missing = next((name for name in wanted if name not in ids), None)
    if missing is not None:
        raise LookupError(missing)
    await session.refresh(row, ["profiles"])  # a new row has not loaded them
    row.profiles = [
        InstanceProfileRow(instance_id=row.id, position=position, profile_id=ids[name])
        for position, name in enumerate(wanted)
    ]


async def note(
    session: AsyncSession, id: int, config: Config, last_used_at: datetime | None
) -> None:
    """Write what lxpy itself keeps of an instance, without loading it."""
    query = update(InstanceRow).where(InstanceRow.id == id)
    await session.execute(query.values(config=config, last_used_at=last_used_at))


async def delete_by_id(session: AsyncSession, id: int) -> None:
    """Delete an instance's row, and with it those of its profiles, without loading them."""
    await session.execute(delete(InstanceRow).where(InstanceRow.id == id))
