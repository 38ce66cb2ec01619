"""System tests: a real daemon, the real kernel. They need root, or are skipped."""

from __future__ import annotations

from tests.support.fixtures import (
    busybox_image,
    commands,
    daemon,
    debian12,
    debian13,
    launch,
    own_daemon,
    shared_daemon,
    shared_debian12,
    shared_debian13,
    shared_tiny,
    tiny,
    work_directory,
)

__all__ = [
    "busybox_image",
    "commands",
    "daemon",
    "debian12",
    "debian13",
    "launch",
    "own_daemon",
    "shared_daemon",
    "shared_debian12",
    "shared_debian13",
    "shared_tiny",
    "tiny",
    "work_directory",
]
