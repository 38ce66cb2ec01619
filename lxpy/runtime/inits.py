"""How to ask an init to shut down or to reboot: each kind wants to hear it in its own way.

LXD sends SIGRTMIN+3 to systemd and SIGPWR to everything else, which only inits configured for it
understand; those that we know are asked in the words of their own tools.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """A signal to init, or (signal 0) a command to execute in the instance."""

    signal: int = 0
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manners:
    """What one kind of init understands."""

    shutdown: Request
    reboot: Request


SYSTEMD = Manners(Request(signal.SIGRTMIN + 3), Request(signal.SIGINT))
BUSYBOX = Manners(Request(signal.SIGUSR2), Request(signal.SIGTERM))
#: By the name of PID 1's program. sysvinit and upstart are "init".
_BY_PROGRAM = {
    "systemd": SYSTEMD,
    "busybox": BUSYBOX,
    "init": Manners(Request(command=("init", "0")), Request(command=("init", "6"))),
    "openrc-init": Manners(
        Request(command=("openrc-shutdown", "--poweroff", "now")),
        Request(command=("openrc-shutdown", "--reboot", "now")),
    ),
    "runit": Manners(Request(command=("init", "0")), Request(command=("init", "6"))),
}
OTHER = Manners(Request(signal.SIGPWR), Request(signal.SIGINT))


def manners(pid: int) -> Manners:
    """Return how to speak to the init whose host pid is `pid`.

    Raises FileNotFoundError when it is gone.
    """
    program = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    return _BY_PROGRAM.get(os.path.basename(program), OTHER)
