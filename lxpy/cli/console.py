"""`lxpy console`: the console of an instance on this terminal, and what it printed so far."""

from __future__ import annotations

import os
import shutil
import sys
from signal import SIGHUP, SIGTERM, SIGWINCH

import click

from lxpy.cli import terminal
from lxpy.cli.declare import argument, command, flag, names
from lxpy.cli.session import Session
from lxpy.cli.streams import Pump, resize
from lxpy.client.client import Client, succeeded
from lxpy.client.transport import quote
from lxpy.errors import BadRequest

_ATTENTION = b"\x01"  # ctrl-a
_TYPES = ("console", "vga")


@command(None, "console", short_help="Attach to instance consoles")
@argument("instance", "[<remote>:]<instance>", shell_complete=names("instances"))
@flag("--show-log", help="Retrieve the instance's console log")
@click.option(
    "-t",
    "--type",
    "kind",
    type=click.Choice(_TYPES),
    default="console",
    help="Type of connection (default console)",
)
def console(session: Session, instance: str, show_log: bool, kind: str) -> int:
    """Attach to instance consoles.

    To detach from the console, press: <ctrl>+a q
    """
    client, name = session.server(instance)
    if show_log:
        response = client.download(f"/1.0/instances/{quote(name)}/console")
        sys.stdout.write("\nConsole log:\n\n")
        sys.stdout.flush()
        for piece in response.pieces():
            sys.stdout.buffer.write(piece)
        sys.stdout.write("\n")
        return 0
    return attach(client, name, kind)


def attach(client: Client, name: str, kind: str = "console") -> int:
    """Connect this terminal to an instance's console until ctrl-a q. Raises Refused."""
    if kind != "console":
        raise BadRequest("Containers have a text console only; leave --type and --console=vga out")
    width, height = terminal.size(1)
    if not width:
        width, height = shutil.get_terminal_size()
    body = {"width": width, "height": height, "type": "console"}
    operation = client.begin("POST", f"/1.0/instances/{quote(name)}/console", body)
    control, stream = client.channels(operation, "control", "0")
    print("To detach from the console, press: <ctrl>+a q", flush=True)
    pump = Pump({stream: 1}, stream, control, 0)
    pump.typed = keys = Detach()
    pump.forwards = False
    try:
        with terminal.Signals(SIGWINCH, SIGTERM, SIGHUP) as signals:
            if os.isatty(0):
                with terminal.Raw(0):
                    resize(control)
                    pump.run(signals)
            else:
                pump.run(signals)
    finally:
        control.close()
        stream.close()
    ended = client.wait(operation)
    if not keys.done:  # LXD calls what it meant to print then an error, now and again
        succeeded(ended)
    return 0


class Detach:
    """Watches what is typed for ctrl-a q, in one piece or key by key.

    Ctrl-a twice sends one ctrl-a; before any other key it is sent along.
    """

    def __init__(self) -> None:
        self.done = False
        self._attention = False

    def __call__(self, data: bytes) -> bytes | None:
        """Return what is to be sent, or None to detach."""
        found = bytearray()
        for number in data:
            key = bytes((number,))
            if not self._attention:
                self._attention = key == _ATTENTION
                if not self._attention:
                    found += key
            elif key in (b"q", b"Q"):
                self.done = True
                return None
            else:
                self._attention = False
                found += key if key == _ATTENTION else _ATTENTION + key
        return bytes(found)
