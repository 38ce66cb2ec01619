"""What would keep CRIU from dumping a running system, found by looking: nothing is stopped for it.

Everything is read from /proc, as the host's root. Blocking. Source: criu(8), proc(5).
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lxpy.kernel import processes
from lxpy.runtime import forwarder
from lxpy.runtime.cgroups import Group
from lxpy.runtime.steps.devices import STANDARD

#: link text of a descriptor -> what it is, and what to do
_DESCRIPTORS = (
    ("anon_inode:[io_uring]", "uses io_uring", "let it use another way: most have a setting"),
    ("anon_inode:bpf", "holds a BPF program or map", "stop it before, start it again after"),
    ("anon_inode:[perf_event]", "measures performance", "stop it before"),
    ("anon_inode:[userfaultfd]", "handles page faults itself", "stop it before"),
    ("anon_inode:[fanotify]", "watches whole file systems", "stop it before"),
    ("anon_inode:[landlock", "is about to restrict itself by landlock", "try again a little later"),
    ("/memfd:kvm", "runs a virtual machine", "stop it before"),
)
_NAMESPACES = {
    "user": "runs in a user namespace of its own, such as a nested container",
    "pid": "runs in a pid namespace of its own, such as a nested container",
    "uts": "has a host name of its own (ProtectHostname= of systemd)",
    "ipc": "has System V IPC of its own (PrivateIPC= of systemd)",
    "time": "has clocks of its own",
}
_REMEDY_NESTED = "stop nested containers first"
_LIMITS = (
    "has limits that lxpyd may not read, which lacks CAP_SYS_RESOURCE",
    "give lxpyd that capability, or the instance ids of its own (security.privileged)",
)
_CAP_SYS_RESOURCE = 1 << 24
#: file systems whose content CRIU neither saves nor finds again
_FILE_SYSTEMS = re.compile(r"fuse(?!ctl|\.lxcfs)|nfs|cifs|9p|ceph")
_STANDARD = frozenset(os.makedev(major, minor) for _, major, minor, _ in STANDARD)
_PTMX = os.makedev(5, 2)
_FAMILIES = frozenset(
    (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET)
)
_SO_DOMAIN = 39
_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason: the process (0: the instance as a whole), why, and what helps."""

    pid: int
    command: str
    reason: str
    remedy: str


def find(init: int, group: Group) -> list[Blocker]:
    """Return what keeps a running system from being dumped; `init` is its first process."""
    known = [kind for kind in _NAMESPACES if os.path.exists(f"/proc/self/ns/{kind}")]
    namespaces = {kind: _namespace(init, kind) for kind in known}
    found = list(_mounts(init))
    for pid in _processes(init, group):
        try:
            found += _process(pid, namespaces)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended; its parent need not have collected it
    return list(dict.fromkeys(found))


def _processes(init: int, group: Group) -> list[int]:
    """Return the processes that descend from init; executed commands do when left alone."""
    pids = []
    for path, _, _ in os.walk(f"{group.v2}/p"):
        with open(f"{path}/cgroup.procs", encoding="ascii") as file:
            pids += [int(line) for line in file]
    return sorted(pid for pid in pids if _descends(pid, init))


def _descends(pid: int, init: int) -> bool:
    while pid > 1:
        if pid == init:
            return True
        try:
            pid = int(_status(pid, "PPid:")[0])
        except (FileNotFoundError, ProcessLookupError):
            return False
    return False


def _process(pid: int, namespaces: dict[str, str]) -> Iterator[Blocker]:
    inside, command = _inside(pid), _command(pid)
    nested = [kind for kind, own in namespaces.items() if _namespace(pid, kind) != own]
    for kind in nested[:1]:
        remedy = _REMEDY_NESTED if kind in ("user", "pid") else "take that setting out"
        yield Blocker(inside, command, _NAMESPACES[kind], remedy)
    if nested and nested[0] in ("user", "pid"):
        return  # all else follows from that
    if not _limits_are_read(pid):
        yield Blocker(inside, command, *_LIMITS)
    for number in os.listdir(f"/proc/{pid}/fd"):
        reason = _descriptor(pid, number)
        if reason is not None:
            yield Blocker(inside, command, *reason)


def _limits_are_read(pid: int) -> bool:
    """Tell whether CRIU may read a process's limits. Source: prlimit(2)."""
    if _namespace(pid, "user") != _namespace(os.getpid(), "user"):
        return True  # in namespaces below, root has every capability
    if int(_status(os.getpid(), "CapEff:")[0], 16) & _CAP_SYS_RESOURCE:
        return True
    return all(each == "0" for field in ("Uid:", "Gid:") for each in _status(pid, field)[:3])


def _descriptor(pid: int, number: str) -> tuple[str, str] | None:
    path = f"/proc/{pid}/fd/{number}"
    try:
        link = os.readlink(path)
        for text, reason, remedy in _DESCRIPTORS:
            if link.startswith(text):
                return reason, remedy
        if link.startswith("socket:"):
            family, peer = _socket_facts(pid, int(number))
            if family == socket.AF_UNIX and peer and _command(peer) == forwarder.NAME:
                return "has a connection through a proxy device", "let it close the connection"
            if family in _FAMILIES:
                return None
            return "has a socket of a kind that cannot be saved", "stop it before"
        status = os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH, errno.EBADF):
            return None
        raise
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    if is_device and status.st_rdev not in _STANDARD and not _is_terminal(status.st_rdev):
        return f"has device {link} open", "let it close the device"
    return None


def _is_terminal(device: int) -> bool:
    return device == _PTMX or 136 <= os.major(device) <= 143


def _socket_facts(pid: int, number: int) -> tuple[int, int]:
    """Return the family of a socket, and the process at its other end (0: none that is known)."""
    descriptor = processes.take_descriptor(pid, number)
    with socket.socket(fileno=descriptor) as copy:
        family = copy.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN)
        peer = 0
        if family == socket.AF_UNIX:
            credentials = copy.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            peer = max(_UCRED.unpack(credentials)[0], 0)
    return family, peer


def _mounts(init: int) -> Iterator[Blocker]:
    """Look for file systems that somebody mounted inside."""
    with open(f"/proc/{init}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, target = after.split(" ")[0], before.split(" ")[4]
            if kind == "cgroup":
                reason = "its init uses control groups of version 1"
                yield Blocker(0, "", reason, "memory of such guests cannot be saved")
                return
            if _FILE_SYSTEMS.match(kind):
                yield Blocker(0, "", f"{kind} is mounted at {target}", f"unmount {target} first")


def _namespace(pid: int, kind: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except PermissionError:  # what the kernel says, to root, of a process that has just ended
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended") from None


def _inside(pid: int) -> int:
    """Return a process's number in the instance's pid namespace."""
    words = _status(pid, "NSpid:")
    return int(words[1] if len(words) > 1 else words[0])


def _status(pid: int, field: str) -> list[str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(field):
                return line.split()[1:]
    raise ProcessLookupError(errno.ESRCH, f"{field} of {pid}")


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
