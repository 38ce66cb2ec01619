"""Commands in instances: over websockets, recorded into files, or without anyone listening.

Source: LXD docs, "Instance commands"; what clients do with the sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from secrets import token_hex

import msgspec
import structlog

from lxpy.api.instances import ExecPost
from lxpy.errors import BadRequest, Failed, Unavailable
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.model import Instance
from lxpy.instances.spec import environment
from lxpy.operations.channel import Channel
from lxpy.operations.registry import Operation, Registry
from lxpy.runtime.container import Process, Runtime, StartFailed
from lxpy.runtime.spec import ExecSpec
from lxpy.services.directories import Directories
from lxpy.services.instances.power import Power
from lxpy.services.instances.store import InstanceStore
from lxpy.services.instances.streams import Reader, Sockets, Writer, pump

_CONNECT_S = 5.0
_SIGKILL = 9
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROBLEMS = {126: "Command not executable", 127: "Command not found"}

_log = structlog.get_logger()


class _Control(msgspec.Struct, kw_only=True):
    """A message on the control socket."""

    command: str = ""
    args: dict[str, str] = {}
    signal: int = 0


class Exec:
    """Runs commands in instances."""

    def __init__(
        self,
        directories: Directories,
        store: InstanceStore,
        runtime: Runtime,
        power: Power,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._directories = directories
        self._store = store
        self._runtime = runtime
        self._power = power
        self._registry = registry
        self._lifecycle = lifecycle
        self._orphans: set[asyncio.Task[None]] = set()

    def execute(self, project: str, name: str, wish: ExecPost) -> Operation:
        """Start a command's operation. Raises NotFound, BadRequest."""
        instance = self._store.get(project, name)
        if not self._power.is_running(instance):
            raise BadRequest("Instance is not running")
        if instance.unique_name in self._power.frozen:
            raise BadRequest("Instance is frozen")
        if not wish.command:
            raise BadRequest("No command to execute: give at least one word")
        if any("\0" in word for word in wish.command):
            raise BadRequest("Invalid command: a word contains a NUL character")
        spec = _spec(instance, wish)
        metadata = {
            "command": wish.command,
            "environment": spec.environment,
            "interactive": wish.interactive,
        }
        self._lifecycle.emit(
            "instance-exec", f"/1.0/instances/{name}", project, {"command": wish.command}
        )
        resources = {"instances": [f"/1.0/instances/{name}"]}
        if wish.wait_for_websocket:
            return self._registry.open(
                "Executing command",
                ExecSession(self._runtime, spec),
                project=project,
                resources=resources,
                metadata=metadata,
            )

        async def work(operation: Operation) -> None:
            operation.metadata.update(metadata)
            await self._unheard(instance, spec, operation, record=wish.record_output)

        return self._registry.spawn("Executing command", work, project=project, resources=resources)

    async def _unheard(
        self, instance: Instance, spec: ExecSpec, operation: Operation, *, record: bool
    ) -> None:
        """Run a command nobody is connected to; its output goes to files, or nowhere."""
        logs = self._directories.logs(instance.unique_name)
        files = {
            number: logs / f"exec_{operation.id}.{kind}"
            for number, kind in (("1", "stdout"), ("2", "stderr"))
            if record
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        opened = [os.open(path, flags, 0o600) for path in files.values()]
        stdio = (null, *(opened or (null, null)))
        try:
            process = await _begin(self._runtime, spec, (stdio[0], stdio[1], stdio[2]))
        finally:
            for fd in (null, *opened):
                os.close(fd)
        code = await process.wait()
        if record:
            base = f"/1.0/instances/{instance.name}/logs"
            output = {number: f"{base}/{path.name}" for number, path in files.items()}
            operation.metadata["output"] = output
        _finish(operation, process, code)

    async def take_over(self) -> None:
        """Let commands of a former daemon go on: their output is read, and lost.

        A terminal that nobody can come back to is hung up.
        """
        for process in await self._runtime.execs():
            if "pty" in process.fds:
                process.close("pty")
                continue
            process.close("stdin")
            for which in [key for key in process.fds if key != "stdin"]:
                task = asyncio.create_task(_discard(process, which))
                self._orphans.add(task)
                task.add_done_callback(self._orphans.discard)

    async def close(self) -> None:
        """Stop reading for others; their commands go on."""
        for task in self._orphans:
            task.cancel()
        await asyncio.gather(*self._orphans, return_exceptions=True)


class ExecSession:
    """A command whose standard streams are websockets; see API for who closes what when."""

    def __init__(self, runtime: Runtime, spec: ExecSpec) -> None:
        self._runtime = runtime
        self._spec = spec
        names = ("0", "control") if spec.interactive else ("0", "1", "2", "control")
        self._sockets = Sockets({name: token_hex(32) for name in names})
        self._required = ("0", "control") if spec.interactive else ("0", "1", "2")
        self._process: Process | None = None
        self._started = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def secrets(self) -> Mapping[str, str]:
        """The secret of each socket."""
        return self._sockets.secrets

    async def attach(self, name: str, channel: Channel) -> None:
        """Serve one socket until the command is done. Raises BadRequest when it is taken."""
        if not self._sockets.add(name, channel):
            raise BadRequest(f'Socket "{name}" of this command is connected already')
        reading = asyncio.create_task(self._serve(name, channel))
        try:
            await self._over.wait()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def run(self, operation: Operation) -> None:
        """Run the command once its sockets are connected."""
        try:
            if not await self._sockets.wait(self._required, _CONNECT_S):
                raise Failed("Timed out waiting for websockets to connect")
            process = self._process = await _begin(self._runtime, self._spec, None)
            self._started.set()
            code = await self._carry(process)
            process.close()
            _finish(operation, process, code)
        finally:
            await self._sockets.close()
            self._over.set()

    async def _carry(self, process: Process) -> int:
        """Move its output until it has ended; return its exit code."""
        ended = asyncio.Event()
        streams = {"pty": "0"} if self._spec.interactive else {"stdout": "1", "stderr": "2"}
        async with asyncio.TaskGroup() as tasks:
            for key, name in streams.items():
                tasks.create_task(pump(Reader(process.fds[key]), self._sockets[name], ended))
            code = await process.wait()
            ended.set()
        return code

    async def _serve(self, name: str, channel: Channel) -> None:
        """Read one socket: input, control messages, or nothing but its end."""
        if name == "control":
            await self._control(channel)
        elif name == "0":
            await self._input(channel)
        else:
            while await channel.receive() is not None:
                continue
            if "control" not in self._sockets:
                await self._abandon()

    async def _input(self, channel: Channel) -> None:
        which = "pty" if self._spec.interactive else "stdin"
        writer: Writer | None = None
        while (data := await channel.receive()) is not None and not isinstance(data, str):
            await self._started.wait()
            assert self._process is not None
            if writer is None:
                writer = Writer(self._process.fds[which])
            if not await writer.write(data):
                break
        await self._started.wait()
        if not self._spec.interactive and self._process is not None:
            self._process.close(which)
        if data is not None:
            while await channel.receive() is not None:
                continue

    async def _control(self, channel: Channel) -> None:
        while (data := await channel.receive()) is not None:
            await self._started.wait()
            try:
                await self._obey(msgspec.json.decode(data, type=_Control))
            except (msgspec.DecodeError, ValueError) as error:
                _log.info("control message not understood", error=str(error))
        await self._abandon()

    async def _obey(self, message: _Control) -> None:
        assert self._process is not None
        if message.command == "window-resize":
            width, height = int(message.args["width"]), int(message.args["height"])
            with contextlib.suppress(OSError):
                self._process.resize(width, height)
        elif message.command == "signal":
            with contextlib.suppress(StartFailed):
                await self._process.signal(message.signal)

    async def _abandon(self) -> None:
        """The client is gone: its command goes, too."""
        await self._started.wait()
        if self._process is not None and not self._process.ended:
            with contextlib.suppress(StartFailed, Unavailable):
                await self._process.signal(_SIGKILL)


async def _begin(runtime: Runtime, spec: ExecSpec, stdio: tuple[int, int, int] | None) -> Process:
    try:
        return await runtime.exec(spec, stdio)
    except StartFailed as error:
        raise Failed(f"Failed to execute in {spec.name}: {error}") from error


def _finish(operation: Operation, process: Process, code: int) -> None:
    """Note the exit code. Raises Failed when the command could not be executed at all."""
    operation.metadata["return"] = code
    if process.not_executed:
        raise Failed(_PROBLEMS.get(code, "Command not executable"))


async def _discard(process: Process, which: str) -> None:
    reader = Reader(process.fds[which])
    while await reader.read():
        continue
    process.close(which)


def _spec(instance: Instance, wish: ExecPost) -> ExecSpec:
    values = {**environment(instance.expanded_config), **(wish.environment or {})}
    values.setdefault("container", "lxc")
    values.setdefault("PATH", _PATH)
    values.setdefault("LANG", "C.UTF-8")
    if not wish.user:
        values.setdefault("HOME", "/root")
        values.setdefault("USER", "root")
    return ExecSpec(
        name=instance.unique_name,
        command=tuple(wish.command),
        environment=values,
        uid=wish.user or 0,
        gid=wish.group or 0,
        cwd=wish.cwd or values.get("HOME", ""),
        interactive=wish.interactive,
        width=wish.width,
        height=wish.height,
    )
