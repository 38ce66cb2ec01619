"""Files of instances and snapshots as the commands name them, and requests about them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lxpy.cli.progress import Meter
from lxpy.cli.session import Session
from lxpy.client.client import Client
from lxpy.client.transport import Response, Upload, quote, refusal
from lxpy.errors import BadRequest, Refused

TAR = "application/x-tar"
_SUCCESS = 200
_LINKS_MAX = 40


@dataclass(frozen=True, slots=True)
class Owner:
    """Owner and permissions of what is made; None leaves them to the server."""

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None

    def headers(self) -> dict[str, str]:
        """Return what tells the server."""
        named = {"X-LXD-uid": self.uid, "X-LXD-gid": self.gid}
        found = {name: str(number) for name, number in named.items() if number is not None}
        if self.mode is not None:
            found["X-LXD-mode"] = f"{self.mode:04o}"
        return found


@dataclass(frozen=True, slots=True)
class Place:
    """A path in an instance, or in its snapshot."""

    client: Client
    instance: str
    snapshot: str
    path: str

    @classmethod
    def parse(cls, session: Session, text: str, what: str) -> Place:
        """Return what "[remote:]instance[@snapshot]/path" names. Raises BadRequest."""
        client, rest = session.server(text)
        name, slash, path = rest.partition("/")
        instance, _, snapshot = name.partition("@")
        if not slash or not instance:
            raise BadRequest(f"Invalid {what} {rest}: write <instance>/<path>")
        return cls(client, instance, snapshot, f"/{path}")

    @property
    def name(self) -> str:
        """The last part of the path, "" for the root."""
        return posixpath.basename(posixpath.normpath(self.path))

    def at(self, path: str) -> Place:
        """Return another path of the same instance."""
        return replace(self, path="/" + posixpath.normpath(path).lstrip("/"))

    def get(self, accept: str = "") -> Found:
        """Ask for what is there. Raises Refused."""
        headers = {"Accept": accept} if accept else {}
        response = self.client.request("GET", self._target(), None, headers)
        if response.status != _SUCCESS:
            raise refusal(response.status, response.read().decode(errors="replace"))
        return Found(self, response)

    def followed(self) -> Found:
        """Ask for a file; links are followed, as far as they go. Raises Refused."""
        place = self
        for _ in range(_LINKS_MAX):
            found = place.get()
            if found.type != "symlink":
                return found
            place = self.at(found.text())
        raise Refused(f"{self.path} leads through too many symbolic links")

    def put(self, kind: str, owner: Owner, body: bytes | Upload = b"") -> None:
        """Write a file, or make a directory or a link. Raises Refused."""
        self._post({"X-LXD-type": kind, "X-LXD-write": "overwrite", **owner.headers()}, body)

    def unpack(self, pieces: Iterator[bytes]) -> None:
        """Unpack a tar archive in this directory. Raises Refused."""
        self._post({"Content-Type": TAR}, Upload(-1, pieces))

    def make_directories(self, owner: Owner) -> None:
        """Make this directory, and those above it, where they are missing. Raises Refused."""
        path = ""
        for part in filter(None, self.path.split("/")):
            path = f"{path}/{part}"
            self.at(path).put("directory", owner)

    def delete(self) -> None:
        """Remove it. Raises Refused."""
        self._check_writable()
        self.client.ask("DELETE", self._url, parameters={"path": self.path})

    def _post(self, headers: dict[str, str], body: bytes | Upload) -> None:
        self._check_writable()
        self.client.ask("POST", self._url, body, headers, {"path": self.path})

    def _check_writable(self) -> None:
        if self.snapshot:
            raise BadRequest(f"Snapshots are read-only: {self.instance}@{self.snapshot}")

    @property
    def _url(self) -> str:
        tail = f"/snapshots/{quote(self.snapshot)}" if self.snapshot else ""
        return f"/1.0/instances/{quote(self.instance)}{tail}/files"

    def _target(self) -> str:
        return self.client.target(self._url, {"path": self.path})


class Found:
    """What a server has at a place; its content is still to be read."""

    def __init__(self, place: Place, response: Response) -> None:
        self.place = place
        self.response = response
        self.type = response.headers.get("x-lxd-type", "file")
        self.is_tree = response.headers.get("content-type", "") == TAR

    @property
    def mode(self) -> int:
        """Its permissions."""
        return int(self.response.headers.get("x-lxd-mode", "0644"), 8) & 0o777

    def text(self) -> str:
        """Read a link's target."""
        return self.response.read().decode("utf-8", "surrogateescape").strip()

    def pieces(self, what: str) -> Iterator[bytes]:
        """Read the content, with progress on the terminal: `what` is done."""
        meter = Meter(self.place.client, what)
        try:
            yield from meter.watch(self.response.pieces(), self.response.length)
        finally:
            meter.end()
