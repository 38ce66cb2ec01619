"""Processes: forking with clone3, pidfds, identities, and what protects a process while it joins.

Source: clone3(2), pidfd_open(2), prctl(2), credentials(7).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module costs an enum
import ctypes
import fcntl
import os
import struct

from lxpy.kernel.libc import AT_EMPTY_PATH, NUMBERS, _libc, failure, function, prctl, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_CHILD_CLEARTID = 0x00200000
CLONE_CHILD_SETTID = 0x01000000
CLONE_INTO_CGROUP = 0x200000000

#: of the threads' library. Source: nptl(7), rt_sigaction(2).
_GLIBC_SIGNALS = (32, 33)
_SIGACTION_BYTES, _SIGSET_BYTES = 32, 8

PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_GET_SECUREBITS = 27
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_GET_TID_ADDRESS = 40
SECBIT_NO_SETUID_FIXUP = 1 << 2
SIGCHLD = 17
KEYCTL_JOIN_SESSION_KEYRING = 1

# The raw call must keep the interpreter's lock: the child has no other thread to hand it back.
_locked = ctypes.PyDLL(None, use_errno=True)
_locked.syscall.restype = ctypes.c_long
for _hook in ("PyOS_BeforeFork", "PyOS_AfterFork_Child", "PyOS_AfterFork_Parent"):
    getattr(ctypes.pythonapi, _hook).restype = None


def _tid_address() -> int:
    """Find where glibc keeps the thread's id, so that clone3 refreshes it as fork(3) does."""
    address = ctypes.c_ulong(0)
    if _libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) < 0:
        return 0  # a kernel without CONFIG_CHECKPOINT_RESTORE
    return address.value


_TID_ADDRESS = _tid_address()


def fork(flags: int = 0, *, cgroup_fd: int = -1) -> tuple[int, int]:
    """Fork with clone3's `flags`; return (pid, pidfd) in the parent and (0, -1) in the child.

    With `cgroup_fd` the child is born in that cgroup. With CLONE_PARENT it becomes a child of the
    caller's parent. Only for a single-threaded process.
    """
    pidfd = ctypes.c_int(-1)
    flags |= CLONE_PIDFD
    if _TID_ADDRESS:
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
    if cgroup_fd >= 0:
        flags |= CLONE_INTO_CGROUP
    # The kernel refuses an exit signal beside CLONE_PARENT: the child inherits the caller's.
    signal = 0 if flags & CLONE_PARENT else SIGCHLD
    arguments = struct.pack(
        "11Q", flags, ctypes.addressof(pidfd), _TID_ADDRESS, 0, signal, 0, 0, 0, 0, 0,
        max(cgroup_fd, 0),
    )  # fmt: skip
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _locked.syscall(
        NUMBERS["clone3"], ctypes.c_char_p(arguments), ctypes.c_size_t(len(arguments))
    )
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise failure("clone3", f"flags {flags:#x}")
    return pid, pidfd.value


def send_signal(pidfd: int, number: int) -> None:
    """Source: pidfd_send_signal(2)."""
    syscall("pidfd_send_signal", f"signal {number}", pidfd, number, None, 0)


def take_descriptor(pid: int, number: int) -> int:
    """Return a copy of another process's descriptor. Source: pidfd_getfd(2)."""
    pidfd = os.pidfd_open(pid)
    try:
        return syscall("pidfd_getfd", f"descriptor {number} of {pid}", pidfd, number, 0)
    finally:
        os.close(pidfd)


def start_time(pid: int) -> int:
    """Return when the process started, in clock ticks since boot: with the pid it is unique.

    Raises FileNotFoundError when there is no such process. Source: proc_pid_stat(5), field 22.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def in_initial_user_namespace() -> bool:
    """Tell whether our ids are the host's: false in a container."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() == ["0", "0", "4294967295"]


def protect() -> None:
    """Forbid everyone in the namespaces we join to trace us or to read us in /proc."""
    prctl("PR_SET_DUMPABLE", PR_SET_DUMPABLE, 0)


def set_name(name: str) -> None:
    """Set what `ps` and /proc/PID/comm show."""
    prctl("PR_SET_NAME", PR_SET_NAME, name.encode()[:15])


def set_title(title: str) -> None:
    """Change what /proc/PID/cmdline shows, within the room that there was at exec."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end of proc(5)
    if 0 < start < end:
        text = title.encode()[: end - start - 1]
        ctypes.memmove(start, text + bytes(end - start - len(text)), end - start)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends: restored containers need it."""
    prctl("PR_SET_CHILD_SUBREAPER", PR_SET_CHILD_SUBREAPER, 1)


