"""The daemon's handle on running systems: start, exec, console, limits, ends.

It speaks to the supervisor, which does the forking, and outlives it on both sides: a new daemon
takes over what the supervisor holds, a new supervisor gets back what the daemon holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from lxpy.errors import Failed, NotSupported, Unavailable
from lxpy.runtime import blockers, connection, frames, inits, phases
from lxpy.runtime.blockers import Blocker
from lxpy.runtime.cgroups import Group, Layout, Root
from lxpy.runtime.checkpoint import Dump, Way
from lxpy.runtime.link import Link, StartFailed, SupervisorLost
from lxpy.runtime.plugging import Devices
from lxpy.runtime.process import Console, Process, pipes
from lxpy.runtime.running import Exit, Held, Running, read_held
from lxpy.runtime.spec import ExecSpec, Limits, Node, Spec, decode, encode
from lxpy.runtime.usage import Meter, Usage

__all__ = ["Console", "Exit", "Held", "Process", "Runtime", "StartFailed", "SupervisorLost",
           "Usage"]  # fmt: skip

_FREEZE_TIMEOUT_S = 10.0
_RECONNECT_S = 10.0


class Runtime:
    """All running systems of this installation."""

    def __init__(self, run_dir: Path, *, cgroup: str, log_dir: Path, spawn: bool = True) -> None:
        self.on_exit: Callable[[Exit], None] = lambda _: None
        self.on_ready: Callable[[str], None] = lambda _: None
        self._run_dir = run_dir
        self._log_dir = log_dir
        self._spawns = spawn
        self._root = Root(Layout.detect(), cgroup)
        self._link: Link | None = None
        self._running: dict[str, Running] = {}
        self._processes: dict[str, Process] = {}
        self._networks: dict[int, Callable[[int], None]] = {}
        self._reboots: dict[str, int] = {}
        self.devices = Devices(self._find, self.linked)
        self._closing = False
        self._reconnecting: asyncio.Task[None] | None = None

    @property
    def link(self) -> Link:
        """The connection. Raises Unavailable while there is none."""
        if self._link is None or self._link.closed:
            raise Unavailable("The supervisor is not connected")
        return self._link

    async def linked(self) -> Link:
        """Return the connection; while a killed supervisor is replaced, wait for the new one.

        Raises Unavailable when none comes.
        """
        if self._reconnecting is not None:
            await asyncio.wait([self._reconnecting], timeout=_RECONNECT_S)
        return self.link

    # Connecting

    async def connect(self) -> list[Held]:
        """Connect, start a supervisor where none answers, and return what runs.

        Ends that happened meanwhile are told to `on_exit` before this returns.
        """
        self._closing = False
        try:
            await self._connect()
        except SupervisorLost:  # it was about to end: another one is being started
            await self.linked()
        return [each.held for each in self._running.values()]

    async def _connect(self) -> None:
        sock = await connection.reach(
            self._run_dir, self._root.path, self._log_dir, spawn=self._spawns
        )
        self._link = Link(sock, self._event, self._lost)
        known, self._running = self._running, {}
        try:
            await self._link.request("hello")
            for name in list(known):
                await self._hand_over(name, known.pop(name))
        finally:
            for name, old in known.items():  # it is gone again: the next one gets them
                self._running.setdefault(name, old)
        for process in list(self._processes.values()):
            if not process.ended:
                await self._hand_over_process(process)

    async def _hand_over(self, name: str, old: Running) -> None:
        """Give a new supervisor our copies of what its predecessor held."""
        new = self._running.get(name)
        if new is None or new.held.pid != old.held.pid:
            frames.close_all(old.fds)
            if not old.ended.done():
                old.ended.set_result(None)
            return
        new.ended = old.ended
        new.ready = new.ready or old.ready
        if new.fds:
            frames.close_all(old.fds)
        elif old.fds:
            new.fds = old.fds
            await self.link.request("adopt", old.fds, name=name)

    async def _hand_over_process(self, process: Process) -> None:
        await self.link.request(
            "adopt-exec", list(process.fds.values()), exec=process.id, name=process.name,
            pid=process.pid, start_time=process.start_time, keep=list(process.fds),
            interactive="pty" in process.fds,
        )  # fmt: skip

    def _lost(self) -> None:
        """The supervisor is gone: get another, instances do not notice."""
        self._networks.clear()
        if not self._closing and self._reconnecting is None:
            self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        delay_s = 0.05
        try:
            while not self._closing:
                try:
                    await self._connect()
                    return
                except (OSError, Failed, Unavailable, SupervisorLost):
                    await asyncio.sleep(delay_s)
                    delay_s = min(delay_s * 2, 5.0)
        finally:
            self._reconnecting = None

    async def close(self) -> None:
        """Disconnect; instances and commands go on."""
        self._closing = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
        if self._link is not None:
            self._link.close()
        for running in self._running.values():
            frames.close_all(running.fds)
            running.fds = []
        for process in self._processes.values():
            frames.close_all(list(process.fds.values()))
            process.fds.clear()

    async def shutdown(self) -> None:
        """End the supervisor. Raises StartFailed while something runs."""
        self._closing = True
        try:
            await self.link.request("shutdown")
        except StartFailed:
            self._closing = False
            raise
        except SupervisorLost:
            pass
        await self.close()

    # Events

    def _event(self, message: dict[str, Any], fds: list[int]) -> None:
        kind = message["event"]
        if kind == "network":
            ready = self._networks.get(message["start"])
            if ready is not None:
                ready(message["pid"])
        elif kind == "held":
            self._hold(message, fds)
        elif kind == "ready":
            running = self._running.get(message["name"])
            if running is not None and not running.ready:
                running.ready = True
                self.on_ready(message["name"])
        elif kind == "exit":
            self._exited(message)
        elif kind == "exec-held":
            self._hold_process(message, fds)
        elif kind == "exec-exit":
            process = self._processes.pop(message["exec"], None)
            if process is not None:
                process.finish(message["status"])

    def _hold(self, message: dict[str, Any], fds: list[int]) -> None:
        held = read_held(message)
        known = self._running.get(held.name)
        if known is not None and known.held.pid == held.pid:
            frames.close_all(fds)
            return
        meter = Meter(self._root.group(held.name))
        running = Running(held, fds, meter, message["console_log"])
        running.nodes = [decode(Node, each) for each in message.get("nodes", [])]
        self._running[held.name] = running

    def _exited(self, message: dict[str, Any]) -> None:
        name, pid = message["name"], message["pid"]
        running = self._running.get(name)
        if running is not None and running.held.pid == pid:
            del self._running[name]
            frames.close_all(running.fds)
            if not running.ended.done():
                running.ended.set_result(None)
        reason = message["reason"]
        if reason == "reboot":
            count = running.held.restart_count if running is not None else 0
            self._reboots[name] = count + 1
        else:
            self._reboots.pop(name, None)
        self.on_exit(Exit(name, pid, reason, message["status"], message["text"]))

    def _hold_process(self, message: dict[str, Any], fds: list[int]) -> None:
        if message["exec"] in self._processes or message["status"] is not None:
            frames.close_all(fds)
            return
        ends = dict(zip(message["kept"], fds, strict=True))
        process = Process(self, message["exec"], message["name"], ends)
        process.pid, process.start_time = message["pid"], message["start_time"]
        self._processes[process.id] = process

    # Instances

    async def start(
        self,
        spec: Spec,
        network: Callable[[int], Awaitable[None]],
        dump: Mapping[str, Any] | None = None,
    ) -> Held:
        """Start a system; `network(pid)` fills its network namespace before init is executed.

        With a `dump` it is restored from that, and `network` joins its interfaces before it goes
        on. A dump is {"program": CRIU, "images": directory, "veths": [[guest's name, host's]]}.

        Raises StartFailed, or what `network` raised, with nothing left behind.
        """
        link = await self.linked()
        number = link.number()
        failed: list[BaseException] = []
        tasks: list[asyncio.Task[None]] = []

        async def attach(pid: int) -> None:
            try:
                await network(pid)
            except BaseException as error:
                failed.append(error)
                link.tell("abort", name=spec.name, start=number, text=str(error))
                if isinstance(error, asyncio.CancelledError):
                    raise
            else:
                link.tell("go", name=spec.name, start=number)

        def ready(pid: int) -> None:
            tasks.append(asyncio.get_running_loop().create_task(attach(pid)))

        self._networks[number] = ready
        request = link.request(
            "start", number=number, spec=encode(spec),
            restart_count=self._reboots.pop(spec.name, 0), dump=dump,
        )  # fmt: skip
        waiting = asyncio.ensure_future(request)
        try:
            message, _ = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            await self._cancel_start(spec.name, number, waiting)
            raise
        except StartFailed as error:
            if failed:
                raise failed[0] from error
            raise
        finally:
            self._networks.pop(number, None)
            for task in tasks:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        return read_held(
            message
        )  # it is known, or has ended again, by the events before the answer

    async def _cancel_start(
        self, name: str, number: int, waiting: asyncio.Future[tuple[dict[str, Any], list[int]]]
    ) -> None:
        """Undo a start whose caller was cancelled, and wait until nothing of it is left."""
        with contextlib.suppress(SupervisorLost):
            self.link.tell("abort", name=name, start=number, text="cancelled")
        with contextlib.suppress(StartFailed, SupervisorLost):
            await waiting
            await self.kill(name)

    def dump(self, name: str, directory: Path, disks: frozenset[str], way: Way) -> Dump:
        """Return the dump of a running system, to be made as a context manager.

        `disks` are the targets of its disks.
        Raises StartFailed when it does not run, NotSupported when it has lost its console.
        """
        running = self._find(name)
        if not running.fds:
            raise NotSupported(
                f"The memory of {name} cannot be saved: it has lost its console, as daemon and "
                "supervisor ended at the same time: restart it first"
            )
        pid, group = running.held.pid, self._root.group(name)
        return Dump(directory, way, name=name, pid=pid, group=group, disks=disks)

    async def blockers(self, name: str) -> list[Blocker]:
        """Return what would keep it from being dumped. Raises StartFailed when it does not run."""
        pid = self._find(name).held.pid
        return await asyncio.to_thread(blockers.find, pid, self._root.group(name))

    def _find(self, name: str) -> Running:
        running = self._running.get(name)
        if running is None:
            raise StartFailed("find", f"{name} is not running", 3)
        return running

    def acknowledge(self, exit: Exit) -> None:
        """Say that an end has been noted: until then a new daemon hears of it again."""
        with contextlib.suppress(SupervisorLost, Unavailable):
            self.link.tell("ack", name=exit.name, pid=exit.pid)

    def held(self, name: str) -> Held | None:
        """Return the running system of that name."""
        running = self._running.get(name)
        return None if running is None else running.held

    def is_ready(self, name: str) -> bool:
        """Tell whether its init has reported that the boot is finished."""
        running = self._running.get(name)
        return running is not None and running.ready

    async def kill(self, name: str) -> None:
        """Kill everything in it; return when it is reaped and its cgroups are gone."""
        await (await self.linked()).request("kill", name=name)

    async def signal(self, name: str, signum: int) -> None:
        """Send a signal to its init."""
        await (await self.linked()).request("signal", name=name, signal=signum)

    async def shutdown_init(self, name: str) -> None:
        """Ask its init to shut down, in the way that this init understands.

        Raises StartFailed when it has ended. That init obeys, nobody knows: see `wait`.
        """
        await self._ask(name, self._manners(name).shutdown)

    async def reboot_init(self, name: str) -> None:
        """Ask its init to reboot: it ends for the reason "reboot". Raises StartFailed."""
        await self._ask(name, self._manners(name).reboot)

    def _manners(self, name: str) -> inits.Manners:
        try:
            return inits.manners(self._find(name).held.pid)
        except OSError as error:
            raise StartFailed("find", f"{name} has ended", error.errno) from error

    async def _ask(self, name: str, request: inits.Request) -> None:
        if request.signal:
            await self.signal(name, request.signal)
            return
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            await self.exec(ExecSpec(name, request.command, environment), (null, null, null))
        finally:
            os.close(null)

    async def wait(self, name: str, timeout_s: float | None) -> bool:
        """Wait for its end; False when the time is over before."""
        running = self._running.get(name)
        if running is None:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(running.ended)
        except TimeoutError:
            return False
        return True

    async def freeze(self, name: str) -> None:
        """Stop every process of it. Raises Failed when one does not stop in time."""
        self._find(name)
        await self._freezer(name, frozen=True)

    async def thaw(self, name: str) -> None:
        """Let its processes go on."""
        self._find(name)
        await self._freezer(name, frozen=False)

    async def _freezer(self, name: str, *, frozen: bool) -> None:
        group = self._root.group(name)
        group.freeze(frozen=frozen)
        deadline = asyncio.get_running_loop().time() + _FREEZE_TIMEOUT_S
        delay_s = 0.0005
        while group.is_frozen() != frozen:
            if asyncio.get_running_loop().time() > deadline:
                group.freeze(frozen=not frozen)
                raise Failed(f"{name} does not {'freeze' if frozen else 'thaw'} in time")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 0.05)

    def is_frozen(self, name: str) -> bool:
        """Tell whether it is frozen."""
        return self._root.group(name).is_frozen()

    async def limits(self, name: str, limits: Limits) -> None:
        """Change its limits while it runs. Raises StartFailed when one cannot be had."""
        self._find(name)
        group = self._root.group(name)
        try:
            await asyncio.to_thread(group.limit, encode(limits))
        except OSError as error:
            raise StartFailed("limits", phases.explain(error), error.errno) from error

    def usage(self, name: str) -> Usage:
        """Read what it uses. Raises StartFailed when it does not run."""
        return self._find(name).meter.read()

    def group(self, name: str) -> Group:
        """Return its control groups. Raises StartFailed when it does not run."""
        return self._find(name).meter.group

    # Commands and consoles

    async def exec(self, spec: ExecSpec, stdio: tuple[int, int, int] | None) -> Process:
        """Execute a command. `stdio` are its three descriptors (still the caller's to close).

        None makes pipes, whose ends are in the Process; a terminal for an interactive command.
        Raises StartFailed when it cannot be prepared; not being found is its exit code 127.
        """
        identifier = secrets.token_hex(8)
        ours: dict[str, int] = {}
        link = await self.linked()
        theirs: list[int] = []
        if not spec.interactive:
            if stdio is None:
                ours, theirs = pipes()
            else:
                theirs = [os.dup(fd) for fd in stdio]
        process = Process(self, identifier, spec.name, ours)
        self._processes[identifier] = process
        try:
            message, fds = await link.request(
                "exec", [*theirs, *ours.values()], name=spec.name, exec=identifier,
                spec=encode(spec), keep=list(ours),
            )  # fmt: skip
        except BaseException:
            self._processes.pop(identifier, None)
            frames.close_all(list(ours.values()))
            raise
        finally:
            frames.close_all(theirs)
        process.pid, process.start_time = message["pid"], message["start_time"]
        process.not_executed = message["not_executed"]
        if fds:
            process.fds["pty"] = fds[0]
            frames.close_all(fds[1:])
        return process

    async def execs(self) -> list[Process]:
        """Return the commands that run, those taken over after a restart included."""
        return list(self._processes.values())

    async def console(self, name: str) -> Console:
        """Attach to its console."""
        ours, theirs = socket.socketpair()
        try:
            await (await self.linked()).request("console", [theirs.fileno()], name=name)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return Console(self, name, ours)

    def console_log(self, name: str) -> Path:
        """Return where its console's output is kept."""
        return Path(self._find(name).log)
