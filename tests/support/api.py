"""A client of the REST API for tests: the plainest HTTP, no code shared with lxpy."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from tests.support.processes import PATIENCE


class ApiError(Exception):
    """An error envelope, or an operation that failed."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("lxd", timeout=timeout_s)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """One connection for each request, as LXD's own client does it."""

    def __init__(self, path: Path, timeout_s: float = 120) -> None:
        self.path = path
        self.timeout_s = timeout_s * PATIENCE

    def raw(
        self,
        method: str,
        url: str,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers (lower case) and body; `body` is JSON unless it is bytes."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = _UnixConnection(self.path, self.timeout_s)
        try:
            connection.request(method, url, data, headers or {})
            reply = connection.getresponse()
            fields = {key.lower(): value for key, value in reply.getheaders()}
            return reply.status, fields, reply.read()
        finally:
            connection.close()

    def call(
        self,
        method: str,
        url: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        *,
        wait: bool = True,
    ) -> Any:
        """Return the metadata; of an operation, the finished operation (raises when it failed)."""
        status, _, data = self.raw(method, url, body, headers)
        reply = json.loads(data)
        if reply["type"] == "error":
            assert reply["error_code"] == status, reply
            raise ApiError(status, reply["error"])
        if reply["type"] == "async" and wait:
            return self.wait(reply["metadata"])
        return reply["metadata"]

    def wait(self, operation: dict[str, Any], timeout_s: int = 120) -> dict[str, Any]:
        """Wait for the end of an operation."""
        done = self.get(f"/1.0/operations/{operation['id']}/wait?timeout={timeout_s}")
        if done["status_code"] != 200:
            raise ApiError(done["status_code"], done["err"] or done["status"])
        return done  # type: ignore[no-any-return]

    def get(self, url: str) -> Any:
        return self.call("GET", url)

    def post(self, url: str, body: object, *, wait: bool = True) -> Any:
        return self.call("POST", url, body, wait=wait)

    def put(self, url: str, body: object, *, wait: bool = True) -> Any:
        return self.call("PUT", url, body, wait=wait)

    def patch(self, url: str, body: object) -> Any:
        return self.call("PATCH", url, body)

    def delete(self, url: str, *, wait: bool = True) -> Any:
        return self.call("DELETE", url, wait=wait)
