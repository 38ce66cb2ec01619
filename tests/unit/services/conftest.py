"""A fresh database for each test of a service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lxpy.db.engine import Database
from lxpy.db.upgrade import upgrade


@pytest.fixture
def opened(tmp_path: Path) -> Database:
    """Made as the daemon does, before the event loop runs."""
    upgrade(tmp_path / "lxpy.db")
    return Database(f"sqlite+aiosqlite:///{tmp_path / 'lxpy.db'}")


@pytest.fixture
async def db(opened: Database) -> AsyncIterator[Database]:
    yield opened
    await opened.close()
