"""Server config keys in the database."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db.rows import SettingRow


async def load(session: AsyncSession) -> dict[str, str]:
    """Return every key that is set."""
    rows = await session.execute(select(SettingRow))
    return {row.key: row.value for row in rows.scalars()}


async def replace(session: AsyncSession, config: dict[str, str]) -> None:
    """Make `config` the whole server config."""
    await session.execute(delete(SettingRow))
    session.add_all([SettingRow(key=key, value=value) for key, value in config.items()])
