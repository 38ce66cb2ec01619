"""`lxpy version` and `lxpy shutdown`."""

from __future__ import annotations

import click

from lxpy import __version__
from lxpy.cli.declare import argument, command, flag
from lxpy.cli.session import Session
from lxpy.errors import Unreachable


@command(None, "version", short_help="Show local and remote versions")
@argument("remote", "[<remote>:]")
def version(session: Session, remote: str | None) -> None:
    """Show the versions of this command and of the server."""
    client, _ = session.server(remote or "")
    try:
        environment = client.get("/1.0").get("environment") or {}
        found = environment.get("server_version", "unknown")
        if ours := environment.get("lxpy_version"):
            found = f"{found} (lxpyd {ours})"
    except Unreachable:
        found = "unreachable"
    print(f"Client version: {__version__}")
    print(f"Server version: {found}")


@command(None, "shutdown", short_help="Stop all instances and the server")
@flag("-f", "--force", help="Kill instances instead of asking them to shut down")
@click.option(
    "--timeout",
    type=int,
    default=0,
    metavar="SECONDS",
    help="Time to wait before killing (default: core.shutdown_timeout)",
)
def shutdown(session: Session, force: bool, timeout: int) -> None:
    """Stop all instances, the daemon and the supervisor.

    What was running starts again with the daemon.
    """
    client, _ = session.server("")
    body: dict[str, object] = {"force": force}
    if timeout > 0:
        body["timeout"] = timeout
    client.change("PUT", "/internal/shutdown", body)
