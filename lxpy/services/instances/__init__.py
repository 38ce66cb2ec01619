"""Instances: made, changed, started, looked at, entered."""
