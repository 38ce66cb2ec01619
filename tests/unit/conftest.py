"""Unit tests need no root and no network, and never block the event loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from blockbuster import BlockBuster, blockbuster_ctx

# The default renderer reads source files to show a traceback, which blocks.
structlog.configure(processors=[structlog.processors.LogfmtRenderer()])


@pytest.fixture(autouse=True)
def blockbuster(request: pytest.FixtureRequest) -> Iterator[BlockBuster | None]:
    """Raise when code of lxpy blocks the event loop."""
    with blockbuster_ctx("lxpy") as guard:
        yield guard
