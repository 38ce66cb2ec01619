"""What the supervisor does: the requests it takes, the events it sends.

Parent of every init (only a parent can tell a reboot from a power-off), holder of consoles and
notify sockets, forker of executed commands. It knows no database, no network, no API: it carries
out a spec and reports what happened. It outlives the daemon; nothing here may block.
"""

from __future__ import annotations

import os
import traceback

from lxpy.kernel import processes
from lxpy.runtime import frames, hotplug, phases, proxies
from lxpy.runtime.attach import Command
from lxpy.runtime.consoles import Consoles
from lxpy.runtime.held import Container, judge
from lxpy.runtime.journal import Journal, boot_id
from lxpy.runtime.launch import Start, UserNamespaces
from lxpy.runtime.loop import Loop
from lxpy.runtime.peer import Peer
from lxpy.runtime.phases import StepFailed
from lxpy.runtime.revive import Restore
from lxpy.runtime.terminal import resize

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

    from lxpy.runtime.cgroups import Group, Root
    from lxpy.runtime.frames import Message

_REMOVAL_TRIES = 200
_STATUS_TRIES = 38  # two seconds in all


class Supervisor:
    """What is held, and what the daemon may ask."""

    def __init__(self, run_dir: str, root: Root, listener: _socket.socket) -> None:
        self.loop = Loop()
        self.root = root
        self.run_dir = run_dir
        self.stage = f"{run_dir}/stage"
        os.makedirs(self.stage, mode=0o700, exist_ok=True)
        self.journal = Journal(f"{run_dir}/journal", boot_id())
        self.user_namespaces = UserNamespaces()
        self.own_pidns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.containers: dict[str, Container] = {}
        self.starts: dict[str, Start] = {}
        self.commands: dict[str, Command] = {}
        self.ends: list[Message] = []  # told again until the daemon has acknowledged them
        self.consoles = Consoles(self.loop)
        self.peer = Peer(self.loop, listener, self._handle, self._daemon_gone)

    # The connection

    def _daemon_gone(self) -> None:
        """Give up the starts that wait for it."""
        for start in list(self.starts.values()):
            start.abort("the daemon went away")

    def _handle(self, message: Message, fds: list[int]) -> None:
        request = message.get("id", 0)
        try:
            operation = _OPERATIONS.get(message.get("op", ""))
            if operation is None:
                raise StepFailed("request", f"unknown request {message.get('op')!r}")
            answer = operation(self, message, fds)
        except StepFailed as error:
            self.refuse(request, error)
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            self.refuse(request, StepFailed(message["op"], phases.explain(error), number))
        except Exception as error:
            traceback.print_exc()
            self.refuse(request, StepFailed(message.get("op", ""), repr(error)))
        else:
            if answer is not None:
                self.answer(request, answer)
        finally:
            frames.close_all(fds)  # those an operation keeps it has taken out of the list

    def send(self, message: Message, fds: list[int] | None = None) -> None:
        """Send to the daemon, if there is one."""
        self.peer.send(message, fds)

    def answer(self, request: int, result: Message, fds: list[int] | None = None) -> None:
        if request:
            self.send({"id": request, "ok": result}, fds)

    def refuse(self, request: int, error: StepFailed) -> None:
        if request:
            told = {"step": error.step, "errno": error.number, "text": str(error)}
            self.send({"id": request, "error": told})

    # Starts and ends

    def held(self, message: Message) -> Container:
        """Return the container a request names. Raises StepFailed."""
        container = self.containers.get(message["name"])
        if container is None:
            raise StepFailed("find", f"{message['name']} is not running", 3)
        return container

    def started(self, start: Start) -> None:
        """Init has been executed."""
        container = start.container
        self.containers[start.name] = container
        container.starting = False
        self.journal.write(container.name, container.entry())
        self.watch(container)
        # An event, so that the daemon knows of it before it hears of its end.
        self.send({"event": "held", **container.describe()}, container.descriptors())
        self.answer(start.request, container.describe())

    def start_failed(self, start: Start, failure: StepFailed) -> None:
        """Answer when nothing of it is left."""

        def gone() -> None:
            proxies.ended(self, start.container, lambda: self.refuse(start.request, failure))

        self.remove_group(start.group, gone)

    def watch(self, container: Container) -> None:
        """Hear of its end, its console and its notifications."""
        self.loop.watch(container.pidfd, lambda _: self._ended(container))
        self.consoles.watch(container)
        if container.notify is not None:
            self.loop.watch(container.notify.fileno(), lambda _: self._notified(container))

    def _notified(self, container: Container) -> None:
        if container.hear():
            self.journal.write(container.name, container.entry())
            self.send({"event": "ready", "name": container.name})

    def _ended(self, container: Container) -> None:
        try:
            status = processes.reap(container.pidfd)
            if status is not None:
                self._note_end(container, status)
        except ChildProcessError:  # one that was taken over
            self.loop.forget(container.pidfd)
            container.hear()
            if container.killed or container.shutdown:
                self._note_end(container, None)
                return
            container.group.kill()
            # A reboot or a power-off leaves 0 behind, like exit(0).
            self.foreign_status(container.pidfd, lambda s: self._note_end(container, s or None))

    def foreign_status(
        self, pidfd: int, then: Callable[[int | None], None], tries: int = 0
    ) -> None:
        """Call `then` with the status of another's child, None when it cannot be had.

        The kernel tells it once the parent, the host's init, has collected it.
        """
        status = processes.exit_status(pidfd)
        if status is None and tries < _STATUS_TRIES:
            delay = 0.001 * 2 ** min(tries, 6)
            self.loop.later(delay, lambda: self.foreign_status(pidfd, then, tries + 1))
        else:
            then(status)

    def _note_end(self, container: Container, status: int | None) -> None:
        container.hear()
        if container.notify is not None:
            self.loop.forget(container.notify.fileno())
        reason, code, text = judge(container, status)
        end = {"event": "exit", "name": container.name, "pid": container.pid, "reason": reason,
               "status": code, "text": text}  # fmt: skip
        container.end = end
        self.journal.write(container.name, {**container.entry(), "end": end})
        self.loop.forget(container.pidfd)
        self.consoles.close(container)
        container.close()
        container.group.kill()  # executed commands die with it

        def gone() -> None:
            proxies.ended(self, container, lambda: self._gone(container, end))

        self.remove_group(container.group, gone)

    def _gone(self, container: Container, end: Message) -> None:
        self.containers.pop(container.name, None)
        self.ends.append(end)
        self.send(end)
        for request in container.waiting:
            self.answer(request, {})

    def remove_group(self, group: Group, then: Callable[[], None], tries: int = 0) -> None:
        """Remove the cgroups as soon as the last process is gone, then call `then`."""
        if group.remove() or tries >= _REMOVAL_TRIES:
            then()
            return
        if tries in (3, 30):
            group.kill()
        delay = min(0.0005 * (tries + 1), 0.1)
        self.loop.later(delay, lambda: self.remove_group(group, then, tries + 1))

    def reap_later(self, pidfd: int) -> None:
        """Collect a child that is about to die."""

        def ended(_: int) -> None:
            self.loop.forget(pidfd)
            try:
                processes.reap(pidfd)
            finally:
                os.close(pidfd)

        self.loop.watch(pidfd, ended)

    def reap_orphan(self, pidfd: int, tries: int = 0) -> None:
        """Collect a dying process that becomes our child once its parent is dead, too."""
        try:
            done = processes.reap(pidfd) is not None
        except ChildProcessError:
            done = False
        if done or tries >= _STATUS_TRIES:
            os.close(pidfd)
            return
        delay = 0.001 * 2 ** min(tries, 6)
        self.loop.later(delay, lambda: self.reap_orphan(pidfd, tries + 1))

    # Executed commands

    def command_started(self, command: Command, failure: StepFailed | None) -> None:
        """The command has been executed, or could not be prepared."""
        if failure is not None:
            command.request, request = 0, command.request
            command.drop("")
            self.refuse(request, failure)
            return
        fds = [command.kept["pty"]] if "pty" in command.kept else []
        self.answer(command.request, command.describe(), fds)
        command.request = -1

    def command_ended(self, command: Command) -> None:
        """Tell; without a daemon it is kept until one comes."""
        if command.request == 0:
            self.commands.pop(command.id, None)  # refused: nobody knows it
            return
        if self.peer.connected:
            self.send({"event": "exec-exit", **command.describe()})
            command.drop("")
            self.commands.pop(command.id, None)

    # What the daemon may ask

    def _hello(self, message: Message, fds: list[int]) -> Message:
        """Tell all that is held, descriptors included."""
        for container in self.containers.values():
            if container.end is None:
                event = {"event": "held", **container.describe()}
                self.send(event, container.descriptors())
        for command in list(self.commands.values()):
            ends = list(command.kept.values())
            self.send({"event": "exec-held", **command.describe()}, ends)
            if command.status is not None:
                self.command_ended(command)
        for end in self.ends:
            self.send(end)
        return {"version": frames.VERSION, "cgroup": self.root.path, "pid": os.getpid()}

    def _start(self, message: Message, fds: list[int]) -> None:
        spec = message["spec"]
        name = spec["name"]
        if name in self.containers or name in self.starts:
            raise StepFailed("check", f"{name} is already running", 17)
        # Who starts it again knows of its end.
        self.ends = [end for end in self.ends if end["name"] != name]
        dump = message.get("dump")
        start = (
            Restore(self, message["id"], spec, dump) if dump else Start(self, message["id"], spec)
        )
        start.container.restart_count = message.get("restart_count", 0)
        self.starts[name] = start
        try:
            start.begin()
        except StepFailed as failure:
            del self.starts[name]
            self.start_failed(start, failure)

    def _go(self, message: Message, fds: list[int]) -> None:
        start = self.starts.get(message["name"])
        if start is not None and start.request == message["start"]:
            start.go()

    def _abort(self, message: Message, fds: list[int]) -> None:
        start = self.starts.get(message["name"])
        if start is not None and start.request == message["start"]:
            start.abort(message["text"])

    def _kill(self, message: Message, fds: list[int]) -> None:
        container = self.held(message)
        container.killed = True
        container.waiting.append(message["id"])
        if container.end is None:
            container.group.kill()
            try:
                processes.send_signal(container.pidfd, 9)
            except ProcessLookupError:
                return  # it is ending already

    def _signal(self, message: Message, fds: list[int]) -> Message:
        processes.send_signal(self.held(message).pidfd, message["signal"])
        return {}

    def _exec(self, message: Message, fds: list[int]) -> None:
        container = self.held(message)
        count = 0 if message["spec"]["interactive"] else 3
        command = Command(self, message["exec"], container.name)
        kept = dict(zip(message["keep"], fds[count:], strict=True))
        command.begin(message["id"], message["spec"], container, fds[:count], kept)
        del fds[count:]
        self.commands[command.id] = command

    def _exec_signal(self, message: Message, fds: list[int]) -> Message:
        command = self.commands.get(message["exec"])
        if command is None or command.pidfd < 0:
            raise StepFailed("signal", "the command has ended", 3)
        processes.send_signal(command.pidfd, message["signal"])
        return {}

    def _exec_close(self, message: Message, fds: list[int]) -> None:
        command = self.commands.get(message["exec"])
        if command is not None:
            command.drop(message["which"])

    def _console_attach(self, message: Message, fds: list[int]) -> Message:
        container = self.held(message)
        if container.console is None:
            raise StepFailed("console", f"the console of {container.name} was lost", 6)
        self.consoles.attach(container, fds.pop(0))
        return {}

    def _console_resize(self, message: Message, fds: list[int]) -> None:
        container = self.held(message)
        if container.console is not None:
            resize(container.console.master, message["width"], message["height"])

    def _adopt(self, message: Message, fds: list[int]) -> Message:
        """Take back the descriptors of a container that a former supervisor started."""
        container = self.held(message)
        if container.console is None:
            container.hold(fds)
            fds.clear()
            self.watch(container)
        return {}

    def _adopt_exec(self, message: Message, fds: list[int]) -> Message:
        if message["exec"] not in self.commands:
            command = Command(self, message["exec"], message["name"])
            command.request = -1
            command.interactive = message["interactive"]
            self.commands[command.id] = command
            kept = dict(zip(message["keep"], fds, strict=True))
            fds.clear()
            command.adopt(message, kept)
        return {}

    def _acknowledge(self, message: Message, fds: list[int]) -> None:
        for end in list(self.ends):
            if end["name"] == message["name"] and end["pid"] == message["pid"]:
                self.ends.remove(end)
                if end["name"] not in self.containers and end["name"] not in self.starts:
                    self.journal.remove(end["name"])

    def _hotplug(self, message: Message, fds: list[int]) -> Message | None:
        return hotplug.handle(self, message)

    def _shutdown(self, message: Message, fds: list[int]) -> Message:
        if self.containers or self.starts:
            names = ", ".join([*self.containers, *self.starts])
            raise StepFailed("shutdown", f"still running: {names}", 16)
        self.loop.running = False
        return {}

    def take_over(self) -> None:
        """Adopt what a former supervisor has left, from the journal; remove what it left half."""
        entries = self.journal.load()
        for name in self.root.names():
            if name not in entries:
                self._remove_remains(name)
        for name, entry in entries.items():
            container = Container(name, self.root.group(name))
            container.restore(entry)
            if container.starting:
                self.journal.remove(name)
                self._remove_remains(name)
            elif "end" in entry:
                self._remove_remains(name)
                self.ends.append(entry["end"])
            elif container.alive():
                self.containers[name] = container
                self.watch(container)
                proxies.adopt(self, container)
            else:
                reason, status, text = judge(container, None)
                end = {"event": "exit", "name": name, "pid": container.pid, "reason": reason,
                       "status": status, "text": text}  # fmt: skip
                self._remove_remains(name)
                self.ends.append(end)

    def _remove_remains(self, name: str) -> None:
        group = self.root.group(name)
        group.kill()
        self.remove_group(group, lambda: None)


_OPERATIONS: dict[str, Callable[[Supervisor, Message, list[int]], Message | None]] = {
    "hello": Supervisor._hello,
    "start": Supervisor._start,
    "go": Supervisor._go,
    "abort": Supervisor._abort,
    "kill": Supervisor._kill,
    "signal": Supervisor._signal,
    "exec": Supervisor._exec,
    "exec-signal": Supervisor._exec_signal,
    "exec-close": Supervisor._exec_close,
    "console": Supervisor._console_attach,
    "console-resize": Supervisor._console_resize,
    "adopt": Supervisor._adopt,
    "adopt-exec": Supervisor._adopt_exec,
    "ack": Supervisor._acknowledge,
    "hotplug": Supervisor._hotplug,
    "shutdown": Supervisor._shutdown,
}
