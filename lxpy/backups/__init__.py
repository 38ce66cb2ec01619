"""Backups: instances and volumes as archives that LXD reads, written and read as streams."""
