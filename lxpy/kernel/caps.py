"""Capabilities: what PID 1 and everything below it can never have. Source: capabilities(7)."""

from __future__ import annotations

from lxpy.kernel.libc import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PR_CAPBSET_DROP = 24
SYS_MODULE = 16
SYS_RAWIO = 17
SYS_TIME = 25
MAC_OVERRIDE = 32
MAC_ADMIN = 33

#: Useless in a user namespace, but systemd starts units on their account that then fail.
UNPRIVILEGED = (SYS_MODULE, SYS_RAWIO)
#: Without a user namespace these reach the host.
PRIVILEGED = (SYS_MODULE, SYS_RAWIO, SYS_TIME, MAC_OVERRIDE, MAC_ADMIN)


def drop_bounding(capabilities: Iterable[int]) -> None:
    """Remove `capabilities` from the bounding set, which no exec can bring back."""
    for number in capabilities:
        prctl(f"PR_CAPBSET_DROP {number}", PR_CAPBSET_DROP, number)
