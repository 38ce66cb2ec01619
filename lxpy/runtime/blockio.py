"""Limits of block devices and huge pages, in either version of control groups.

Version 1 slows down what goes to a device at once (reads, O_DIRECT, fsync); version 2 what is
written back later, too. Source: cgroup-v2.rst "IO", blkio-controller.rst, hugetlb.rst.
"""

from __future__ import annotations

import errno
import os

from lxpy.runtime.files import read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.plain import IoLimit, Limits

#: what a limit is called: in ours, in version 1's file names, in version 2's lines
_KINDS = (
    ("read_bytes", "read_bps_device", "rbps"),
    ("write_bytes", "write_bps_device", "wbps"),
    ("read_ops", "read_iops_device", "riops"),
    ("write_ops", "write_iops_device", "wiops"),
)


def limit_devices(base: str, devices: list[IoLimit], *, v1: bool) -> None:
    """Have these limits alone, by device; `base` is the group, "" without a controller.

    Raises OSError.
    """
    if not base:
        if devices:
            raise OSError(errno.EOPNOTSUPP, "limits of disks: this host has no io controller")
        return
    wanted = {f"{each['major']}:{each['minor']}": each for each in devices}
    if v1:
        for ours, file, _ in _KINDS:
            path = f"{base}/blkio.throttle.{file}"
            values = {number: _count(each, ours) for number, each in wanted.items()}
            for number, value in {**dict.fromkeys(_devices(path), 0), **values}.items():
                _write(path, f"{number} {value}")
        return
    path = f"{base}/io.max"
    for number in {**dict.fromkeys(_devices(path)), **wanted}:
        given = wanted.get(number)
        words = [f"{word}={_count(given, ours) or 'max'}" for ours, _, word in _KINDS]
        _write(path, f"{number} {' '.join(words)}")


def _count(given: IoLimit | None, kind: str) -> int:
    return int(given[kind]) if given else 0  # type: ignore[literal-required]


def _devices(path: str) -> list[str]:
    """Return the devices that have limits now."""
    try:
        return [line.split()[0] for line in read(path).splitlines() if line.strip()]
    except FileNotFoundError:
        return []


def _write(path: str, text: str) -> None:
    try:
        write(path, text)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise
        if text.split()[1] in ("0", "rbps=max") and "=0" not in text:
            return  # a device that is gone needs no limit
        raise OSError(
            error.errno, f"limits of disks: device {text.split()[0]} cannot be limited here"
        ) from error


def set_weight(base: str, weight: int | None) -> None:
    """Set the share of disks, 10 to 1000 and 100 by default, where the scheduler knows shares.

    Raises OSError when it does not, and one was asked for.
    """
    done = False
    for file, prefix in (
        ("blkio.weight", ""), ("blkio.bfq.weight", ""), ("io.weight", "default "),
        ("io.bfq.weight", "default "),
    ):  # fmt: skip
        path = f"{base}/{file}"
        if base and os.path.exists(path):
            done = True
            write(path, f"{prefix}{100 if weight is None else weight}")
    if weight is not None and not done:
        raise OSError(errno.EOPNOTSUPP, "limits.disk.priority: this kernel has no shares of disks")


def limit_huge_pages(base: str, limits: Limits, *, v1: bool) -> None:
    """Limit huge pages by size ("2MB"); sizes without a limit have none. Raises OSError."""
    wanted = limits["hugepages"]
    file = "limit_in_bytes" if v1 else "max"
    for size in ("64KB", "1MB", "2MB", "1GB"):
        path = f"{base}/hugetlb.{size}.{file}"
        if base and os.path.exists(path):
            bytes_ = wanted.get(size)
            write(path, ("-1" if v1 else "max") if bytes_ is None else str(bytes_))
        elif size in wanted:
            text = f"limits.hugepages.{size}: this host has no huge pages of {size}"
            raise OSError(errno.EOPNOTSUPP, text)


def set_swappiness(base: str, value: int | None, *, v1: bool) -> None:
    """Set how readily memory is swapped out, None for the host's way.

    Raises OSError in version 2.
    """
    path = f"{base}/memory.swappiness"
    if v1 and os.path.exists(path):
        above = read(f"{os.path.dirname(base)}/memory.swappiness").strip()
        write(path, above if value is None else str(value))
    elif value is not None:
        text = "limits.memory.swap.priority: control groups of version 2 have no such priority"
        raise OSError(errno.EOPNOTSUPP, text)
