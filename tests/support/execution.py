"""Commands and consoles of an instance through the REST API and its websockets."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from wsproto.utilities import LocalProtocolError

from tests.support.api import Api
from tests.support.websocket import WebSocket


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, its output, the finished operation."""

    code: int
    stdout: bytes
    stderr: bytes
    operation: dict[str, Any]


class Streams:
    """The websockets of one operation."""

    def __init__(self, api: Api, operation: dict[str, Any]) -> None:
        self.api = api
        self.id = str(operation["id"])
        self.secrets: dict[str, str] = dict(operation["metadata"]["fds"])
        self.sockets: dict[str, WebSocket] = {}

    def connect(self, *descriptors: str) -> None:
        """Open the named websockets, or all: control first, as nothing waits for it."""
        for name in descriptors or sorted(self.secrets, reverse=True):
            url = f"/1.0/operations/{self.id}/websocket?secret={self.secrets[name]}"
            self.sockets[name] = WebSocket(Path(self.api.path), url)

    def control(self, message: dict[str, Any]) -> None:
        """Send an object on the control socket."""
        self.sockets["control"].send(json.dumps(message))

    def resize(self, width: int, height: int) -> None:
        """Say what size the terminal has now."""
        sizes = {"width": str(width), "height": str(height)}
        self.control({"command": "window-resize", "args": sizes})

    def signal(self, number: int) -> None:
        """Send a signal to the command."""
        self.control({"command": "signal", "signal": number})

    def type(self, text: str) -> None:
        """Type on the terminal, or send to stdin."""
        self.sockets["0"].send(text.encode())

    def read_until(self, text: str, timeout_s: float = 15) -> str:
        """Read the terminal until `text` has come; all that has."""
        seen, end = "", time.monotonic() + timeout_s
        while text not in seen:
            try:
                frame = self.sockets["0"].receive(max(0.01, end - time.monotonic()))
            except TimeoutError:
                raise AssertionError(f"no {text!r} in {seen!r}") from None
            if frame is None:
                raise AssertionError(f"the terminal ended without {text!r}: {seen!r}")
            if isinstance(frame, bytes):
                seen += frame.decode(errors="replace")
        return seen

    def rest(self, name: str = "0") -> bytes:
        """All bytes of a stream up to its barrier, which must come before the end."""
        data = b""
        while True:
            frame = self.sockets[name].receive()
            if frame is None:
                raise AssertionError(f"stream {name} ended without a barrier after {data[-200:]!r}")
            if isinstance(frame, str):
                assert frame == "", f"a barrier has no content: {frame!r}"
                return data
            data += frame

    def wait(self, timeout_s: int = 30) -> dict[str, Any]:
        """The operation after its end, whatever its status."""
        url = f"/1.0/operations/{self.id}/wait?timeout={timeout_s}"
        return self.api.get(url)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Hang up everywhere."""
        for socket in self.sockets.values():
            socket.close()

    def __enter__(self) -> Streams:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def start(api: Api, name: str, *command: str, connect: bool = True, **fields: Any) -> Streams:
    """Begin a command; fields are those of the request (interactive, environment, user ...)."""
    body = {"command": list(command), "wait-for-websocket": True, **fields}
    streams = Streams(api, api.post(f"/1.0/instances/{name}/exec", body, wait=False))
    if connect:
        streams.connect()
    return streams


def run(api: Api, name: str, *command: str, stdin: bytes = b"", **fields: Any) -> Done:
    """Run a command to its end, feeding stdin and reading both outputs at the same time."""
    output: dict[str, bytes] = {}
    problems: list[BaseException] = []
    with start(api, name, *command, **fields) as streams:

        def read(descriptor: str) -> None:
            try:
                output[descriptor] = streams.rest(descriptor)
            except (AssertionError, OSError) as error:
                problems.append(error)

        readers = [threading.Thread(target=read, args=(stream,)) for stream in ("1", "2")]
        for reader in readers:
            reader.start()
        try:
            for start_at in range(0, len(stdin), 1 << 16):
                streams.sockets["0"].send(stdin[start_at : start_at + (1 << 16)])
            streams.sockets["0"].send("")
        except (ConnectionError, LocalProtocolError):
            pass  # it has ended without waiting for its input
        for reader in readers:
            reader.join(60)
        if problems:
            raise problems[0]
        operation = streams.wait()
    return Done(int(operation["metadata"]["return"]), output["1"], output["2"], operation)


def record(api: Api, name: str, *command: str, **fields: Any) -> dict[str, Any]:
    """Run a command without websockets, its output recorded; the finished operation."""
    body = {"command": list(command), "record-output": True, **fields}
    return api.post(f"/1.0/instances/{name}/exec", body)  # type: ignore[no-any-return]


def console(api: Api, name: str, width: int = 80, height: int = 24) -> Streams:
    """Attach to the console."""
    body = {"type": "console", "width": width, "height": height}
    streams = Streams(api, api.post(f"/1.0/instances/{name}/console", body, wait=False))
    streams.connect()
    return streams
