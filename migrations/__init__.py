"""Schema migrations, run by Alembic when the daemon starts."""
