"""Backups of instances: archives out and in."""
