"""What this host has, and the kernel settings that many instances share."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import structlog

from lxpy.instances.architectures import lxd_name
from lxpy.instances.limits import Host
from lxpy.keys import parse_cpus

_log = structlog.get_logger()

#: the least that carries some hundreds of instances: each systemd holds about ten inotify
#: instances, each instance a keyring, and all are charged to the host's root
_SETTINGS = {
    "fs/inotify/max_user_instances": 65536,
    "fs/inotify/max_user_watches": 1048576,
    "kernel/keys/maxkeys": 20000,
    "kernel/keys/maxbytes": 2000000,
}


def read_host(lxcfs: Path | None) -> Host:
    """Return the host's cpus that are online, its memory, and where lxcfs is mounted."""
    try:
        cpus = tuple(parse_cpus(Path("/sys/devices/system/cpu/online").read_text().strip()))
    except OSError:
        cpus = tuple(sorted(os.sched_getaffinity(0)))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Host(cpus, memory, str(lxcfs) if lxcfs is not None else None)


def raise_settings(proc: Path = Path("/proc/sys")) -> None:
    """Raise kernel settings that are lower than many instances need; never lower one."""
    for name, least in _SETTINGS.items():
        path = proc / name
        try:
            have = int(path.read_text())
            if have < least:
                path.write_text(str(least))
                _log.info("kernel setting raised", name=name, before=have, now=least)
        except (OSError, ValueError) as error:
            _log.info("kernel setting not raised", name=name, wanted=least, error=str(error))


def raise_open_files() -> None:
    """Raise our soft limit of open files to the hard one: an instance costs a few of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def architecture() -> str:
    """Return LXD's name of the host's architecture."""
    return lxd_name(os.uname().machine)
