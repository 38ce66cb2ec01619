"""What shows the instance its own limits instead of the host's: lxcfs; and the guest API."""

from __future__ import annotations

import os

from lxpy.kernel import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.fs import Confined

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


def bind_guest_api(root: Confined, directory: str) -> None:
    """Show the daemon's directory for this instance at /dev/lxd, read-only."""
    fd = mounts.clone_tree(directory)
    flags = mounts.RDONLY | mounts.NODEV | mounts.NOSUID | mounts.NOEXEC
    mounts.set_attributes(fd, directory, flags)
    place = root.directory("/dev/lxd")
    mounts.attach(fd, "/dev/lxd", dir_fd=place)
    os.close(place)
    os.close(fd)
