"""Forwards of networks, and network ACLs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply the change."""
    with op.batch_alter_table("networks") as batch:
        batch.add_column(sa.Column("forwards", sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "network_acls",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("ingress", sa.JSON(), nullable=False),
        sa.Column("egress", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_network_acls"),
        sa.UniqueConstraint("project", "name", name="uq_network_acls_project_name"),
    )
