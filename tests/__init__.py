"""Tests: unit (no root), system (root, a real daemon) and conformance (LXD's own clients)."""
