"""Fixtures of the fuzz tests."""

from __future__ import annotations

from tests.support.fixtures import busybox_image, commands, work_directory

__all__ = ["busybox_image", "commands", "work_directory"]
