"""Who the container is: its ids, name, files, environment and kernel settings."""

from __future__ import annotations

import os

from lxpy.kernel import namespaces, processes
from lxpy.kernel.processes import file_owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.fs import Confined
    from lxpy.runtime.plain import FileWrite, IdMapEntry, Spec

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOTIFY_PATH = "/dev/.lxc/notify"


def outside(idmap: list[IdMapEntry], kind: str, inside: int) -> int:
    """Return the host's id of the container's id. Raises ValueError when it has none."""
    if not idmap:
        return inside
    for entry in idmap:
        if entry["kind"] == kind and 0 <= inside - entry["inside"] < entry["size"]:
            return entry["outside"] + inside - entry["inside"]
    raise ValueError(f"{'uid' if kind == 'u' else 'gid'} {inside} is not mapped")


def lines(idmap: list[IdMapEntry], kind: str) -> list[tuple[int, int, int]]:
    """Return what uid_map ("u") or gid_map ("g") gets."""
    return [
        (entry["inside"], entry["outside"], entry["size"])
        for entry in idmap
        if entry["kind"] == kind
    ]


def enter_namespaces(userns_fd: int, hostname: str) -> None:
    """Become root of the user namespace and leave all other host namespaces but the cgroup's.

    The mounts made so far are locked by this. IPC comes after the change of ids: /dev/mqueue would
    belong to nobody. The pid namespace begins with the next child.
    """
    if userns_fd >= 0:
        namespaces.join(userns_fd, namespaces.NEWUSER, "user namespace")
        processes.become_root()
    flags = (
        namespaces.NEWNS | namespaces.NEWIPC | namespaces.NEWUTS | namespaces.NEWPID
        | namespaces.NEWNET
    )  # fmt: skip
    namespaces.unshare(flags, "namespaces")
    namespaces.switch_loopback_on()
    processes.set_hostname(hostname)


def write_files(root: Confined, files: list[FileWrite], uid: int, gid: int) -> None:
    """Write rendered templates into the rootfs, owned by the container's root."""
    with file_owner(uid, gid):
        for each in files:
            content = each["content"].encode("utf-8", "surrogateescape")
            root.write(each["path"], content, each["mode"], create_only=each["create_only"])


def apply_sysctls(sysctls: dict[str, str], last_gid: int) -> None:
    """Write kernel settings of the container's namespaces, after /proc is its own.

    ping_group_range of a new network namespace is empty; systemd's own value cannot be mapped.
    """
    wanted = {"net.ipv4.ping_group_range": f"0 {last_gid}", **sysctls}
    for key, value in wanted.items():
        path = "/proc/sys/" + (key if "/" in key else key.replace(".", "/"))
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(value)
        except OSError as error:
            if key in sysctls:
                reason = os.strerror(error.errno or 0)
                raise OSError(error.errno, f"sysctl {key}={value}: {reason}") from error


def environment(spec: Spec, extra: dict[str, str]) -> dict[str, str]:
    """Return the environment of PID 1; what the instance sets wins."""
    return {
        "PATH": _DEFAULT_PATH,
        "TERM": "linux",
        "container": "lxc",
        "NOTIFY_SOCKET": NOTIFY_PATH,
        **extra,
        **spec["environment"],
    }
