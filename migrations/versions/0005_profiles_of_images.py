"""An image's list of profiles is what it says: one without any has none."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply the change."""
    op.execute("UPDATE images SET profiles = '[\"default\"]' WHERE profiles = '[]'")
