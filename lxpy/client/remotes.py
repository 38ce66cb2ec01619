"""Where the servers are: the environment, and the user's config.yml.

`local` is the daemon on this host; `images` is no server but the list of image sources that the
daemon itself knows. Others are named in config.yml, whose format is that of LXD's client:

    default-remote: local
    remotes:
      lab: {addr: "unix:///var/tmp/lab/unix.socket", project: web}
      far: {addr: "https://192.0.2.1:8443", auth_type: tls, protocol: lxd, public: false}

Beside it lie client.crt and client.key, by which servers know the user, and servercerts/NAME.crt,
the certificate that was accepted of each server.
"""

from __future__ import annotations

import os

from lxpy.client import configfile
from lxpy.client.client import Client
from lxpy.errors import BadRequest, Conflict, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_DIRECTORY = "/var/lib/lxpy"
LOCAL, IMAGES = "local", "images"
_MAX_NAME = 128  # it is part of a file's name


def socket_path() -> str:
    """Return the local daemon's socket: ours by LXPY_*, or one that LXD's variables name."""
    for socket, directory in (("LXPY_SOCKET", "LXPY_DIR"), ("LXD_SOCKET", "LXD_DIR")):
        if path := os.environ.get(socket):
            return path
        if path := os.environ.get(directory):
            return os.path.join(path, "unix.socket")
    return f"{DEFAULT_DIRECTORY}/unix.socket"


def certificate_path(name: str) -> str:
    """Return where the certificate is that was accepted of a remote's server."""
    return os.path.join(configfile.directory(), "servercerts", f"{name}.crt")


class Remote:
    """A place that a name such as `lab:c1` refers to. `protocol` is lxd, simplestreams or images.

    `public` is for images without being known there; `static` is not the user's to change.
    """

    __slots__ = ("address", "auth_type", "name", "project", "protocol", "public", "static")

    def __init__(
        self,
        name: str,
        address: str,
        protocol: str = "lxd",
        project: str = "",
        *,
        public: bool = False,
        static: bool = False,
        auth_type: str = "",
    ) -> None:
        self.name = name
        self.address = address
        self.protocol = protocol
        self.project = project
        self.public = public
        self.static = static
        self.auth_type = auth_type

    @property
    def is_local(self) -> bool:
        """Whether it is behind a unix socket."""
        return self.address.startswith("unix:")

    def client(self, project: str = "", *, trace: bool = False) -> Client:
        """Return a client of this server. Raises BadRequest."""
        if self.protocol != "lxd":
            raise BadRequest(
                f'The remote "{self.name}" holds images only; name a server such as "{LOCAL}:"'
            )
        chosen = project or self.project
        chosen = "" if chosen == "default" else chosen
        if self.address.startswith("https://"):
            from lxpy.client.secure import Secure  # ssl takes 20 ms

            identity = "" if self.public else configfile.directory()
            secure = Secure(self.address, certificate_path(self.name), identity)
            return Client(self.address.rstrip("/"), chosen, trace=trace, secure=secure)
        path = self.address.removeprefix("unix:")
        if not self.is_local or "://" in path:
            raise BadRequest(
                f'The remote "{self.name}" is at {self.address}: use "https://HOST:PORT" or '
                '"unix:///PATH"'
            )
        path = "/" + path.lstrip("/") if path.strip("/") else socket_path()
        return Client(path, chosen, trace=trace)

    def entry(self) -> dict[str, Any]:
        """Return it as config.yml has it."""
        found: dict[str, Any] = {
            "addr": self.address, "protocol": self.protocol, "public": self.public,
        }  # fmt: skip
        optional = {"auth_type": self.auth_type, "project": self.project}
        return {**found, **{key: value for key, value in optional.items() if value}}


class Remotes:
    """The remotes that the user may name."""

    def __init__(self, default: str, remotes: dict[str, Remote]) -> None:
        self.default = default
        self._remotes = {
            LOCAL: Remote(LOCAL, "unix://", static=True),
            IMAGES: Remote(IMAGES, "", "images", public=True, static=True),
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

    def all(self) -> list[Remote]:
        """Return every remote, by name."""
        return [self._remotes[name] for name in self.names()]

    # What the user changes; `save` keeps it

    def require(self, name: str, *, changing: bool = False) -> Remote:
        """Return a remote; one that is to be changed is the user's. Raises NotFound, BadRequest."""
        if name not in self._remotes:
            raise NotFound(f"Remote {name} doesn't exist")
        found = self._remotes[name]
        if changing and found.static:
            raise BadRequest(f"Remote {name} is static and cannot be modified")
        return found

    def require_new(self, name: str) -> None:
        """Raise Conflict when there is a remote of that name, BadRequest when none can be."""
        if ":" in name:
            raise BadRequest("Remote names may not contain colons")
        if "/" in name or name.startswith(".") or not 0 < len(name) <= _MAX_NAME:
            raise BadRequest(f'"{name[:80]}" is no name of a remote: give it one first')
        if name in self._remotes:
            raise Conflict(f"Remote {name} exists as <{self._remotes[name].address}>")

    def put(self, remote: Remote) -> None:
        """Add a remote, or replace the one of its name."""
        self._remotes[remote.name] = remote

    def remove(self, name: str) -> None:
        """Forget a remote and its certificate. Raises NotFound, BadRequest."""
        self.require(name, changing=True)
        if name == self.default:
            raise BadRequest("Can't remove the default remote")
        del self._remotes[name]
        self.save()
        forget(name)

    def rename(self, name: str, new: str) -> None:
        """Give a remote another name. Raises NotFound, Conflict, BadRequest."""
        remote = self.require(name, changing=True)
        if new in self._remotes:
            raise Conflict(f"Remote {new} already exists")
        self.require_new(new)
        if os.path.exists(certificate_path(name)):
            os.replace(certificate_path(name), certificate_path(new))
        del self._remotes[name]
        remote.name = new
        self._remotes[new] = remote
        if self.default == name:
            self.default = new
        self.save()

    def save(self) -> None:
        """Write config.yml; what else is in it stays."""
        mine = {each.name: each.entry() for each in self.all() if each.protocol != "images"}
        configfile.change(**{"default-remote": self.default, "remotes": mine})


def accept(name: str, der: bytes) -> None:
    """Keep the certificate that a remote's server has to show from now on."""
    import ssl

    os.makedirs(os.path.dirname(certificate_path(name)), mode=0o750, exist_ok=True)
    configfile.write(certificate_path(name), ssl.DER_cert_to_PEM_cert(der).encode())


def forget(name: str) -> None:
    """Drop the certificate that was accepted of a remote's server."""
    try:
        os.unlink(certificate_path(name))
    except FileNotFoundError:
        return


def _remote(name: str, entry: dict[str, Any]) -> Remote:
    return Remote(
        name, entry["addr"], entry.get("protocol") or "lxd", entry.get("project") or "",
        public=bool(entry.get("public")), auth_type=entry.get("auth_type") or "",
        static=name == LOCAL,
    )  # fmt: skip


def set_project(remote: str, project: str) -> None:
    """Have a project be a remote's from now on. Raises BadRequest."""
    entries = dict(configfile.parse(configfile.text()).get("remotes") or {})
    entries[remote] = {"addr": "unix://", **(entries.get(remote) or {}), "project": project}
    configfile.change(remotes=entries)
