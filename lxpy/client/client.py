"""A server of LXD's API: requests, operations, websockets.

Answers are plain dictionaries, not the structs of lxpy.api: what an editor shows goes back to the
server unchanged, fields included that this version does not know.
"""

from __future__ import annotations

import json
import select
import sys

from lxpy.client import websocket
from lxpy.client.transport import Connection, Response, Upload, query, refusal
from lxpy.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lxpy.client.secure import Secure

    #: An object of the API. Any: its fields are the server's, of whatever version.
    Json = dict[str, Any]
    #: Called with the metadata of an operation that goes on, and with {} at its end.
    Watcher = Callable[[Json], None]
else:
    Json = dict

_SUCCESS = 200


class Client:
    """One server, at a unix socket or a URL.

    `project` goes into every request; `watcher` is told how operations proceed.
    """

    def __init__(
        self, path: str, project: str = "", *, trace: bool = False, secure: Secure | None = None
    ) -> None:
        self.path = path
        self._secure = secure
        self.project = project
        self.watcher: Watcher | None = None
        self._trace = trace

    # -- requests

    def connect(self) -> Connection:
        """Return a connection to the server. Raises Unreachable, and Refused when it is another."""
        return Connection(self.path, self._secure)

    def target(self, path: str, parameters: dict[str, str] | None = None) -> str:
        """Return what to ask for: the path with its query and this client's project."""
        parameters = parameters or {}
        if self.project and "all-projects" not in parameters:
            parameters = {"project": self.project, **parameters}
        if "?" in path:
            return path + query(parameters).replace("?", "&", 1)
        return path + query(parameters)

    def request(
        self,
        method: str,
        target: str,
        body: bytes | Upload | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request as it is, and return the answer, whatever it says.

        Raises Unreachable, and Refused when the connection breaks.
        """
        if self._trace:
            size = body.length if isinstance(body, Upload) else len(body or b"")
            print(f"lxpy: {method} {target} ({size} bytes)", file=sys.stderr)
        connection = self.connect()
        try:
            connection.send(method, target, {"Connection": "close", **(headers or {})}, body)
            return connection.response()
        except BaseException:
            connection.close()
            raise

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request, whose body is JSON unless it is an upload. Raises Refused."""
        fields = dict(headers or {})
        if body is None or isinstance(body, bytes | Upload):
            data = body
        else:
            data = json.dumps(body).encode()
            fields["Content-Type"] = "application/json"
        response = self.request(method, self.target(path, parameters), data, fields)
        text = response.read()
        if self._trace:
            print(f"lxpy: {response.status} {text.decode(errors='replace')}", file=sys.stderr)
        return Answer(response, text)

    def get(self, path: str, **parameters: str) -> Any:
        """Return the metadata of an answer to GET. Raises Refused."""
        return self.ask("GET", path, parameters=parameters).metadata

    def fetch(self, path: str, **parameters: str) -> tuple[Json, str]:
        """Return an object and its ETag. Raises Refused."""
        answer = self.ask("GET", path, parameters=parameters)
        return answer.metadata, answer.etag

    def find(self, path: str, **parameters: str) -> Json | None:
        """Return an object, or None when there is none (404). Raises Refused."""
        try:
            found: Json = self.get(path, **parameters)
        except Refused as error:
            if error.code == 404:
                return None
            raise
        return found

    def download(self, path: str) -> Response:
        """Return the answer to GET, its body still to be read. Raises Refused."""
        response = self.request("GET", self.target(path))
        if response.status != _SUCCESS:
            raise refusal(response.status, response.read().decode(errors="replace"))
        return response

    def change(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        etag: str = "",
        headers: dict[str, str] | None = None,
    ) -> Json:
        """Send a request that changes something, wait for its operation if it has one.

        Returns the operation, or the metadata of a synchronous answer. Raises Refused.
        """
        events = self.events("operation") if self.watcher is not None else None
        fields = dict(headers or {})
        if etag:
            fields["If-Match"] = etag
        try:
            answer = self.ask(method, path, body, fields)
            if answer.operation is None:
                return answer.metadata or {}
            return succeeded(self.wait(answer.operation, events))
        finally:
            if events is not None:
                events.close()
            if self.watcher is not None:
                self.watcher({})

    # -- operations

    def begin(self, method: str, path: str, body: object = None) -> Json:
        """Start an operation; return it as it begins. Raises Refused."""
        operation = self.ask(method, path, body).operation
        if operation is None:
            raise Refused(f"The server answered {method} {path} without an operation")
        return operation

    def wait(self, operation: Json, events: websocket.WebSocket | None = None) -> Json:
        """Return an operation at its end, however that is.

        Ctrl-C cancels it where the server can; the second one stops waiting for it.
        """
        connection = self.connect()
        target = self.target(f"/1.0/operations/{operation['id']}/wait", {"timeout": "-1"})
        connection.send("GET", target, {"Connection": "close"})
        interrupted = False
        try:
            while True:
                try:
                    self._follow(connection, events, operation["id"])
                    break
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    self._cancel(operation["id"])
            response = connection.response()
            done: Json = Answer(response, response.read()).metadata
        finally:
            connection.close()
        return done

    def _follow(
        self, connection: Connection, events: websocket.WebSocket | None, identity: str
    ) -> None:
        """Tell the watcher about an operation until the answer to /wait comes."""
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if events is not None:
            poll.register(events, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if events is not None and events.fileno() in ready:
                for _, text in events.receive():
                    metadata = json.loads(text)["metadata"]
                    if metadata["id"] == identity and self.watcher is not None:
                        self.watcher(metadata.get("metadata") or {})
                if events.closed:
                    poll.unregister(events)
                    events = None
            if connection.fileno() in ready:
                return

    def _cancel(self, identity: str) -> None:
        try:
            self.ask("DELETE", f"/1.0/operations/{identity}")
        except Refused as error:
            print(
                f"\n{error}. It goes on; press Ctrl-C again to leave it to the server",
                file=sys.stderr,
            )

    # -- websockets

    def websockets(self, *targets: str) -> list[websocket.WebSocket]:
        """Open several websockets at once, in the order given. Raises Refused, Unreachable."""
        connections: list[Connection] = []
        try:
            for target in targets:
                connections.append(self.connect())
                websocket.request(connections[-1], target)
            return [websocket.WebSocket(connection) for connection in connections]
        except BaseException:
            for connection in connections:
                connection.close()
            raise

    def channels(self, operation: Json, *names: str) -> list[websocket.WebSocket]:
        """Open websockets of an operation by their names in its `fds`. Raises Refused."""
        secrets = operation["metadata"]["fds"]
        path = f"/1.0/operations/{operation['id']}/websocket"
        return self.websockets(*(self.target(path, {"secret": secrets[name]}) for name in names))

    def events(self, types: str = "", *, all_projects: bool = False) -> websocket.WebSocket:
        """Open the stream of events; `types` are comma-separated, empty means all."""
        every = {"all-projects": "true"} if all_projects else {}
        (stream,) = self.websockets(self.target("/1.0/events", {"type": types, **every}))
        return stream


class Answer:
    """An answer's envelope."""

    __slots__ = ("etag", "location", "metadata", "operation", "text")

    def __init__(self, response: Response, text: bytes) -> None:
        """Decode it. Raises Refused when it is an error, or not an envelope at all."""
        try:
            envelope = json.loads(text)
            kind = envelope["type"]
        except (ValueError, KeyError, TypeError):
            raise refusal(response.status, text.decode(errors="replace")) from None
        if kind == "error":
            raise Refused(envelope["error"] or f"HTTP status {response.status}", response.status)
        self.metadata: Any = envelope.get("metadata")
        self.operation: Json | None = self.metadata if kind == "async" else None
        self.etag = response.headers.get("etag", "")
        self.location = response.headers.get("location", "")
        self.text = text


def succeeded(operation: Json) -> Json:
    """Return a finished operation. Raises Refused with its error when it failed."""
    if operation["status_code"] != _SUCCESS:
        text = operation.get("err") or f"Operation {operation['status'].lower()}"
        raise OperationFailed(text, operation)
    return operation


class OperationFailed(Refused):
    """An operation ended without success."""

    def __init__(self, text: str, operation: Json) -> None:
        super().__init__(text, operation["status_code"])
        self.operation = operation
