"""A fresh database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lxpy.db.engine import Database
from lxpy.db.upgrade import upgrade


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lxpy.db"


@pytest.fixture
def opened(path: Path) -> Database:
    """Made as the daemon does, before the event loop runs."""
    upgrade(path)
    return Database(f"sqlite+aiosqlite:///{path}")


@pytest.fixture
async def database(opened: Database) -> AsyncIterator[Database]:
    yield opened
    await opened.close()
