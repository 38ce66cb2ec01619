"""CRIU as a program: what its command lines have in common, and what its logs say.

Source: criu(8); docs/checkpoint-support.md for what was found out about it.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: what a restore needs besides CRIU's own files
MANIFEST = "manifest.json"
DUMP_LOG = "dump.log"
RESTORE_LOG = "restore.log"
#: alike at dump and restore
COMMON = (
    "--manage-cgroups=soft", "--tcp-established", "--file-locks", "--link-remap",
    "--ext-unix-sk", "--enable-fs", "ramfs,hugetlbfs",
)  # fmt: skip
#: what a first attempt logs, warnings and errors, and one that is made to find out more
VERBOSITY = ("--verbosity=2", "--verbosity=4")
#: a file that was deleted and is open still is part of the dump up to this size
GHOST_LIMIT = "256M"
# Lines that say "Error" and are none.
_HARMLESS = re.compile(
    r"Can't setup RLIMIT_NOFILE|iptables|ip6tables|address already assigned|execvp\("
    r"|FAILED\.$|cgroupd: recv req|Can't create a temporary directory",
    re.IGNORECASE,
)
_LINE = re.compile(r"^(?:\([0-9.]+\))?\s*(?:[0-9]+: )?Error(?: \([^)]*\))?: (.*)$")


def cgroup_roots(path: str, own: str = "/proc/self/cgroup") -> list[str]:
    """Return the options that say where an instance's control groups begin.

    `path` is its group below each mount point, such as "/lxpy/c1"; its cgroup2 namespace begins at
    the group of the payload, those of v1 at the group itself.
    """
    options = ["--cgroup-root", f"{path}/p"]
    with open(own, encoding="utf-8") as file:
        for line in file:
            number, controllers, _ = line.split(":", 2)
            if number != "0":
                options += ["--cgroup-root", f"{controllers}:{path}"]
    return options


def passes(cause: str) -> bool:
    """Tell whether a failure has a cause that goes by itself: a message not yet read."""
    return "The socket has data to read" in cause


def cause(log: str) -> str:
    """Return what CRIU's log gives as the reason of a failure, in one line."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            found = list(_errors(file))
    except OSError as error:
        return f"it left no log: {os.strerror(error.errno or 0)}"
    if not found:
        return "its log names no error"
    # The first is the cause, what follows are consequences.
    return found[0]


def _errors(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        match = _LINE.match(line.rstrip())
        if match and not _HARMLESS.search(match[1]):
            yield match[1]
