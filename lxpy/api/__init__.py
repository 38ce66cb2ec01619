"""LXD's REST API as typed values: one module for each resource, no behaviour."""
