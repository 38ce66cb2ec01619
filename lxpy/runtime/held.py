"""A running container as the supervisor holds it, and the end of one."""

from __future__ import annotations

import _socket
import os
import struct

from lxpy.kernel import bpf, policy, processes, seccomp
from lxpy.runtime import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.kernel.bpf import Device
    from lxpy.runtime.cgroups import Group
    from lxpy.runtime.plain import Entry, Node, Proxy, Spec
    from lxpy.runtime.proxies import Forwarder
    from lxpy.runtime.terminal import Terminal

SO_PASSCRED = 16
SCM_CREDENTIALS = 2
_NOTIFY_BYTES = 8192
#: Room for the sender's credentials alone: descriptors that a container attaches are dropped.
_NOTIFY_ANCILLARY = _socket.CMSG_SPACE(12)
_JOURNALED = (
    *("name", "pid", "start_time", "cgroup_id", "started_at", "ready", "restart_count"),
    *("starting", "privileged", "devices", "seccomp", "caps_drop", "rlimits", "idmap", "intercept"),
    *("console_log", "console_log_bytes", "nodes", "proxies", "forwarder_id"),
)


class Container:
    """One container: what identifies it, its descriptors, what init has said."""

    __slots__ = (
        "caps_drop", "cgroup_id", "console", "console_log", "console_log_bytes", "devices",
        "end", "forwarder", "forwarder_id", "group", "idmap", "intercept", "killed", "name",
        "nodes", "notifies", "notify", "pid", "pidfd", "privileged", "program", "proxies", "ready",
        "restart_count", "rlimits", "seccomp", "shutdown", "start_time", "started_at", "starting",
        "waiting",
    )  # fmt: skip

    def __init__(self, name: str, group: Group) -> None:
        self.name = name
        self.group = group
        self.pid = 0
        self.pidfd = -1
        self.start_time = 0
        self.cgroup_id = 0
        self.started_at = 0.0
        self.ready = False
        self.starting = True  # init is not executed yet
        self.restart_count = 0
        self.privileged = False
        self.nodes: list[Node] = []  # those of its devices
        self.devices: list[Device] = []  # those it may open beside the standard ones
        self.seccomp = seccomp.DEFAULT
        self.caps_drop: list[int] = []
        self.intercept: list[str] = []
        self.rlimits: dict[str, list[int]] = {}
        self.idmap: list[Any] = []
        self.console_log = ""
        self.console_log_bytes = 0
        self.program = b""
        self.notifies = False  # whether the filter hands calls to us
        self.console: Terminal | None = None
        self.notify: _socket.socket | None = None
        self.proxies: list[Proxy] = []
        self.forwarder: Forwarder | None = None
        self.forwarder_id: list[int] = []  # its pid and start time
        self.killed = False
        self.shutdown = ""  # what a systemd of 257 or later said about its end
        self.end: Entry | None = None
        self.waiting: list[int] = []  # requests to answer at the end

    def remember(self, spec: Spec) -> None:
        """Take over what commands executed later need to know."""
        self.privileged = spec["privileged"]
        self.set_nodes(spec["nodes"])
        self.seccomp = spec["seccomp"]
        self.caps_drop = spec["caps_drop"]
        self.intercept = spec["intercept"]
        self.rlimits = spec["rlimits"]
        self.idmap = list(spec["idmap"])
        self.console_log = spec["console_log"]
        self.console_log_bytes = spec["console_log_bytes"]
        self.assemble()

    def set_nodes(self, nodes: list[Node]) -> None:
        """Have these device nodes, and the right to open what they lead to."""
        self.nodes = list(nodes)
        self.devices = [(n["kind"], n["major"], n["minor"]) for n in nodes]

    def assemble(self) -> None:
        """Build the seccomp filter. Raises ValueError for an unknown call."""
        self.program = seccomp.assemble(self.seccomp) if self.seccomp else b""
        self.notifies = bool(self.program) and policy.parse(self.seccomp).notifies

    def restrict_devices(self) -> None:
        """Let a container that can have nodes of any device open its own alone. Raises OSError.

        One without a user namespace makes them itself, another may have its image's on a root file
        system where nodes count.
        """
        if (not self.privileged or self.idmap) and "mknod" not in self.intercept:
            return
        fd = os.open(self.group.v2, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bpf.restrict_devices(fd, [*bpf.STANDARD, *self.devices])
        except PermissionError:
            if processes.in_initial_user_namespace():
                raise  # else the host around us restricts us all
        finally:
            os.close(fd)

    def entry(self) -> Entry:
        """Return what the journal keeps."""
        return {key: getattr(self, key) for key in _JOURNALED}

    def restore(self, entry: Entry) -> None:
        """Take the journal's values."""
        for key in _JOURNALED:
            if key in entry:  # an older supervisor may not have known it
                setattr(self, key, entry[key])
        self.devices = [(kind, major, minor) for kind, major, minor in self.devices]
        self.assemble()

    def describe(self) -> Entry:
        """Return what the daemon is told."""
        return {
            "name": self.name, "pid": self.pid, "start_time": self.start_time,
            "cgroup_id": self.cgroup_id, "started_at": self.started_at, "ready": self.ready,
            "restart_count": self.restart_count, "frozen": self.group.is_frozen(),
            "console": self.console is not None, "console_log": self.console_log,
            "nodes": self.nodes,
        }  # fmt: skip

    def alive(self) -> bool:
        """Tell whether the process is still the recorded one; opens its pidfd."""
        try:
            self.pidfd = os.pidfd_open(self.pid)
            if processes.start_time(self.pid) == self.start_time:
                return self.group.identity() == self.cgroup_id
        except OSError:
            pass
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        return False

    def descriptors(self) -> list[int]:
        """Return what the daemon keeps copies of."""
        fds = []
        if self.console is not None:
            fds.append(self.console.master)
        if self.notify is not None:
            fds.append(self.notify.fileno())
        return fds

    def hold(self, fds: list[int]) -> None:
        """Take over console master and notify socket (those of `descriptors`)."""
        if fds:
            slave = terminal.open_slave(fds[0])
            limit = self.console_log_bytes
            self.console = terminal.Terminal(fds[0], slave, self.console_log, limit)
        if len(fds) > 1:
            self.notify = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM, 0, fds[1])
            self.notify.setblocking(False)

    def hear(self) -> bool:
        """Read init's notifications; True when it became ready just now."""
        became = False
        for _ in range(16 if self.notify is not None else 0):
            try:
                assert self.notify is not None
                data, ancillary, _, _ = self.notify.recvmsg(_NOTIFY_BYTES, _NOTIFY_ANCILLARY)
            except BlockingIOError:
                break
            if _sender(ancillary) != self.pid:
                continue
            for line in data.decode("utf-8", "replace").split("\n"):
                key, _, value = line.partition("=")
                if key == "READY" and value == "1" and not self.ready:
                    self.ready = became = True
                elif key == "X_SYSTEMD_SHUTDOWN":
                    self.shutdown = value
        return became

    def close(self) -> None:
        """Close what is left but the console, which the loop must forget first."""
        if self.notify is not None:
            self.notify.close()
            self.notify = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def make_notify_socket() -> _socket.socket:
    """Make the socket that the child binds at /dev/.lxc/notify."""
    kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    sock = _socket.socket(_socket.AF_UNIX, kind)
    sock.setsockopt(_socket.SOL_SOCKET, SO_PASSCRED, 1)
    return sock


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == SCM_CREDENTIALS:
            return int(struct.unpack("3i", data[:12])[0])
    return -1


def judge(container: Container, status: int | None) -> tuple[str, int, str]:
    """Return (reason, status, text) of an end; `status` is waitpid's, None when unknown.

    A kernel tells reboot(2) of a pid namespace to the parent of its init as SIGHUP (restart) or
    SIGINT (halt, power off). Source: reboot(2), "Behavior inside PID namespaces".
    """
    if container.killed:
        return "exit", 137, "killed on request"
    if status is None:
        if container.shutdown:
            reason = "reboot" if container.shutdown in ("reboot", "kexec") else "poweroff"
            return reason, 0, f"init said {container.shutdown}"
        return "exit", 0, "init ended while no supervisor was its parent"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == 1:
            return "reboot", 0, "the instance asked for a reboot"
        if number == 2:
            return "poweroff", 0, "the instance powered off"
        text = f"init killed by signal {number} ({processes.signal_name(number)})"
        return "crash", 128 + number, text
    code = os.WEXITSTATUS(status)
    return "exit", code, f"init exited with status {code}"
