"""The console: a terminal of the host's devpts whose master the supervisor holds.

Not one of the container's own: a checkpoint must find its other end outside.
"""

from __future__ import annotations

import errno
import os

from lxpy.kernel import mounts
from lxpy.runtime.steps.devices import bind_file


def bind_console(dev: int, slave: int) -> None:
    """Show the terminal as /dev/console. Before the user namespace: its flags get locked.

    `slave` was opened in the supervisor's mount namespace, out of which nothing can be cloned;
    ours shows the same devpts at /dev/pts. A pty's minor number is its name there.
    """
    device = os.fstat(slave).st_rdev
    name = f"/dev/pts/{os.minor(device)}"
    if os.stat(name).st_rdev != device:
        raise OSError(errno.ENODEV, f"{name} is not the terminal that /dev/ptmx gave")
    bind_file(dev, "console", mounts.clone_tree(name))


def use_console() -> None:
    """Make /dev/console stdin, stdout and stderr, without becoming our terminal."""
    fd = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY)
    for number in (0, 1, 2):
        os.dup2(fd, number)
    if fd > 2:
        os.close(fd)
