"""Run a command in an instance; its streams, signals and exit status are this process' own."""

from __future__ import annotations

import os
import sys
from signal import SIGWINCH

from lxpy.cli import terminal
from lxpy.cli.streams import Pump
from lxpy.cli.target import pairs
from lxpy.client.client import succeeded
from lxpy.client.transport import quote
from lxpy.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.cli.session import Session
    from lxpy.client.client import Client, Json

COMMAND_NOT_FOUND = 127


def execute(
    session: Session,
    instance: str,
    command: tuple[str, ...],
    *,
    cwd: str = "",
    env: tuple[str, ...] = (),
    user: int = 0,
    group: int = 0,
    mode: str = "auto",
    force_interactive: bool = False,
    force_noninteractive: bool = False,
    disable_stdin: bool = False,
) -> int:
    """Run a command in an instance and return its exit status.

    Raises BadRequest, and Refused when the command could not be started.
    """
    if force_interactive and force_noninteractive:
        raise BadRequest("You can't pass -t and -T at the same time")
    if mode != "auto" and (force_interactive or force_noninteractive):
        raise BadRequest("You can't pass -t or -T at the same time as --mode")
    client, name = session.server(instance)
    terminals = not disable_stdin and os.isatty(0) and os.isatty(1)
    interactive = force_interactive or mode == "interactive" or (mode == "auto" and terminals)
    interactive = interactive and not force_noninteractive
    environment = pairs(env)
    if "TERM" in os.environ:
        environment.setdefault("TERM", os.environ["TERM"])
    width, height = terminal.size(1) if interactive else (0, 0)
    request = {
        "command": list(command),
        "environment": environment,
        "interactive": interactive,
        "wait-for-websocket": True,
        "record-output": False,
        "width": width,
        "height": height,
        "user": user,
        "group": group,
        "cwd": cwd,
    }
    operation = client.begin("POST", f"/1.0/instances/{quote(name)}/exec", request)
    done = _attach(client, operation, None if disable_stdin else 0, interactive=interactive)
    return _status(done)


def _attach(client: Client, operation: Json, source: int | None, *, interactive: bool) -> Json:
    """Connect the streams, move bytes until they end; return the finished operation."""
    if interactive:
        control, sink = client.channels(operation, "control", "0")
        outputs = {sink: 1}
    else:
        control, sink, out, err = client.channels(operation, "control", "0", "1", "2")
        outputs = {out: 1, err: 2}
    data = {sink, *outputs}
    pump = Pump(outputs, sink, control, source)
    numbers = (*terminal.FORWARDED, SIGWINCH) if interactive else terminal.FORWARDED
    try:
        with terminal.Signals(*numbers) as signals:
            if interactive and os.isatty(0):
                with terminal.Raw(0):
                    pump.run(signals)
            else:
                pump.run(signals)
            # LXD goes on reading stdin until it is closed; closing control would kill the command.
            for socket in data:
                socket.close()
            return client.wait(operation)
    finally:
        for socket in (*data, control):
            socket.close()


def _status(done: Json) -> int:
    """Return the command's exit status. Raises Refused when there is none."""
    result = (done.get("metadata") or {}).get("return")
    if result is None:
        succeeded(done)
        return 0
    if done.get("err"):
        print(f"Error: {done['err']}", file=sys.stderr)
    return int(result) & 0xFF
