"""Queries on managed networks and network ACLs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import NetworkAclRow, NetworkRow


async def find(session: AsyncSession, project: str, name: str) -> NetworkRow | None:
    """Return the network of that name, or None."""
    query = select(NetworkRow).where(NetworkRow.project == project, NetworkRow.name == name)
    return (await session.execute(query)).scalar_one_or_none()


async def all_of(session: AsyncSession, project: str) -> Sequence[NetworkRow]:
    """Return the project's networks by name."""
    query = select(NetworkRow).where(NetworkRow.project == project).order_by(NetworkRow.name)
    return (await session.execute(query)).scalars().all()


async def find_acl(session: AsyncSession, project: str, name: str) -> NetworkAclRow | None:
    """Return the network ACL of that name, or None."""
    query = select(NetworkAclRow).where(
        NetworkAclRow.project == project, NetworkAclRow.name == name
    )
    return (await session.execute(query)).scalar_one_or_none()


async def all_acls(session: AsyncSession, project: str) -> Sequence[NetworkAclRow]:
    """Return the project's network ACLs by name."""
    query = (
        select(NetworkAclRow).where(NetworkAclRow.project == project).order_by(NetworkAclRow.name)
    )
    return (await session.execute(query)).scalars().all()
