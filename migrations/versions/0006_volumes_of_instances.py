"""What is written on the volumes of instances: options `user.*`, descriptions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply the change."""
    column = sa.Column("volume", sa.JSON(), nullable=False, server_default="{}")
    op.add_column("instances", column)
