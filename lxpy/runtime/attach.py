"""Commands in a running container: a child of the supervisor, born in its pid namespace.

The supervisor joins the pid namespace for the length of one clone, so that one fork is enough; the
child joins the rest. It is a child of the supervisor and no descendant of the container's init.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import stat
import struct

from lxpy.kernel import namespaces, processes
from lxpy.kernel.libc import syscall
from lxpy.runtime import frames, intercept, phases, terminal
from lxpy.runtime.phases import Report, StepFailed
from lxpy.runtime.steps import confine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from lxpy.runtime.held import Container
    from lxpy.runtime.plain import Entry, ExecSpec
    from lxpy.runtime.server import Supervisor

TIOCSCTTY = 0x540E
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PTMX = os.makedev(5, 2)
NOT_FOUND, NOT_EXECUTABLE = 127, 126
EXITED_UNKNOWN = 255


class Command:
    """One executed command, and our copies of the daemon's ends of its pipes or terminal.

    They keep a command whose daemon is gone from dying of SIGPIPE or SIGHUP.
    """

    def __init__(self, supervisor: Supervisor, identifier: str, name: str) -> None:
        self.supervisor = supervisor
        self.id = identifier
        self.name = name
        self.pid = 0
        self.pidfd = -1
        self.start_time = 0
        self.status: int | None = None
        self.kept: dict[str, int] = {}
        self.interactive = False
        self.not_executed = False
        self.request = 0
        self._failure: StepFailed | None = None
        self._report: _socket.socket | None = None

    def begin(self, request: int, spec: ExecSpec, container: Container, stdio: list[int],
              kept: dict[str, int]) -> None:  # fmt: skip
        """Fork the command. `stdio` are its three descriptors, none for a terminal.

        Raises StepFailed, descriptors left to the caller.
        """
        self.request = request
        self.interactive = spec["interactive"]
        ours, theirs = frames.pair()
        try:
            group = container.group.open_exec()
        except OSError as error:
            raise StepFailed("cgroups", phases.explain(error), error.errno) from error
        try:
            namespaces.join(container.pidfd, namespaces.NEWPID, "pid namespace")
            try:
                pid, pidfd = processes.fork(cgroup_fd=group)
                if pid == 0:
                    _run(spec, container, theirs.fileno(), stdio)
            finally:
                namespaces.join(self.supervisor.own_pidns, namespaces.NEWPID, "own pid namespace")
        except OSError as error:
            ours.close()
            raise StepFailed("fork", phases.explain(error), error.errno) from error
        finally:
            theirs.close()
            os.close(group)
        self.pid, self.pidfd = pid, pidfd
        self.start_time = processes.start_time(pid)
        self.kept = kept
        self._report = ours
        ours.setblocking(False)
        self.supervisor.loop.watch(ours.fileno(), self._reported)
        self.supervisor.loop.watch(pidfd, self.ended)

    def adopt(self, entry: Entry, kept: dict[str, int]) -> None:
        """Watch a command that another supervisor started."""
        self.pid, self.start_time = entry["pid"], entry["start_time"]
        self.kept = kept
        try:
            self.pidfd = os.pidfd_open(self.pid)
            if processes.start_time(self.pid) == self.start_time:
                self.supervisor.loop.watch(self.pidfd, self.ended)
                return
        except OSError:
            pass
        self.status = EXITED_UNKNOWN
        self.supervisor.command_ended(self)

    def _reported(self, _: int) -> None:
        while self._report is not None:
            try:
                received = phases.receive(self._report)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self._executed()
                return
            news, fd = received
            if "listener" in news:
                intercept.start(self.supervisor, fd, self.supervisor.containers[self.name])
            elif fd >= 0:
                self.kept["pty"] = fd
            if "missing" in news:
                self.not_executed = True
            elif "failed" in news:
                self._failure = StepFailed(news["step"], news["failed"], news["errno"])

    def _executed(self) -> None:
        assert self._report is not None
        self.supervisor.loop.forget(self._report.fileno())
        self._report.close()
        self._report = None
        self.supervisor.command_started(self, self._failure)

    def ended(self, _: int) -> None:
        """The command is dead: collect it, tell the daemon."""
        self._reported(0)
        self.supervisor.loop.forget(self.pidfd)
        try:
            self._note_end(processes.reap(self.pidfd))
        except ChildProcessError:
            self.supervisor.foreign_status(self.pidfd, self._note_end)

    def _note_end(self, status: int | None) -> None:
        os.close(self.pidfd)
        self.pidfd = -1
        self.status = EXITED_UNKNOWN if status is None else exit_code(status)
        self.supervisor.command_ended(self)

    def describe(self) -> Entry:
        """Return what the daemon is told."""
        return {
            "exec": self.id, "name": self.name, "pid": self.pid, "start_time": self.start_time,
            "status": self.status, "kept": list(self.kept), "interactive": self.interactive,
            "not_executed": self.not_executed,
        }  # fmt: skip

    def drop(self, which: str) -> None:
        """Close our copy of one end, or of all ("")."""
        for key in [which] if which else list(self.kept):
            fd = self.kept.pop(key, -1)
            if fd >= 0:
                os.close(fd)


def exit_code(status: int) -> int:
    """Turn waitpid's status into a shell's: 128 + n for signal n."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def _run(spec: ExecSpec, container: Container, report_fd: int, stdio: list[int]) -> NoReturn:
    """Be the command. Entered right after fork; never returns."""
    try:
        container.group.enter_v1()  # first: after the next line only the needed is open
        report_fd, pidfd, *stdio = processes.keep_only([report_fd, container.pidfd, *stdio])
        report = Report(report_fd)
    except BaseException:
        os._exit(1)
    try:
        _join(spec, container, pidfd, report, stdio)
    except BaseException as error:
        report.fail(error)


