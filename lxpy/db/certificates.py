"""Queries on the certificates of clients."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import CertificateRow


async def everything(session: AsyncSession) -> Sequence[CertificateRow]:
    """Return all certificates."""
    return (await session.execute(select(CertificateRow))).scalars().all()


async def remove(session: AsyncSession, fingerprint: str) -> None:
    """Remove one."""
    await session.execute(delete(CertificateRow).where(CertificateRow.fingerprint == fingerprint))
