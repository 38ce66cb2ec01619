"""`lxpy completion`: what the shells need to complete our commands, and what exists to complete."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from lxpy.cli.declare import command
from lxpy.cli.session import Session
from lxpy.client.transport import quote
from lxpy.errors import LxpyError

SHELLS = ("bash", "zsh", "fish")


@command(None, "completion", short_help="Print a completion script for a shell")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(session: Session, shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    For this shell only: eval "$(lxpy completion bash)"
    """
    from lxpy.cli.root import root

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"No completion for {shell}")
    # Not kind.source(): it runs the shell to find out its version.
    click.echo(ShellComplete.source(kind(root, {}, "lxpy", "_LXPY_COMPLETE")))


def existing(kind: str, start: str) -> list[str]:
    """Return what the server has of a kind ("instances") and begins with `start`; silently."""
    try:
        client, name = Session().server(start)
        client.watcher = None
        prefix = start[: len(start) - len(name)]
        urls: list[str] = client.get(f"/1.0/{quote(kind, b'/')}")
    except (LxpyError, OSError):
        return []
    found = [url.partition(f"/1.0/{kind}/")[2].partition("?")[0] for url in urls]
    return sorted(f"{prefix}{each}" for each in found if each.startswith(name))
