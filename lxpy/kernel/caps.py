"""Capabilities: what PID 1 and everything below it can never have. Source: capabilities(7)."""

from __future__ import annotations

import ctypes
import struct

from lxpy.kernel.libc import _libc, function, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PR_CAPBSET_DROP = 24
SYS_MODULE = 16
SYS_RAWIO = 17
SYS_TIME = 25
MAC_OVERRIDE = 32
MAC_ADMIN = 33

#: By their numbers.
NAMES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
    "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
    "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
    "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod",
    "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
    "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
)  # fmt: skip
#: Useless in a user namespace, but systemd starts units on their account that then fail.
UNPRIVILEGED = (SYS_MODULE, SYS_RAWIO)
#: Without a user namespace these reach the host.
PRIVILEGED = (SYS_MODULE, SYS_RAWIO, SYS_TIME, MAC_OVERRIDE, MAC_ADMIN)


def last() -> int:
    """Return the highest number that the kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def drop_bounding(capabilities: Iterable[int]) -> None:
    """Remove `capabilities` from the bounding set, which no exec can bring back."""
    for number in capabilities:
        prctl(f"PR_CAPBSET_DROP {number}", PR_CAPBSET_DROP, number)


def act_as(uid: int, gid: int, capability: int) -> None:
    """Make files as `uid`:`gid` from now on, with one capability and no other."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    data = ctypes.create_string_buffer(24)
    function("capget", "this thread", header, data)
    words = list(struct.unpack("<6I", data.raw))
    words[0], words[3] = 0, 0
    words[3 * (capability // 32)] = 1 << capability % 32
    function("capset", "this thread", header, struct.pack("<6I", *words))
