"""`lxpy move` to another server: the disk goes ahead while the instance runs, its memory follows.

The source stays whole, and can go on, until the target runs; then it is deleted.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lxpy.cli import archives
from lxpy.cli.progress import Meter
from lxpy.cli.removing import path_of
from lxpy.cli.session import Session
from lxpy.client.client import Client
from lxpy.client.transport import Upload, quote
from lxpy.errors import BadRequest, LxpyError, Refused

LIVE, RESTART, AUTO = MODES = ("live", "restart", "auto")
_STOP_S = 30
_TYPE = {"Content-Type": "application/octet-stream"}


class Move:
    """One instance on its way from a server to another."""

    def __init__(
        self,
        session: Session,
        source: tuple[Client, str],
        target: tuple[Client, str],
        *,
        pool: str,
        instance_only: bool,
    ) -> None:
        self._session = session
        self._here, self._name = source
        self._there, self._wanted = target
        self._pool = pool
        self._instance_only = instance_only
        self._base = f"move-{secrets.token_hex(4)}"

    def run(self, mode: str) -> None:
        """Move it. Raises BadRequest, Refused; the instance goes on where it was then."""
        was = self._here.get(path_of(self._name))
        if self._there.find(path_of(self._wanted)) is not None:
            raise BadRequest(f'There is an instance "{self._wanted}" on the other server already')
        if was["status"] in ("Running", "Ready"):
            self._move_running(live=self._is_live(mode))
        else:
            with self._undone_there():
                self._send_disk(self._instance_only)
                if was["stateful"]:
                    self._send_memory()
        self._here.change("DELETE", path_of(self._name))

    def _move_running(self, *, live: bool) -> None:
        snapshots = f"{path_of(self._name)}/snapshots"
        self._here.change("POST", snapshots, {"name": self._base, "stateful": False})
        try:
            with self._undone_there():
                self._send_disk(instance_only=False)
                begin = time.monotonic()
                with self._going_on_here(live=live):
                    self._send_changes()
                    if live:
                        self._send_memory()
                    self._change_state(self._there, self._wanted, "start")
                stood_still_s = time.monotonic() - begin
        except BaseException:
            with _whatever_happens():
                self._here.change("DELETE", f"{snapshots}/{self._base}")
            raise
        self._session.say(f"It stood still for {stood_still_s:.2f} s")
        for name in self._superfluous():
            self._there.change("DELETE", f"{path_of(self._wanted)}/snapshots/{quote(name)}")

    def _superfluous(self) -> list[str]:
        """Return the snapshots that are there and are not wanted."""
        if not self._instance_only:
            return [self._base]
        found = self._there.get(f"{path_of(self._wanted)}/snapshots")
        return [str(url).rpartition("/")[2] for url in found]

    @contextmanager
    def _undone_there(self) -> Iterator[None]:
        """Have nothing left on the other server when the block fails."""
        try:
            yield
        except BaseException:
            with _whatever_happens():
                if self._there.find(path_of(self._wanted)) is not None:
                    self._there.change("DELETE", path_of(self._wanted))
            raise

    @contextmanager
    def _going_on_here(self, *, live: bool) -> Iterator[None]:
        """Stop the instance for the block; when that fails, it goes on here."""
        try:
            self._stop(live=live)
            yield
        except BaseException:
            with _whatever_happens():
                self._change_state(self._there, self._wanted, "stop", force=True)
            with _whatever_happens():
                self._change_state(self._here, self._name, "start")
            raise

    def _stop(self, *, live: bool) -> None:
        if live:
            self._change_state(self._here, self._name, "stop", stateful=True)
            return
        try:
            self._change_state(self._here, self._name, "stop", timeout=_STOP_S)
        except Refused:
            self._change_state(self._here, self._name, "stop", force=True)

    def _change_state(
        self,
        client: Client,
        name: str,
        action: str,
        *,
        force: bool = False,
        timeout: int = -1,
        **more: bool,
    ) -> None:
        body = {"action": action, "force": force, "timeout": timeout, **more}
        client.change("PUT", f"{path_of(name)}/state", body)

    def _send_disk(self, instance_only: bool) -> None:
        chosen = "&instance-only=true" if instance_only else ""
        self._send(f"export?compression=none{chosen}", "Sending the disk")

    def _send_changes(self) -> None:
        self._send(f"export?compression=none&since={quote(self._base)}", "Sending what changed")

    def _send(self, what: str, text: str) -> None:
        response = self._here.download(f"{path_of(self._name)}/{what}")
        headers = {"X-LXD-name": self._wanted}
        if self._pool:
            headers["X-LXD-pool"] = self._pool
        archives.send(self._there, "/1.0/instances", (-1, response.pieces()), headers, text)

    def _send_memory(self) -> None:
        response = self._here.download(f"{path_of(self._name)}/memory")
        meter = Meter(self._there, "Sending the memory")
        try:
            body = Upload(-1, meter.watch(response.pieces(), -1))
            self._there.ask("PUT", f"{path_of(self._wanted)}/memory", body, _TYPE)
        finally:
            meter.end()

    def _is_live(self, mode: str) -> bool:
        """Tell whether the memory goes along. Raises BadRequest when it must and cannot."""
        if mode == RESTART:
            return False
        found = self._here.get(f"{path_of(self._name)}/checkpoint")
        if found["possible"]:
            return True
        first = found["blockers"][0]
        reason = f"{first['command'] or 'the instance'}: {first['reason']}"
        if mode == LIVE:
            raise BadRequest(
                f'"{self._name}" cannot be moved with its memory ({reason}): see '
                f"lxpy checkpoint --check {self._name}, or use --mode restart"
            )
        self._session.say(f"It is stopped for the move, its memory cannot go along ({reason})")
        return False


@contextmanager
def _whatever_happens() -> Iterator[None]:
    """Clean up as far as it goes: what went wrong before is what counts."""
    try:
        yield
    except (LxpyError, OSError):
        pass
