"""Alembic's entry: runs the migrations, in one transaction, on the connection it is handed."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from lxpy.db import rows  # noqa: F401  (fills the metadata)
from lxpy.db.base import Base


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()
        if connection.dialect.name == "sqlite":
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
            if broken:
                raise ValueError(f"rows without what they refer to: {broken[:10]}")


_migrate(context.config.attributes["connection"])
