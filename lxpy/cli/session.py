"""What one call of the command line works with: its global flags, remotes and clients."""

from __future__ import annotations

import os
import sys

from lxpy.client.remotes import LOCAL, Remotes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.client.client import Client
    from lxpy.client.remotes import Remote


class Session:
    """Global flags, and what follows from them."""

    def __init__(self) -> None:
        self.project = os.environ.get("LXPY_PROJECT") or os.environ.get("LXD_PROJECT") or ""
        self.quiet = False
        self.trace = False
        self.force_local = False
        self._remotes: Remotes | None = None

    @property
    def remotes(self) -> Remotes:
        """The user's remotes, read on first use. Raises BadRequest."""
        if self._remotes is None:
            self._remotes = Remotes.load()
        return self._remotes

    def parse(self, text: str) -> tuple[Remote, str]:
        """Split "remote:name". Raises NotFound for an unknown remote."""
        if self.force_local and ":" not in text:
            text = f"{LOCAL}:{text}"
        return self.remotes.parse(text)

    def client(self, remote: Remote) -> Client:
        """Return a client of a remote, with progress on the terminal. Raises BadRequest."""
        client = remote.client(self.project, trace=self.trace)
        if not self.quiet and sys.stderr.isatty():
            from lxpy.cli.progress import Line

            client.watcher = Line()
        return client

    def server(self, text: str) -> tuple[Client, str]:
        """Return a client and the rest of "remote:rest". Raises NotFound, BadRequest."""
        remote, rest = self.parse(text)
        return self.client(remote), rest

    def say(self, text: str) -> None:
        """Tell what was done, unless --quiet."""
        if not self.quiet:
            print(text, flush=True)
