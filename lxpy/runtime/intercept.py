"""Calls that are carried out for an instance, as its own root may not: mknod and a few others.

A process for each filter, forked by the supervisor: it waits for calls and ends with the last
process under the filter. It is in the instance's control group, whose time it takes, but none that
the instance sees. What it does is bound by what the caller may do in its own user namespace,
and done with one capability, in the caller's root directory and mount namespace.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import struct
import time

from lxpy.kernel import caps, namespaces, processes
from lxpy.kernel.libc import MACHINE
from lxpy.kernel.notifications import Notification
from lxpy.kernel.seccomp import ARCHITECTURES
from lxpy.kernel.syscalls import numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from lxpy.runtime.cgroups import Group
    from lxpy.runtime.held import Container
    from lxpy.runtime.server import Supervisor

_MKNOD, _SYS_ADMIN, _SYS_NICE = 27, 21, 23
_AT_FDCWD = -100
_GROUP = ".intercept"
_SYSINFO = "=q3Q6QHH4x2QI4x"
#: the devices that nobody can do harm with: null, zero, full, random, urandom, tty
DEVICES = frozenset(os.makedev(major, minor) for major, minor in (
    (1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0),
))  # fmt: skip
_OPAQUE = (b"trusted.overlay.opaque", b"y")


class Caller:
    """Who makes a call: its ids on the host, its power in its user namespace, its places."""

    __slots__ = ("capabilities", "gid", "inside", "pid", "uid", "umask", "userns")

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            found = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        self.pid = pid
        self.uid = int(found["Uid"].split()[3])
        self.gid = int(found["Gid"].split()[3])
        self.capabilities = int(found["CapEff"], 16)
        self.umask = int(found["Umask"], 8)
        self.inside = int(found["NSpid"].split()[-1])
        self.userns = os.stat(f"/proc/{pid}/ns/user").st_ino

    def act(self, capability: int) -> None:
        """Make files as it does, and keep one capability."""
        caps.act_as(self.uid, self.gid, capability)


class Places:
    """A caller's mount namespace, root directory and working directory, or another, held open.

    Opened first and then checked (`Notification.check`), they are the caller's and no successor's.
    """

    __slots__ = ("_fds",)

    def __init__(self, pid: int, directory: int) -> None:
        place = "cwd" if directory == _AT_FDCWD else f"fd/{directory}"
        self._fds: list[int] = []
        try:
            for name in ("root", place):
                self._fds.append(os.open(f"/proc/{pid}/{name}", os.O_PATH | os.O_CLOEXEC))
            self._fds.append(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            self.__exit__()
            raise OSError(errno.EBADF, "no such directory") from error

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)

    def enter(self) -> None:
        """Take them for our own."""
        root, base, mount = self._fds
        namespaces.join(mount, namespaces.NEWNS, "mount namespace")
        os.fchdir(root)
        os.chroot(".")
        os.fchdir(base)


class Interceptor:
    """The process of one filter; `userns` is the instance's user namespace."""

    def __init__(self, listener: int, group: Group, userns: int, started_at: float) -> None:
        self._listener = listener
        self._group = group
        self._userns = userns
        self._started_at = started_at
        known = numbers(MACHINE)
        self._arch = next(audit for audit, table in ARCHITECTURES[MACHINE] if table == MACHINE)
        calls: tuple[tuple[str, Callable[[Notification], bool]], ...] = (
            ("mknod", self._mknod),
            ("mknodat", self._mknodat),
            ("setxattr", self._setxattr),
            ("sched_setscheduler", self._setscheduler),
            ("sysinfo", self._sysinfo),
        )
        self._calls = {known[name]: call for name, call in calls if name in known}

    def run(self) -> NoReturn:
        """Answer until nobody can ask any more."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while True:
            for _, event in poll.poll():
                if not event & select.POLLIN:
                    os._exit(0)
                try:
                    notification = Notification(self._listener)
                except OSError:
                    continue  # the caller was killed
                self._deal_with(notification)

    def _deal_with(self, notification: Notification) -> None:
        call = self._calls.get(notification.number)
        try:
            if call is None or notification.arch != self._arch or not call(notification):
                notification.let_through()
                return
        except OSError as error:
            notification.answer(error.errno or errno.EPERM)
        except (KeyError, ValueError, struct.error):
            notification.answer(errno.EPERM)
        else:
            notification.answer(0)

    def _caller(self, notification: Notification, capability: int) -> Caller | None:
        """Return who calls if it may in its own user namespace, which is the instance's."""
        caller = Caller(notification.pid)
        notification.check()
        may = caller.userns == self._userns and caller.capabilities >> capability & 1
        return caller if may else None

    def _mknod(self, notification: Notification) -> bool:
        path, mode, device, *_ = notification.arguments
        return self._make_node(notification, _AT_FDCWD, path, mode, device)

    def _mknodat(self, notification: Notification) -> bool:
        directory, path, mode, device, *_ = notification.arguments
        return self._make_node(notification, _signed(directory), path, mode, device)

    def _make_node(
        self, notification: Notification, directory: int, path: int, mode: int, device: int
    ) -> bool:
        mode, device = mode & 0xFFFF, device & 0xFFFFFFFF
        caller = self._caller(notification, _MKNOD)
        if caller is None or not stat.S_ISCHR(mode) or device not in DEVICES:
            return False
        name = notification.text(path)
        with Places(caller.pid, directory) as places:
            notification.check()

            def make() -> None:
                places.enter()
                caller.act(_MKNOD)
                os.umask(caller.umask)
                os.mknod(name, mode, device)

            _apart(make)
        return True

    def _setxattr(self, notification: Notification) -> bool:
        path, name, value, size, flags, _ = notification.arguments
        caller = self._caller(notification, _SYS_ADMIN)
        if caller is None or size != len(_OPAQUE[1]):
            return False
        if (notification.text(name), notification.memory(value, size)) != _OPAQUE:
            return False
        place = notification.text(path)
        with Places(caller.pid, _AT_FDCWD) as places:
            notification.check()

            def mark() -> None:
                places.enter()
                caller.act(_SYS_ADMIN)
                os.setxattr(place, _OPAQUE[0], _OPAQUE[1], flags & 3)

            _apart(mark)
        return True

    def _setscheduler(self, notification: Notification) -> bool:
        pid, policy, parameters, *_ = notification.arguments
        caller = self._caller(notification, _SYS_NICE)
        if caller is None:
            return False
        (priority,) = struct.unpack("=i", notification.memory(parameters, 4))
        target = _signed(pid) or caller.inside
        if target < 0:
            return False

        def schedule() -> None:
            namespaces.join(pids, namespaces.NEWPID, "pid namespace")
            _apart(change)  # only a child is born there

        def change() -> None:
            caller.act(_SYS_NICE)
            os.sched_setscheduler(target, _signed(policy), os.sched_param(priority))

        pids = os.open(f"/proc/{caller.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            notification.check()
            _apart(schedule)
        finally:
            os.close(pids)
        return True

    def _sysinfo(self, notification: Notification) -> bool:
        place = notification.arguments[0]
        limit, used = self._group.memory()
        total, swap = _memory("MemTotal"), _memory("SwapTotal")
        total = min(total, limit) if limit else total
        loads = [int(load * (1 << 16)) for load in os.getloadavg()]
        uptime = int(time.time() - self._started_at)
        processes_ = min(len(self._group.pids()), 0xFFFF)
        answer = struct.pack(
            _SYSINFO, uptime, *loads, total, max(0, total - used), 0, 0,
            swap, _memory("SwapFree"), processes_, 0, 0, 0, 1,
        )  # fmt: skip
        notification.put(place, answer)
        return True


def start(supervisor: Supervisor, listener: int, container: Container) -> None:
    """Fork the process for a filter of a container's. Closes `listener`."""
    try:
        userns = os.stat(f"/proc/{container.pid}/ns/user").st_ino
        group = container.group.open_own(_GROUP)
        try:
            pid, pidfd = processes.fork(cgroup_fd=group)
            if pid == 0:
                _serve(listener, container, userns)
        finally:
            os.close(group)
        supervisor.reap_later(pidfd)
    finally:
        os.close(listener)


def _serve(listener: int, container: Container, userns: int) -> NoReturn:
    try:
        container.group.enter_v1()
        (listener,) = processes.keep_only([listener])
        processes.set_name("lxpy-intercept")
        processes.set_title("lxpy-intercept")
        Interceptor(listener, container.group, userns, container.started_at).run()
    finally:
        os._exit(1)


def _apart(work: Callable[[], None]) -> None:
    """Do something in a process of its own, whose places and power are not ours afterwards.

    Raises OSError with the errno of its failure.
    """
    pid, pidfd = processes.fork()
    if pid == 0:
        code = errno.EPERM
        try:
            work()
            code = 0
        except OSError as error:
            code = error.errno or code
        finally:
            os._exit(code & 0xFF)
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    if status:
        number = os.WEXITSTATUS(status) if os.WIFEXITED(status) else errno.EPERM
        raise OSError(number, os.strerror(number))


def _signed(value: int) -> int:
    """Return an int argument, which came as 64 bits."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _memory(name: str) -> int:
    """Return a line of /proc/meminfo in bytes, 0 when it is not there."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
