"""The parent's half of a start: namespace of ids, cgroup, console, fork, then events until exec."""

from __future__ import annotations

import _socket
import os
import time

from lxpy.kernel import namespaces, processes
from lxpy.runtime import child, frames, held, intercept, phases, proxies, terminal
from lxpy.runtime.phases import StepFailed
from lxpy.runtime.steps import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.runtime.plain import IdMapEntry, Spec
    from lxpy.runtime.server import Supervisor

_CACHED = 512


class UserNamespaces:
    """One user namespace for each map of ids, kept over restarts of its instance."""

    def __init__(self) -> None:
        self._fds: dict[tuple[tuple[str, int, int, int], ...], int] = {}

    def get(self, idmap: list[IdMapEntry]) -> int:
        """Return its descriptor, -1 for no map (a privileged container)."""
        if not idmap:
            return -1
        key = tuple((e["kind"], e["inside"], e["outside"], e["size"]) for e in idmap)
        fd = self._fds.pop(key, -1)
        if fd < 0:
            uids, gids = identity.lines(idmap, "u"), identity.lines(idmap, "g")
            fd = namespaces.make_user_namespace(uids, gids)
        self._fds[key] = fd  # the latest used is last
        if len(self._fds) > _CACHED:
            os.close(self._fds.pop(next(iter(self._fds))))
        return fd


