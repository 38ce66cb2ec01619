"""How btrfs holds volumes to their sizes (all of this blocks).

Simple quotas, where the kernel has them (6.7): each extent counts for the subvolume that wrote it,
as long as it exists. They cost next to nothing, while counting what subvolumes refer to makes each
deletion of a snapshot walk all extents it shares: that took 300 times as long. A volume's group on
a level of our own has the limit; a subvolume that a guest makes joins the groups of the one around
it, so nobody escapes.

Older kernels, and file systems that count references already: the limit is that of the subvolume's
own group, on what it refers to; a subvolume in it has none.
Source: btrfs-quota(8), btrfs-qgroup(8), fs/btrfs/qgroup.c.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lxpy.kernel import btrfs
from lxpy.storage.volume import Usage

_SYSFS = Path("/sys/fs/btrfs")
#: on which no other program has groups
LEVEL = 0x6C78
_MOST = (1 << 64) - 1


def enable(fd: int) -> None:
    """Begin to count, unless the file system does already or only the costly way is there."""
    if not _is_enabled(fd) and (_SYSFS / "features/simple_quota").exists():
        btrfs.enable_quotas(fd, simple=True)


def limit(fd: int, numbers: Iterable[int], number: int, size_bytes: int | None) -> None:
    """Hold subvolume `number` to a size, with those in it (`numbers`); None lifts it."""
    if size_bytes is None and not _is_enabled(fd):
        return
    if not _is_enabled(fd):
        btrfs.enable_quotas(fd, simple=False)
    if not _is_simple(fd):
        btrfs.limit(fd, number, size_bytes)
        return
    group = _group(number)
    if size_bytes is None and not _directory(fd, group).exists():
        return
    try:
        btrfs.make_group(fd, group)
    except FileExistsError:
        pass
    for each in numbers:
        try:
            btrfs.assign(fd, each, group)
        except FileExistsError:
            pass
    btrfs.limit(fd, group, size_bytes)


def usage(fd: int, number: int) -> Usage | None:
    """Return what a subvolume takes as of the last commit, None where nobody counts."""
    found = _directory(fd, _group(number))
    if not found.exists():
        found = _directory(fd, number)
    try:
        used, most = (int((found / name).read_text()) for name in ("referenced", "max_referenced"))
    except FileNotFoundError:
        return None
    return Usage(used, 0 if most == _MOST else most)


def lift(fd: int, number: int) -> None:
    """Hold a subvolume to nothing any more: nothing in a full one could be removed."""
    group = _group(number)
    if _directory(fd, group).exists():
        for member in btrfs.members(fd, group):
            btrfs.assign(fd, member, group, assigned=False)
        btrfs.remove_group(fd, group)
    elif _directory(fd, number).exists() and not _is_simple(fd):
        btrfs.limit(fd, number, None)


def sweep(fd: int) -> None:
    """Remove groups whose subvolume went just before a crash."""
    directory = _SYSFS / btrfs.filesystem_id(fd) / "qgroups"
    for entry in list(directory.glob(f"{LEVEL}_*")):
        number = int(entry.name.partition("_")[2])
        if not btrfs.exists(fd, number):
            lift(fd, number)


def _is_enabled(fd: int) -> bool:
    return (_SYSFS / btrfs.filesystem_id(fd) / "qgroups").exists()


def _is_simple(fd: int) -> bool:
    mode = _SYSFS / btrfs.filesystem_id(fd) / "qgroups/mode"
    return mode.exists() and mode.read_text().strip() == "squota"


def _group(number: int) -> int:
    return LEVEL << btrfs.LEVEL_SHIFT | number


def _directory(fd: int, group: int) -> Path:
    level, number = group >> btrfs.LEVEL_SHIFT, group & ((1 << btrfs.LEVEL_SHIFT) - 1)
    return _SYSFS / btrfs.filesystem_id(fd) / "qgroups" / f"{level}_{number}"
