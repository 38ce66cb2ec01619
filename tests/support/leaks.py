"""What an installation has on this host, to be the same after a test as before."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, fields
from pathlib import Path

from tests.support import processes
from tests.support.daemon import Daemon, cgroup_directories, links, mounts_below, nft_tables

# Kept on purpose: database, logs, cached images, the supervisor's journal, leases that time out.
KEPT = (
    *("lxpy.db*", "*.log", "*.log.*", "backups/*.db*", "images/*", "cache/*", "run/*"),
    *(
        "storage-pools/*/images/*",
        "networks/*/dnsmasq.*",
        "database",
        "records",
        "storage-pools/*/records",
        "logs/lxpyd*",
        ".tmp*",
        "tmp/*",
        "lxcfs*",
    ),
)


@dataclass(frozen=True)
class Footprint:
    """Everything on the host that belongs to one installation."""

    instances: frozenset[str]
    objects: frozenset[str]
    running_operations: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    processes: frozenset[str]
    directories: frozenset[str]
    supervisor_descriptors: frozenset[str]

    def added_to(self, before: Footprint) -> dict[str, list[str]]:
        """What is here and was not before, by kind."""
        return {
            field.name: sorted(more)
            for field in fields(self)
            if (more := getattr(self, field.name) - getattr(before, field.name))
        }


def take(daemon: Daemon) -> Footprint:
    """Look at everything; the daemon has to run."""
    # An exec'd or attached helper lives for milliseconds; what stays is counted by pid.
    held = {daemon.pid, *daemon.supervisors}
    inside = processes.in_cgroup(daemon.cgroup) if daemon.cgroup else {}
    own = processes.matching(f"{daemon.directory}/") | inside
    return Footprint(
        instances=frozenset(daemon.instances()),
        objects=frozenset(_objects(daemon)),
        running_operations=frozenset(_running(daemon)),
        mounts=frozenset(mounts_below(daemon.directory)),
        cgroups=frozenset(map(str, cgroup_directories(daemon.cgroup) if daemon.cgroup else ())),
        links=frozenset(links(sorted(daemon.bridges)) if daemon.bridges else ()),
        tables=frozenset(t for t in nft_tables() if any(t.endswith(b) for b in daemon.bridges)),
        processes=frozenset(f"{p} {line}" for p, line in own.items() if p not in held),
        directories=frozenset(_entries(daemon.directory)),
        supervisor_descriptors=frozenset(_numbered(daemon)),
    )


def _objects(daemon: Daemon) -> list[str]:
    networks = daemon.api.get("/1.0/networks?recursion=1")
    managed = [f"/1.0/networks/{network['name']}" for network in networks if network["managed"]]
    return [*daemon.api.get("/1.0/profiles"), *daemon.api.get("/1.0/storage-pools"), *managed]


def _running(daemon: Daemon) -> list[str]:
    operations = daemon.api.get("/1.0/operations")
    final = {"success", "failure", "cancelled"}
    return [url for status, urls in operations.items() if status not in final for url in urls]


def _entries(directory: Path) -> list[str]:
    found = []
    for top, names, files in os.walk(directory):
        here = Path(top).relative_to(directory)
        for name in list(names):
            path = here / name
            if any(path.match(pattern) for pattern in KEPT):
                names.remove(name)
            else:
                found.append(str(path))
            if len(path.parts) >= 5 and name in names:
                names.remove(name)
        found += [str(p) for f in files if not any((p := here / f).match(k) for k in KEPT)]
    return found


def _numbered(daemon: Daemon) -> list[str]:
    """Count descriptors by kind: `pidfd 3` is new when there were two."""
    counts: dict[str, int] = {}
    found = []
    for pid in daemon.supervisors:
        for target in processes.descriptors(pid):
            kind = target.split(":")[0] if ":[" in target else target
            if kind == "user":
                continue  # user namespaces are kept for the next start, up to a number
            counts[kind] = counts.get(kind, 0) + 1
            found.append(f"{kind} {counts[kind]}")
    return found


def check(daemon: Daemon, before: Footprint, timeout_s: float = 5) -> None:
    """Fail if anything is left that was not there before; ends take their time."""
    end = time.monotonic() + timeout_s
    while True:
        left = take(daemon).added_to(before)
        if not left:
            return
        if time.monotonic() > end:
            text = "\n".join(f"  {kind}: {', '.join(names)}" for kind, names in left.items())
            raise AssertionError(f"left behind:\n{text}")
        time.sleep(0.1)
