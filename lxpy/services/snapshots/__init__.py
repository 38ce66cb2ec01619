"""Snapshots of instances: made, kept, mounted, compared."""
