"""Which block device something lies on: what limits of disks are set for. Blocking."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lxpy.errors import Failed

Device = tuple[int, int]


def below(name: str, path: str, sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> Device:
    """Return the whole device below a path, of disk `name`: its partition's, if it is one.

    Raises Failed where there is none (tmpfs, network), or it cannot be told (zfs).
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unknown(name, path, str(error)) from error
    number = status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev
    device = os.major(number), os.minor(number)
    if device[0] == 0:  # such as btrfs, where each subvolume has a number of its own
        device = _mounted(name, path, proc)
    entry = sys / "dev/block" / f"{device[0]}:{device[1]}"
    if not entry.exists():
        raise _unknown(name, path, "it is on no block device")
    if (entry / "partition").exists():
        major, _, minor = (entry.resolve().parent / "dev").read_text().strip().partition(":")
        return int(major), int(minor)
    return device


def _mounted(name: str, path: str, proc: Path) -> Device:
    """Return the device of the mount that a path is on, as far as it names one."""
    best, source = "", ""
    real = os.path.realpath(path)
    for line in (proc / "self/mountinfo").read_text(errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
        if len(point) >= len(best) and (real == point or real.startswith(point.rstrip("/") + "/")):
            best, source = point, after.split()[1]
    try:
        status = os.stat(source)
    except OSError:
        status = None
    if status is None or not stat.S_ISBLK(status.st_mode):
        raise _unknown(name, path, f"it is mounted from {source or 'nowhere'}")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _unknown(name: str, path: str, reason: str) -> Failed:
    return Failed(
        f'Failed to start device "{name}": limits of the disk at {path} cannot be set: {reason}; '
        "unset limits.read, limits.write and limits.max"
    )
