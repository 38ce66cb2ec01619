"""What shows the instance its own limits instead of the host's: lxcfs; and the guest API."""

from __future__ import annotations

import os

from lxpy.kernel import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.plain import Disk

_CPUS = "sys/devices/system/cpu"


def bind_lxcfs(host_root: int, lxcfs: str) -> None:
    """Cover files of /proc and /sys by those of a mounted lxcfs; a dead lxcfs is left out.

    `host_root` is the old root: the files come from there, their mount flags are locked by now.
    """
    source = lxcfs.lstrip("/")
    try:
        fd = os.open(f"{source}/proc", os.O_RDONLY | os.O_DIRECTORY, dir_fd=host_root)
    except OSError:
        return
    try:
        names = os.listdir(fd)
    except OSError:
        return  # "Transport endpoint is not connected": lxcfs has died
    finally:
        os.close(fd)
    for name in names:
        _bind(host_root, f"{source}/proc/{name}", f"/proc/{name}")
    _bind(host_root, f"{source}/{_CPUS}", f"/{_CPUS}")


def _bind(host_root: int, source: str, target: str) -> None:
    if not os.path.exists(target):
        return
    try:
        fd = mounts.clone_tree(source, dir_fd=host_root)
    except FileNotFoundError:
        return
    mounts.attach(fd, target, path=target)
    os.close(fd)


def guest_api(directory: str) -> Disk:
    """Return what shows the daemon's directory for instances at /dev/lxd."""
    return {
        "source": directory, "target": "/dev/lxd", "readonly": True, "recursive": False,
        "shift": False, "required": False, "raw_options": "nodev,nosuid,noexec",
        "propagation": "", "beneath": "",
    }  # fmt: skip
