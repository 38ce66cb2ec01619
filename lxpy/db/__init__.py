"""The daemon's state in SQL: rows, queries, upgrades. Rows do not leave `db` and `services`."""
