"""The console: a terminal of the host's devpts whose master the supervisor holds.

Not one of the container's own: a checkpoint must find its other end outside.
"""

from __future__ import annotations

import errno
import os

from lxpy.kernel import mounts
from lxpy.runtime.steps.devices import bind_file

_ACTIVE = "/sys/class/tty/console/active"
_NAME = "/dev/.lxc/console"


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


def name_console() -> None:
    """Have /sys tell that /dev/console is just that: it tells the host's, "ttyS0" or "tty1".

    systemd 262 opens what it reads there; in a container there is no such terminal.
    Source: kernel Documentation/ABI/testing/sysfs-tty.
    """
    if not os.path.exists(_ACTIVE):
        return
    with open(_NAME, "x", encoding="ascii") as file:
        file.write("console\n")
    fd = mounts.clone_tree(_NAME)
    mounts.attach(fd, _ACTIVE, path=_ACTIVE)
    os.close(fd)


def use_console() -> None:
    """Make /dev/console stdin, stdout and stderr, without becoming our terminal."""
    fd = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY)
    for number in (0, 1, 2):
        os.dup2(fd, number)
    if fd > 2:
        os.close(fd)
