"""What the supervisor does: the requests it takes, the events it sends.

Parent of every init (only a parent can tell a reboot from a power-off), holder of consoles and
notify sockets, forker of executed commands. It knows no database, no network, no API: it carries
out a spec and reports what happened. It outlives the daemon; nothing here may block.
"""

from __future__ import annotations

import _socket
import os
import time
import traceback

from lxpy.kernel import processes
from lxpy.runtime import frames, hotplug, phases
from lxpy.runtime.attach import Command
from lxpy.runtime.held import Container, judge
from lxpy.runtime.journal import Journal
from lxpy.runtime.launch import Start, StepFailed, UserNamespaces
from lxpy.runtime.loop import IN, OUT, Loop
from lxpy.runtime.terminal import Spectator, resize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lxpy.runtime.cgroups import Group, Root
    from lxpy.runtime.frames import Message

_REMOVAL_TRIES = 200


class Supervisor:
    """What is held, and what the daemon may ask."""

    def __init__(self, run_dir: str, root: Root, listener: _socket.socket) -> None:
        self.loop = Loop()
        self.root = root
        self.stage = f"{run_dir}/stage"
        os.makedirs(self.stage, mode=0o700, exist_ok=True)
        self.journal = Journal(f"{run_dir}/journal")
        self.user_namespaces = UserNamespaces()
        self.own_pidns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.containers: dict[str, Container] = {}
        self.starts: dict[str, Start] = {}
        self.commands: dict[str, Command] = {}
        self.ends: list[Message] = []  # told again until the daemon has acknowledged them
        self._listener = listener
        self._client: _socket.socket | None = None
        self._outbox: list[tuple[bytes, list[int], int]] = []
        self.loop.watch(listener.fileno(), self._accept)

    # The connection

    def _accept(self, _: int) -> None:
        fd, _address = self._listener._accept()  # type: ignore[attr-defined]
        self._disconnect()
        self._client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        self._client.setblocking(False)
        os.set_inheritable(fd, False)
        self.loop.watch(fd, self._readable)

    def _disconnect(self) -> None:
        """The daemon is gone, or another has come: starts that wait for it are given up."""
        if self._client is not None:
            self.loop.forget(self._client.fileno())
            self._client.close()
            self._client = None
        for _, fds, _ in self._outbox:
            frames.close_all(fds)
        self._outbox.clear()
        for start in list(self.starts.values()):
            start.abort("the daemon went away")

    def _readable(self, events: int) -> None:
        if events & OUT:
            self._flush()
        client = self._client
        for _ in range(64):
            if client is None or client is not self._client:
                return
            try:
                received = frames.receive(client)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self._disconnect()
                return
            self._handle(*received)

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
        """Send to the daemon, if there is one; never blocks."""
        if self._client is None:
            return
        data, attached, spare = frames.pack(message, fds or [])
        try:
            if not self._outbox:
                try:
                    frames.send_packed(self._client, data, attached)
                    return
                except BlockingIOError:
                    self.loop.watch(self._client.fileno(), self._readable, IN | OUT)
            self._outbox.append((data, [os.dup(fd) for fd in attached], -1))
        except OSError:
            return  # it is gone: the loop will hear of it
        finally:
            if spare >= 0:
                os.close(spare)

    def _flush(self) -> None:
        while self._outbox and self._client is not None:
            data, fds, _ = self._outbox[0]
            try:
                frames.send_packed(self._client, data, fds)
            except BlockingIOError:
                return
            except OSError:
                pass
            frames.close_all(fds)
            self._outbox.pop(0)
        if self._client is not None:
            self.loop.watch(self._client.fileno(), self._readable, IN)

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
        self.watch(container)
        self.answer(start.request, container.describe(), container.descriptors())

    def start_failed(self, start: Start, failure: StepFailed) -> None:
        """Answer when nothing of it is left."""
        self.remove_group(start.group, lambda: self.refuse(start.request, failure))

    def watch(self, container: Container) -> None:
        """Hear of its end, its console and its notifications."""
        self.loop.watch(container.pidfd, lambda _: self._ended(container))
        self.watch_console(container)
        if container.notify is not None:
            self.loop.watch(container.notify.fileno(), lambda _: self._notified(container))

    def _notified(self, container: Container) -> None:
        if container.hear():
            self.journal.write(container.name, container.entry())
            self.send({"event": "ready", "name": container.name})

    def _ended(self, container: Container) -> None:
        status: int | None = None
        try:
            status = processes.reap(container.pidfd)
            if status is None:
                return
        except ChildProcessError:
            status = processes.exit_status(container.pidfd)
            if status == 0:
                status = None  # what a reboot or power-off leaves behind
        if container.notify is not None:
            container.hear()
            self.loop.forget(container.notify.fileno())
        reason, code, text = judge(container, status)
        end = {"event": "exit", "name": container.name, "pid": container.pid, "reason": reason,
               "status": code, "text": text}  # fmt: skip
        container.end = end
        self.journal.write(container.name, {**container.entry(), "end": end})
        self.loop.forget(container.pidfd)
        if container.console is not None:
            self._drain(container)
            container.console.close(self.loop.forget)
            container.console = None
        container.close()
        container.group.kill()  # executed commands die with it
        self.remove_group(container.group, lambda: self._gone(container, end))

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

    # Consoles

    def watch_console(self, container: Container) -> None:
        if container.console is not None:
            self.loop.watch(container.console.master, lambda e: self._console(container, e))

    def _console(self, container: Container, events: int) -> None:
        console = container.console
        if console is None:
            return
        if events & OUT and console.write(b""):
            self.watch_console(container)
        if events & ~OUT:
            self._drain(container)

    def _drain(self, container: Container) -> None:
        console = container.console
        assert console is not None
        try:
            data, rest = console.read(time.monotonic())
        except OSError:
            self.loop.forget(console.master)
            return
        for fd, spectator in list(console.spectators.items()):
            try:
                spectator.offer(data)
                self._watch_spectator(container, fd, spectator)
            except OSError:
                self._leave(container, fd)
        if rest:
            self.loop.forget(console.master)
            self.loop.later(0.1, lambda: self.watch_console(container))

    def _watch_spectator(self, container: Container, fd: int, spectator: Spectator) -> None:
        events = IN | OUT if spectator.pending else IN
        self.loop.watch(fd, lambda e: self._spectator(container, fd, e), events)

    def _spectator(self, container: Container, fd: int, events: int) -> None:
        console = container.console
        spectator = console.spectators.get(fd) if console is not None else None
        if console is None or spectator is None:
            return
        try:
            if events & OUT and spectator.flush():
                self._watch_spectator(container, fd, spectator)
            if events & ~OUT:
                data = spectator.sock.recv(4096)
                if not data:
                    self._leave(container, fd)
                elif not console.write(data):
                    callback = lambda e: self._console(container, e)  # noqa: E731
                    self.loop.watch(console.master, callback, IN | OUT)
        except BlockingIOError:
            return
        except OSError:
            self._leave(container, fd)

    def _leave(self, container: Container, fd: int) -> None:
        console = container.console
        assert console is not None
        self.loop.forget(fd)
        console.spectators.pop(fd).sock.close()

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
        if self._client is not None:
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
        start = Start(self, message["id"], spec)
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
        fd = fds.pop(0)
        spectator = Spectator(fd)
        container.console.spectators[fd] = spectator
        self._watch_spectator(container, fd, spectator)
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
        """Adopt what a former supervisor has left, from the journal."""
        for name, entry in self.journal.load().items():
            container = Container(name, self.root.group(name))
            container.child = False
            container.restore(entry)
            if "end" in entry:
                self.remove_group(container.group, lambda: None)
                self.ends.append(entry["end"])
            elif container.alive():
                self.containers[name] = container
                self.watch(container)
            else:
                reason, status, text = judge(container, None)
                end = {"event": "exit", "name": name, "pid": container.pid, "reason": reason,
                       "status": status, "text": text}  # fmt: skip
                container.group.kill()
                self.remove_group(container.group, lambda: None)
                self.ends.append(end)


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
