"""The console: a terminal of the host's devpts whose master the supervisor holds.

Not one of the container's own: a checkpoint must find its other end outside.
"""

from __future__ import annotations

import os

from lxpy.kernel import mounts
from lxpy.runtime.steps.devices import bind_file


def bind_console(dev: int, slave: int) -> None:
    """Show the terminal as /dev/console. Before the user namespace: its flags get locked."""
    bind_file(dev, "console", mounts.clone_tree(f"/proc/self/fd/{slave}"))


def use_console() -> None:
    """Make /dev/console stdin, stdout and stderr, without becoming our terminal."""
    fd = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY)
    for number in (0, 1, 2):
        os.dup2(fd, number)
    if fd > 2:
        os.close(fd)
