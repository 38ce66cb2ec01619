"""Consoles of instances: attached over websockets, and their log."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex

import msgspec

from lxpy.api.instances import ConsolePost
from lxpy.errors import BadRequest, Failed, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.operations.channel import Channel
from lxpy.operations.registry import Operation, Registry
from lxpy.runtime.container import Console, Runtime, StartFailed, SupervisorLost
from lxpy.services.directories import Directories
from lxpy.services.instances.logs import CONSOLE
from lxpy.services.instances.power import Power
from lxpy.services.instances.store import InstanceStore
from lxpy.services.instances.streams import Sockets
from lxpy.threads import in_thread

_CONNECT_S = 5.0


class Consoles:
    """Attaches to consoles and reads their logs."""

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

    def attach(self, project: str, name: str, wish: ConsolePost) -> Operation:
        """Start an attachment. Raises NotFound, BadRequest."""
        instance = self._store.get(project, name)
        if wish.type not in ("", "console"):
            raise BadRequest(f'Console type "{wish.type}" is for virtual machines only')
        if not self._power.is_running(instance):
            raise BadRequest("Instance is not running")
        if instance.unique_name in self._power.frozen:
            raise BadRequest("Instance is frozen")
        self._lifecycle.emit("instance-console", f"/1.0/instances/{name}", project)
        return self._registry.open(
            "Showing console",
            ConsoleSession(self._runtime, instance.unique_name, wish),
            project=project,
            resources={"instances": [f"/1.0/instances/{name}"]},
        )

    async def log(self, project: str, name: str) -> Path:
        """Return the file with what the console has printed. Raises NotFound."""
        instance = self._store.get(project, name)
        path = self._directories.logs(instance.unique_name) / CONSOLE
        if not await in_thread(path.is_file):
            raise NotFound(f'Instance "{name}" has no console log: it has not been started yet')
        self._lifecycle.emit("instance-console-retrieved", f"/1.0/instances/{name}", project)
        return path

    async def clear(self, project: str, name: str) -> None:
        """Empty the console's log. Raises NotFound."""
        instance = self._store.get(project, name)
        path = self._directories.logs(instance.unique_name) / CONSOLE
        with contextlib.suppress(FileNotFoundError):
            await in_thread(os.truncate, path, 0)
        self._lifecycle.emit("instance-console-reset", f"/1.0/instances/{name}", project)


class ConsoleSession:
    """One attachment: socket 0 is the console, closing the control socket detaches."""

    def __init__(self, runtime: Runtime, unique_name: str, wish: ConsolePost) -> None:
        self._runtime = runtime
        self._name = unique_name
        self._wish = wish
        self._sockets = Sockets({name: token_hex(32) for name in ("0", "control")})
        self._console: Console | None = None
        self._started = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def secrets(self) -> Mapping[str, str]:
        """The secret of each socket."""
        return self._sockets.secrets

    async def attach(self, name: str, channel: Channel) -> None:
        """Serve one socket until the attachment is over. Raises BadRequest when it is taken."""
        if not self._sockets.add(name, channel):
            raise BadRequest(f'Socket "{name}" of this console is connected already')
        serve = self._control if name == "control" else self._input
        reading = asyncio.create_task(serve(channel))
        try:
            await self._over.wait()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def run(self, operation: Operation) -> None:
        """Carry output until the client detaches or the instance ends."""
        try:
            if not await self._sockets.wait(("0",), _CONNECT_S):
                raise Failed("Timed out waiting for websockets to connect")
            try:
                console = self._console = await self._runtime.console(self._name)
            except StartFailed as error:
                raise Failed(f"Failed to attach to the console: {error}") from error
            try:
                if self._wish.width and self._wish.height:
                    console.resize(self._wish.width, self._wish.height)
                self._started.set()
                while data := await console.read():
                    await self._sockets["0"].send(data)
                await self._sockets["0"].send(b"\n\r")
            finally:
                console.detach()
        finally:
            await self._sockets.close()
            self._over.set()

    async def _input(self, channel: Channel) -> None:
        while (data := await channel.receive()) is not None:
            await self._started.wait()
            assert self._console is not None
            if isinstance(data, bytes):
                try:
                    await self._console.write(data)
                except OSError:
                    return
        await self._detach()

    async def _control(self, channel: Channel) -> None:
        while (data := await channel.receive()) is not None:
            await self._started.wait()
            assert self._console is not None
            try:
                message = msgspec.json.decode(data)
                args = message["args"]
                self._console.resize(int(args["width"]), int(args["height"]))
            except (msgspec.DecodeError, KeyError, TypeError, ValueError, SupervisorLost):
                continue
        await self._detach()

    async def _detach(self) -> None:
        await self._started.wait()
        if self._console is not None:
            self._console.detach()
