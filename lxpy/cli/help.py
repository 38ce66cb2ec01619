"""`lxpy help`: the same as --help."""

from __future__ import annotations

import click

from lxpy.cli.declare import Group, UnknownCommand, command, flag
from lxpy.cli.session import Session


@command(None, "help", short_help="Help about any command")
@click.argument("words", nargs=-1, metavar="[command]...")
@flag("--all", "every", help="Accepted for compatibility: all commands are always shown")
def help_command(session: Session, words: tuple[str, ...], every: bool) -> None:
    """Show the help of a command."""
    from lxpy.cli.root import root  # root names this module

    context = click.Context(root, info_name="lxpy", obj=session)
    current: click.Command = root
    for word in words:
        found = current.get_command(context, word) if isinstance(current, Group) else None
        if found is None:
            raise UnknownCommand(word, context)
        current, context = found, click.Context(found, info_name=word, parent=context)
    click.echo(current.get_help(context))