class Start:
    """One start under way."""

    def __init__(self, supervisor: Supervisor, request: int, spec: Spec) -> None:
        self.supervisor = supervisor
        self.request = request
        self.spec = spec
        self.name = spec["name"]
        self.begun = time.monotonic()
        self.group = supervisor.root.group(self.name)
        self.container = held.Container(self.name, self.group)
        self.steps: list[list[Any]] = []
        self.failure: StepFailed | None = None
        self._executing = False
        self._completing = False
        self.stage_pid = 0
        self._stage_pidfd = -1
        self._report: _socket.socket | None = None

    def begin(self) -> None:
        """Fork the stage. Raises StepFailed, with nothing left behind."""
        step = "check"
        try:
            self.container.remember(self.spec)
            step = "user namespace"
            userns = self.supervisor.user_namespaces.get(self.spec["idmap"])
            uid = identity.outside(self.spec["idmap"], "u", 0)
            gid = identity.outside(self.spec["idmap"], "g", 0)
            step = "console"
            master, slave = terminal.open_pair()
            os.fchown(slave, uid, gid)
            os.fchmod(slave, 0o620)
            spec = self.spec
            self.container.console = terminal.Terminal(
                master, slave, spec["console_log"], spec["console_log_bytes"]
            )
            self.container.notify = held.make_notify_socket()
            step = "cgroups"
            payload = self.make_group(uid, gid)
            try:
                step = "device restrictions"
                self.container.restrict_devices()
                step = "fork"
                self._fork(payload, userns)
            finally:
                os.close(payload)
        except (OSError, ValueError) as error:
            self.discard()
            raise StepFailed(step, phases.explain(error), getattr(error, "errno", None)) from error

    def make_group(self, uid: int, gid: int) -> int:
        """Make its control groups; return a descriptor of the one to fork the child into."""
        try:
            return self.group.create(uid, gid)
        except FileExistsError:
            # Left by a start that a killed supervisor could not clean up.
            self.group.kill()
            if not self.group.remove():
                raise
            return self.group.create(uid, gid)

    def _fork(self, payload: int, userns: int) -> None:
        ours, theirs = frames.pair()
        assert self.container.console is not None
        assert self.container.notify is not None
        plan = child.Plan(
            self.spec, self.group, self.supervisor.stage, self.container.program,
            notifies=self.container.notifies,
            report_fd=theirs.fileno(), slave=self.container.console.slave,
            notify=self.container.notify.fileno(), userns_fd=userns,
        )  # fmt: skip
        pid, pidfd = processes.fork(namespaces.NEWNS, cgroup_fd=payload)
        if pid == 0:
            self.run_child(plan)
        theirs.close()
        self.stage_pid = pid
        self._stage_pidfd = pidfd
        self._report = ours
        ours.setblocking(False)
        self.supervisor.loop.watch(pidfd, self._stage_ended)
        self.supervisor.loop.watch(ours.fileno(), self._reported)

    def run_child(self, plan: child.Plan) -> None:
        """Be the child."""
        child.run(plan, child.start)

    def _stage_ended(self, _: int) -> None:
        self.supervisor.loop.forget(self._stage_pidfd)
        processes.reap(self._stage_pidfd)
        os.close(self._stage_pidfd)
        self._stage_pidfd = -1

    def _reported(self, _: int) -> None:
        assert self._report is not None
        while True:
            try:
                received = phases.receive(self._report)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self._child_done()
                return
            self._hear(*received)

    def _hear(self, news: dict[str, Any], fd: int) -> None:
        self.steps += news.get("steps", [])
        if "pid" in news:
            self._born(news["pid"], legacy=news["legacy"])
        elif "exec" in news:
            self._executing = True
        elif "listener" in news:
            intercept.start(self.supervisor, fd, self.container)
        elif "failed" in news:
            self._executing = False
            self.failure = StepFailed(news["step"], news["failed"], news["errno"])

    def _born(self, pid: int, *, legacy: bool) -> None:
        """Init exists, and with it the network namespace that the daemon now fills."""
        if legacy:
            self.group.layout.mount_systemd(self.supervisor.run_dir)
        container = self.container
        container.pid = pid
        container.pidfd = os.pidfd_open(pid)  # our own child: cannot be somebody else yet
        container.start_time = processes.start_time(pid)
        container.cgroup_id = self.group.identity()
        container.started_at = time.time()
        self.supervisor.loop.watch(container.pidfd, self._init_ended)
        self.supervisor.consoles.watch(container)
        self.supervisor.send({"event": "network", "start": self.request, "pid": pid})
        self.supervisor.journal.write(self.name, container.entry())

    def _init_ended(self, _: int) -> None:
        """Init has died before we heard that it was executed: look at what it said first."""
        if self._report is not None:
            self._reported(0)
        if self.supervisor.starts.get(self.name) is self:
            self._child_done()

    def go(self) -> None:
        """The network is there: let init be executed."""
        if self._report is not None:
            try:
                self._report.send(phases.GO)
            except OSError:
                return  # it has died; its end tells

    def abort(self, text: str) -> None:
        """Give the start up."""
        self.failure = self.failure or StepFailed("network", text)
        self._child_done()

    def _child_done(self) -> None:
        """The child has executed init, or has ended without."""
        self._close_report()
        if self.supervisor.starts.get(self.name) is not self or self._completing:
            return
        self._completing = True
        if self.failure is None and self._executing:
            proxies.apply(self.supervisor, self.container, self.spec["proxies"], self._complete)
        else:
            self._complete(self.failure)

    def _complete(self, failure: StepFailed | None) -> None:
        """All is there, or something has failed."""
        del self.supervisor.starts[self.name]
        self.failure = self.failure or failure
        self._log()
        if self.failure is None and self._executing:
            self.supervisor.started(self)
            return
        failure = self.failure or StepFailed("start", "the process ended without a word")
        self.discard()
        self.supervisor.start_failed(self, failure)

    def _close_report(self) -> None:
        if self._report is not None:
            self.supervisor.loop.forget(self._report.fileno())
            self._report.close()
            self._report = None

    def discard(self) -> None:
        """Undo everything. The stage may still live: the cgroup's end takes it along."""
        self.group.kill()
        container = self.container
        if container.pidfd >= 0:
            self.supervisor.loop.forget(container.pidfd)
            self.supervisor.reap_later(container.pidfd)
            container.pidfd = -1
        if container.console is not None:
            container.console.close(self.supervisor.loop.forget)
        container.close()
        self.supervisor.journal.remove(self.name)

    def _log(self) -> None:
        """Write what each step took: the log of a start."""
        if not self.spec["log"]:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        whole = (time.monotonic() - self.begun) * 1000
        lines = [f"{stamp} start of {self.name}: {whole:.1f} ms"]
        lines += [f"  {step}: {micros} us" for step, micros in self.steps]
        if self.failure is not None:
            lines.append(f"  failed in {self.failure.step}: {self.failure}")
        try:
            with open(self.spec["log"], "a", encoding="utf-8", errors="replace") as file:
                file.write("\n".join(lines) + "\n")
        except OSError:
            return  # a full disk must not keep an instance from starting
