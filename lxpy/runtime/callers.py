"""Which container a process belongs to: its control group tells."""

from __future__ import annotations


def container_of(pid: int, root: str) -> str:
    """Return the name of the container whose group below `root` a process is in, "" for none.

    Raises OSError when there is no such process. Source: cgroups(7), /proc/PID/cgroup.
    """
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            number, _, rest = line.partition(":")
            if number == "0":
                return _below(rest.partition(":")[2].rstrip("\n"), root)
    return ""


def _below(path: str, root: str) -> str:
    """Return NAME of "/ROOT/NAME/p/..."."""
    prefix = f"/{root}/"
    if not path.startswith(prefix):
        return ""
    name, _, rest = path.removeprefix(prefix).partition("/")
    return name if rest == "p" or rest.startswith("p/") else ""