def _join(spec: ExecSpec, container: Container, pidfd: int, report: Report,
          stdio: list[int]) -> NoReturn:  # fmt: skip
    report.begin("join")
    confine.set_rlimits(container.rlimits)
    confine.reset_oom_score()
    join_all(pidfd, user=bool(container.idmap))
    os.setsid()
    if container.idmap:
        processes.become_root()
    if spec["interactive"]:
        report.begin("terminal")
        stdio = [_open_terminal(spec, report)] * 3
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
    report.begin(f"working directory {spec['cwd']}")
    os.chdir(spec["cwd"] or "/")
    report.begin("confine")
    confine.confine_command(
        container.program,
        container.caps_drop,
        report if container.notifies else None,
        privileged=container.privileged,
    )
    os.setgroups([])
    os.setresgid(spec["gid"], spec["gid"], spec["gid"])
    os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    if spec["uid"] or spec["gid"]:
        processes.protect()
    processes.reset_signals()
    report.begin("exec")
    syscall("close_range", "all", 3, 0xFFFFFFFF, 4)  # CLOSE_RANGE_CLOEXEC
    code = _execute(spec["command"], spec["environment"])
    report.say(missing=code)
    os._exit(code)


def join_all(pidfd: int, *, user: bool) -> None:
    """Join every namespace of the container's init but the pid namespace, where we were born.

    The time namespace too: a restored container has its own clock. In a nested installation
    nothing is restored, and the clock is the host's, which nobody there may join.
    """
    flags = (
        namespaces.NEWNS | namespaces.NEWCGROUP | namespaces.NEWUTS | namespaces.NEWIPC
        | namespaces.NEWNET
    )  # fmt: skip
    if user:
        flags |= namespaces.NEWUSER
    if namespaces.HAS_TIME and not namespaces.is_nested():
        flags |= namespaces.NEWTIME
    namespaces.join(pidfd, flags, "namespaces")


def _open_terminal(spec: ExecSpec, report: Report) -> int:
    """Allocate a terminal of the container's devpts, hand out its master, return the slave.

    The container may have put anything in the place of /dev/pts/ptmx: what is opened must be the
    master device of a devpts, or the daemon would read from a file of the container's choice.
    """
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    found = os.fstat(master)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _PTMX:
        raise OSError(errno.ENODEV, "/dev/pts/ptmx is no terminal master")
    fcntl.ioctl(master, terminal.TIOCSPTLCK, struct.pack("i", 0))
    slave = terminal.open_slave(master)
    if spec["width"] and spec["height"]:
        terminal.resize(master, spec["width"], spec["height"])
    os.fchown(slave, spec["uid"], -1)
    report.send_descriptor(master)
    fcntl.ioctl(slave, TIOCSCTTY, 0)
    return slave


def _execute(command: list[str], environment: dict[str, str]) -> int:
    """Execute, found by PATH as execvpe(3) does; return the exit code of not having been able."""
    program = command[0]
    places = [program]
    if "/" not in program:
        path = environment.get("PATH", _DEFAULT_PATH)
        places = [f"{place or '.'}/{program}" for place in path.split(":")]
    code = NOT_FOUND
    for place in places:
        try:
            os.execve(place, command, environment)
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                code = NOT_EXECUTABLE
                try:
                    os.execve("/bin/sh", ["/bin/sh", place, *command[1:]], environment)
                except OSError:
                    continue
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                code = NOT_EXECUTABLE
    return code