class file_owner:
    """Create files as `uid`:`gid` for the length of a block, and keep every capability meanwhile.

    In an idmapped mount the host's root cannot create anything (EOVERFLOW): ids must be mapped.
    """

    def __init__(self, uid: int, gid: int) -> None:
        self.uid, self.gid = uid, gid
        self._bits = 0

    def __enter__(self) -> None:
        if not (self.uid or self.gid):
            return
        self._bits = prctl("PR_GET_SECUREBITS", PR_GET_SECUREBITS)
        prctl("PR_SET_SECUREBITS", PR_SET_SECUREBITS, self._bits | SECBIT_NO_SETUID_FIXUP)
        _libc.setfsgid(self.gid)
        _libc.setfsuid(self.uid)

    def __exit__(self, *_: object) -> None:
        if not (self.uid or self.gid):
            return
        _libc.setfsuid(0)
        _libc.setfsgid(0)
        prctl("PR_SET_SECUREBITS", PR_SET_SECUREBITS, self._bits)


def become_root() -> None:
    """Become root of the user namespace just entered."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    protect()  # changing ids may have made us readable again


def new_session_keyring() -> None:
    """Leave the host's session keyring: without it /proc/keys shows the host's key."""
    try:
        syscall("keyctl", "JOIN_SESSION_KEYRING", KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in (38, 95):  # ENOSYS: a kernel without keys
            raise


def reset_signals() -> None:
    """Undo what Python did to signals: ignored ones and the mask would be inherited by exec."""
    for number in range(1, 65):
        try:
            if _signal.getsignal(number) != _signal.SIG_DFL:
                _signal.signal(number, _signal.SIG_DFL)
        except (OSError, ValueError):
            continue  # SIGKILL, SIGSTOP and glibc's own
    for number in _GLIBC_SIGNALS:
        # glibc 2.36's posix_spawn leaves them ignored, and its sigaction does not touch them.
        syscall("rt_sigaction", str(number), number, bytes(_SIGACTION_BYTES), 0, _SIGSET_BYTES)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def keep_only(fds: Sequence[int], start: int = 3) -> list[int]:
    """Close every descriptor from `start` on but `fds`; return where those are now, in order.

    They become start, start+1, ...: what a child inherits from the supervisor is exactly this.
    """
    high = max([start + len(fds), *fds], default=start) + 1
    for index, fd in enumerate(fds):
        os.dup2(fd, high + index, inheritable=False)
    for index in range(len(fds)):
        os.dup2(high + index, start + index, inheritable=False)
    syscall("close_range", "inherited", start + len(fds), 0xFFFFFFFF, 0)
    return list(range(start, start + len(fds)))


def set_hostname(name: str) -> None:
    """Source: sethostname(2)."""
    raw = name.encode()
    function("sethostname", name, raw, len(raw))


def signal_name(number: int) -> str:
    """Name a signal as `kill -l` does: 9 is SIGKILL."""
    for name, value in _signals():
        if value == number:
            return name
    return f"signal {number}"


def _signals() -> Iterator[tuple[str, int]]:
    for name in dir(_signal):
        if name.startswith("SIG") and not name.startswith("SIG_"):
            yield name, int(getattr(_signal, name))


def reap(pidfd: int) -> int | None:
    """Collect an ended child; return waitpid's status, None while it runs.

    Raises ChildProcessError when it is no child of ours. Source: waitid(2).
    """
    info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    if info is None:
        return None
    if info.si_code == os.CLD_EXITED:
        return info.si_status << 8
    return info.si_status | (0x80 if info.si_code == os.CLD_DUMPED else 0)


_PIDFD_GET_INFO = 0xC040FF0B
_INFO_EXIT = 1 << 3


def exit_status(pidfd: int) -> int | None:
    """Return waitpid's status of an ended process that is not our child; None when unknown.

    Source: PIDFD_GET_INFO of linux/pidfd.h, with exit codes since Linux 6.15.
    """
    request = bytearray(struct.pack("Q", _INFO_EXIT).ljust(64, b"\0"))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, request)
    except OSError:
        return None
    mask = struct.unpack_from("Q", request)[0]
    if not mask & _INFO_EXIT:
        return None
    return int(struct.unpack_from("i", request, 60)[0])


def execute_fd(fd: int, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Execute the program behind `fd`; returns only by raising OSError. Source: execveat(2)."""
    argv = _strings(arguments)
    envp = _strings([f"{key}={value}" for key, value in environment.items()])
    syscall("execveat", arguments[0], fd, b"", argv, envp, AT_EMPTY_PATH)


def _strings(values: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    raw = [os.fsencode(value) for value in values]
    return (ctypes.c_char_p * (len(raw) + 1))(*raw, None)
