"""lxpy: a system-container manager that speaks LXD's REST API."""

__version__ = "0.1.0"
