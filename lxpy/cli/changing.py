"""Changing the state of instances, and waiting for it: what `start`, `stop` and the like do."""

from __future__ import annotations

import sys

from lxpy.cli.target import split_snapshot
from lxpy.client.client import OperationFailed
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, LxpyError, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.cli.session import Session
    from lxpy.client.client import Client, Json

#: What --all means to an action: the states of the instances that it is for.
_ALL = {
    "start": ("Stopped", "Frozen"),
    "stop": ("Running", "Ready", "Frozen", "Error"),
    "restart": ("Running", "Ready"),
    "freeze": ("Running", "Ready"),
    "unfreeze": ("Frozen",),
}
#: Errors that say all there is to say.
_NO_LOG = ("The instance is already ", "The container isn't running")
_VERBS = {
    "start": "start",
    "stop": "stop",
    "restart": "restart",
    "freeze": "pause",
    "unfreeze": "resume",
}


def start(
    session: Session,
    instances: tuple[str, ...],
    *,
    every: bool = False,
    console: str | None = None,
    stateless: bool = False,
) -> int:
    """Start instances, and resume those that are paused."""
    body = {"action": "start", "timeout": 0, "force": False, "stateful": not stateless}
    return act(session, instances, body, every=every, console=console)


def stop(
    session: Session,
    instances: tuple[str, ...],
    *,
    every: bool = False,
    console: str | None = None,
    force: bool = False,
    stateful: bool = False,
    timeout: int = -1,
) -> int:
    """Stop instances."""
    body = {"action": "stop", "timeout": timeout, "force": force, "stateful": stateful}
    return act(session, instances, body, every=every, console=console)


def restart(
    session: Session,
    instances: tuple[str, ...],
    *,
    every: bool = False,
    console: str | None = None,
    force: bool = False,
    timeout: int = -1,
) -> int:
    """Restart instances."""
    body = {"action": "restart", "timeout": timeout, "force": force, "stateful": False}
    return act(session, instances, body, every=every, console=console)


def pause(session: Session, instances: tuple[str, ...], *, every: bool = False) -> int:
    """Freeze instances."""
    body = {"action": "freeze", "timeout": -1, "force": False, "stateful": False}
    return act(session, instances, body, every=every)


def resume(session: Session, instances: tuple[str, ...], *, every: bool = False) -> int:
    """Thaw instances."""
    body = {"action": "unfreeze", "timeout": -1, "force": False, "stateful": False}
    return act(session, instances, body, every=every)


def act(
    session: Session,
    words: tuple[str, ...],
    body: Json,
    *,
    every: bool,
    console: str | None = None,
) -> int:
    """Do something to instances, all of them if several; report each that failed.

    Raises BadRequest, and Refused when the only one failed.
    """
    action = str(body["action"])
    if every and words:
        raise BadRequest("Both --all and instance name given")
    targets = _everything(session, action) if every else [session.server(word) for word in words]
    if any(split_snapshot(name)[1] for _, name in targets):
        raise BadRequest("Snapshots can't be started or stopped; name an instance")
    if console and len(targets) != 1:
        raise BadRequest("--console works only with a single instance")
    if len(targets) == 1:
        client, name = targets[0]
        change_state(client, name, body)
        if not console:
            return 0
        from lxpy.cli.console import attach  # seldom asked for

        return attach(client, name, console)
    return _report(targets, body, _VERBS[action])


def _everything(session: Session, action: str) -> list[tuple[Client, str]]:
    client, _ = session.server("")
    found = client.get("/1.0/instances", recursion="1")
    return [(client, each["name"]) for each in found if each["status"] in _ALL[action]]


def change_state(client: Client, name: str, body: Json) -> None:
    """Start, stop, restart, freeze or unfreeze one instance. Raises Refused."""
    try:
        client.change("PUT", f"/1.0/instances/{quote(name)}/state", _fitting(client, name, body))
    except OperationFailed as error:
        if str(error).startswith(_NO_LOG):
            raise
        raise Refused(
            f"{error}\nTry `lxpy info --show-log {name}` for more info", error.code
        ) from error


def _fitting(client: Client, name: str, body: Json) -> Json:
    """Return what to send: starting means to resume what is paused, or to restore its state."""
    if body["action"] != "start":
        return body
    instance = client.get(f"/1.0/instances/{quote(name)}")
    if instance["status"] == "Frozen":
        return {**body, "action": "unfreeze", "stateful": False}
    return {**body, "stateful": bool(body["stateful"] and instance.get("stateful"))}


def _report(targets: list[tuple[Client, str]], body: Json, verb: str) -> int:
    """Begin everywhere, then wait; one that fails does not keep the others from it."""
    errors: list[tuple[str, LxpyError]] = []
    begun = []
    for client, name in targets:
        path = f"/1.0/instances/{quote(name)}/state"
        try:
            begun.append((client, name, client.begin("PUT", path, _fitting(client, name, body))))
        except LxpyError as error:
            errors.append((name, error))
    for client, name, operation in begun:
        done = client.wait(operation)
        if done["status_code"] != 200:
            errors.append((name, Refused(done.get("err") or done["status"])))
    for name, failure in sorted(errors, key=lambda each: each[0]):
        print(f"{name}: error: {failure}", file=sys.stderr)
    if errors:
        print(f"\nError: Some instances failed to {verb}", file=sys.stderr)
    return int(bool(errors))
