"""Where the servers are: the environment, and the user's config.yml.

`local` is the daemon on this host; `images` is no server but the list of image sources that the
daemon itself knows. Other remotes are unix sockets named in config.yml, whose format is LXD's:

    default-remote: local
    remotes:
      lab: {addr: "unix:///var/tmp/lab/unix.socket", project: web}
"""

from __future__ import annotations

import os

from lxpy.client import configfile
from lxpy.client.client import Client
from lxpy.errors import BadRequest, NotFound, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_DIRECTORY = "/var/lib/lxpy"
LOCAL, IMAGES = "local", "images"


def socket_path() -> str:
    """Return the local daemon's socket: ours by LXPY_*, or one that LXD's variables name."""
    for socket, directory in (("LXPY_SOCKET", "LXPY_DIR"), ("LXD_SOCKET", "LXD_DIR")):
        if path := os.environ.get(socket):
            return path
        if path := os.environ.get(directory):
            return os.path.join(path, "unix.socket")
    return f"{DEFAULT_DIRECTORY}/unix.socket"


class Remote:
    """A place that a name such as `lab:c1` refers to. `protocol` is lxd or images."""

    __slots__ = ("address", "name", "project", "protocol")

    def __init__(self, name: str, address: str, protocol: str = "lxd", project: str = "") -> None:
        self.name = name
        self.address = address
        self.protocol = protocol
        self.project = project

    def client(self, project: str = "", *, trace: bool = False) -> Client:
        """Return a client of this server. Raises BadRequest, NotSupported."""
        if self.protocol != "lxd":
            raise BadRequest(
                f'The remote "{self.name}" holds images only; name a server such as "{LOCAL}:"'
            )
        path = self.address.removeprefix("unix:")
        if path == self.address or "://" in path:
            raise NotSupported(
                f'The remote "{self.name}" is at {self.address}: this version reaches servers '
                'through unix sockets only ("unix:///PATH")'
            )
        path = "/" + path.lstrip("/") if path.strip("/") else socket_path()
        chosen = project or self.project
        return Client(path, "" if chosen == "default" else chosen, trace=trace)


class Remotes:
    """The remotes that the user may name."""

    def __init__(self, default: str, remotes: dict[str, Remote]) -> None:
        self.default = default
        self._remotes = {
            LOCAL: Remote(LOCAL, "unix:"),
            IMAGES: Remote(IMAGES, "", "images"),
            **remotes,
        }

    @classmethod
    def load(cls) -> Remotes:
        """Read config.yml, where there is one. Raises BadRequest when it can't be understood."""
        text = configfile.text()
        if not text:
            return cls(LOCAL, {})
        data = configfile.parse(text)
        try:
            entries = (data.get("remotes") or {}).items()
            found = {name: _remote(name, each) for name, each in entries}
            return cls(data.get("default-remote") or LOCAL, found)
        except (AttributeError, KeyError, TypeError) as error:
            raise BadRequest(f"{configfile.path()} is not a list of remotes: {error}") from error

    def parse(self, text: str) -> tuple[Remote, str]:
        """Split "remote:rest" or "rest". Raises NotFound when there is no such remote."""
        name, colon, rest = text.partition(":")
        if not colon:
            name, rest = self.default, text
        if name not in self._remotes:
            known = ", ".join(sorted(self._remotes))
            raise NotFound(f'The remote "{name}" doesn\'t exist; there are: {known}')
        return self._remotes[name], rest

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(self._remotes)


def _remote(name: str, entry: dict[str, Any]) -> Remote:
    return Remote(name, entry["addr"], entry.get("protocol") or "lxd", entry.get("project") or "")


def set_project(remote: str, project: str) -> None:
    """Have a project be a remote's from now on. Raises BadRequest."""
    entries = dict(configfile.parse(configfile.text()).get("remotes") or {})
    entries[remote] = {"addr": "unix://", **(entries.get(remote) or {}), "project": project}
    configfile.change(remotes=entries)
