"""A session of requests whose every URL goes to one unix socket."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Any

from requests import Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool


class _Connection(HTTPConnection):
    def __init__(self, path: Path, timeout: Any = None) -> None:
        super().__init__("lxd", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _Pool(HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("lxd")
        self._path = path

    def _new_conn(self) -> http.client.HTTPConnection:
        return _Connection(self._path, self.timeout.connect_timeout)


class _Adapter(HTTPAdapter):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._pool = _Pool(path)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> _Pool:
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> str:
        return str(request.path_url)


def session(path: Path) -> Session:
    """Return a session; what host its URLs name does not matter."""
    made = Session()
    made.mount("http://", _Adapter(path))
    return made
