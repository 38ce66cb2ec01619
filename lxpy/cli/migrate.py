"""`lxpy move` of what runs, or has a state, to another server: the disk goes ahead, memory follows.

The source stays whole, and can go on, until the target runs; then it is deleted. We decide which of
the two runs, also when one of the servers dies meanwhile: it is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lxpy.cli.progress import Meter
from lxpy.cli.removing import path_of
from lxpy.cli.session import Session
from lxpy.client.client import Client, Json
from lxpy.client.transport import Upload, query
from lxpy.errors import BadRequest, LxpyError, Refused, Unreachable
from lxpy.units import is_false

LIVE, RESTART, AUTO = MODES = ("live", "restart", "auto")
RUNNING = ("Running", "Ready")
_EXTENSION, _AHEAD = "lxpy_memory", "lxpy_memory_ahead"
_ROUNDS, _GOAL_PERCENT = 10, 70
_STOP_S = 30
#: how long a server may be away before we ask for help
_PATIENCE_S = 120.0
_PAUSE_S = 0.25
_SETTING_UP = 503
_TYPE = {"Content-Type": "application/octet-stream"}

_T = TypeVar("_T")
#: copies the instance to the other server; with True, brings the copy up to date
Copy = Callable[[bool], None]


class Move:
    """One instance on its way from a server to another."""

    def __init__(
        self, session: Session, source: tuple[Client, str], target: tuple[Client, str], copy: Copy
    ) -> None:
        self._session = session
        self._here, self._name = source
        self._there, self._wanted = target
        self._copy = copy
        self._ahead = ""  # the token of the part of the memory that was sent last

    def run(self, mode: str) -> None:
        """Move it. Raises BadRequest, Refused; the instance goes on where it was then."""
        was = self._here.get(path_of(self._name))
        if self._there.find(path_of(self._wanted)) is not None:
            raise BadRequest(f'There is an instance "{self._wanted}" on the other server already')
        if was["status"] in RUNNING:
            self._move_running(was, mode)
        elif was["status"] == "Stopped":
            with self._undone_there():
                self._copy(False)
                if was["stateful"]:
                    self._send_memory()
        else:
            raise BadRequest(f'"{self._name}" is {was["status"].lower()}: let it go on first')
        _persistently(lambda: _delete(self._here, self._name))

    def _move_running(self, was: Json, mode: str) -> None:
        if was["ephemeral"]:
            raise BadRequest(
                f'"{self._name}" is ephemeral, it would be gone when it stops: unset that first '
                f"(lxpy config edit {self._name})"
            )
        live = self._is_live(mode)
        with self._undone_there(), self._nothing_ahead():
            self._copy(False)
            if live and self._goes_ahead(was["expanded_config"]):
                self._send_ahead(was["expanded_config"])
            self._copy(True)  # what has changed meanwhile: less is left for the end
        begin = time.monotonic()
        try:
            live = self._stop(live=live, may_fall_back=mode == AUTO)
            self._copy(True)
            if live:
                self._send_memory()
            _change_state(self._there, self._wanted, "start")
        except BaseException:
            if not self._settled_there():
                with _whatever_happens():
                    _persistently(self._go_on_here)
                raise
        self._session.say(f"It stood still for {time.monotonic() - begin:.2f} s")

    # When something fails

    def _settled_there(self) -> bool:
        """Tell whether it runs there; else nothing of it stays. Raises Refused if none can tell."""
        if self._runs_there():
            return True
        with _whatever_happens():
            _persistently(lambda: _delete(self._there, self._wanted))
        return self._runs_there()

    def _runs_there(self) -> bool:
        try:
            found = _persistently(lambda: self._there.find(path_of(self._wanted)))
        except (LxpyError, OSError) as error:
            raise Refused(
                f'The other server does not answer ({error}). "{self._name}" is whole here, '
                f"stopped. If it does not run there, start it here: lxpy start {self._name}"
            ) from error
        return found is not None and found["status"] in RUNNING

    def _go_on_here(self) -> None:
        if self._here.get(path_of(self._name))["status"] not in RUNNING:
            _change_state(self._here, self._name, "start")

    @contextmanager
    def _undone_there(self) -> Iterator[None]:
        """Have nothing left on the other server when the block fails."""
        try:
            yield
        except BaseException:
            with _whatever_happens():
                _persistently(lambda: _delete(self._there, self._wanted))
            raise

    @contextmanager
    def _nothing_ahead(self) -> Iterator[None]:
        """Have no memory that was saved to be sent ahead left here when the block fails."""
        try:
            yield
        except BaseException:
            if self._ahead:
                with _whatever_happens():
                    self._here.ask("DELETE", f"{path_of(self._name)}/memory")
            raise

    # Steps

    def _stop(self, *, live: bool, may_fall_back: bool) -> bool:
        """Stop it; tell whether its memory was saved."""
        if live:
            try:
                _change_state(self._here, self._name, "stop", stateful=True)
                return True
            except Refused as error:
                still = self._here.find(path_of(self._name)) if may_fall_back else None
                if still is None or still["status"] not in RUNNING:
                    raise
                self._session.say(f"It is stopped for the move: {error}")
        try:
            _change_state(self._here, self._name, "stop", timeout=_STOP_S)
        except Refused:
            _change_state(self._here, self._name, "stop", force=True)
        return False

    def _goes_ahead(self, config: Json) -> bool:
        """Tell whether memory is sent ahead: if the kernel here tells what has changed since."""
        if is_false(config.get("migration.incremental.memory")):
            return False
        if _AHEAD not in self._there.get("/1.0")["api_extensions"]:
            return False
        return bool(self._here.get(f"{path_of(self._name)}/checkpoint").get("tracks_memory"))

    def _send_ahead(self, config: Json) -> None:
        """Send memory while it is used, until little is left to be sent, or it does not help."""
        rounds = int(config.get("migration.incremental.memory.iterations") or _ROUNDS)
        goal = int(config.get("migration.incremental.memory.goal") or _GOAL_PERCENT)
        before = -1
        for _ in range(rounds):
            try:
                headers = self._send("Sending memory ahead", ahead="true")
            except Refused as error:
                self._session.say(f"Memory does not go ahead: {error}")
                return
            self._ahead = headers["x-lxpy-token"]
            known = int(headers["x-lxpy-known"])
            if known >= goal or known <= before:
                return
            before = known

    def _send_memory(self) -> None:
        self._send("Sending the memory", beyond=self._ahead)

    def _send(self, what: str, **wish: str) -> dict[str, str]:
        """Have a part of the memory, or what is left of it, go there; the headers it had."""
        response = self._here.download(f"{path_of(self._name)}/memory{query(wish)}")
        wish["beyond"] = response.headers.get("x-lxpy-beyond", "")
        meter = Meter(self._there, what)
        try:
            body = Upload(-1, meter.watch(response.pieces(), -1))
            path = f"{path_of(self._wanted)}/memory"
            self._there.ask("PUT", path, body, _TYPE, parameters=wish)
        finally:
            meter.end()
        return response.headers

    def _is_live(self, mode: str) -> bool:
        """Tell whether the memory goes along. Raises BadRequest when it must and cannot."""
        if mode == RESTART:
            return False
        reason = self._obstacle()
        if not reason:
            return True
        if mode == LIVE:
            raise BadRequest(
                f'"{self._name}" cannot be moved with its memory ({reason}): see '
                f"lxpy checkpoint --check {self._name}, or use --mode restart"
            )
        self._session.say(f"It is stopped for the move, its memory cannot go along ({reason})")
        return False

    def _obstacle(self) -> str:
        """Return what keeps the memory from going along, "" for nothing."""
        for client in (self._here, self._there):
            if _EXTENSION not in client.get("/1.0")["api_extensions"]:
                return "one of the servers is not lxpyd"
        found = self._here.get(f"{path_of(self._name)}/checkpoint")
        if found["possible"]:
            return ""
        first = found["blockers"][0]
        return f"{first['command'] or 'the instance'}: {first['reason']}"


def _change_state(
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


def _delete(client: Client, name: str) -> None:
    """Delete an instance that does not run; one that is gone already is as well."""
    if client.find(path_of(name)) is not None:
        client.change("DELETE", path_of(name))


def _persistently(call: Callable[[], _T]) -> _T:
    """Do something that may be done twice, again as long as the server is away. Raises as it."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return call()
        except (Unreachable, Refused, OSError) as error:
            away = not isinstance(error, Refused) or error.code in (0, _SETTING_UP)
            if not away or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)


@contextmanager
def _whatever_happens() -> Iterator[None]:
    """Clean up as far as it goes: what went wrong before is what counts."""
    try:
        yield
    except (LxpyError, OSError):
        pass
