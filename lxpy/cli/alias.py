"""`lxpy alias`: the user's own commands."""

from __future__ import annotations

from lxpy.cli.declare import argument, command, format_option, group
from lxpy.cli.render import show
from lxpy.cli.session import Session
from lxpy.client import aliases

alias = group(None, "alias", "Manage command aliases.")


@command(alias, "add", short_help="Add new aliases")
@argument("name", "<alias>")
@argument("target", "<target>")
def add(session: Session, name: str, target: str) -> None:
    """Add an alias: lxpy alias add ll "list -c ns46S".

    @ARGS@ in the target stands for the words that follow the alias, @ARG1@ for the first of them.
    An alias may have the name of a command.
    """
    aliases.add(name, target)


@command(alias, "list", help="List aliases.")
@format_option()
def list_aliases(session: Session, form: str) -> None:
    found = aliases.load()
    rows = [[name, found[name]] for name in sorted(found)]
    show(form, ("ALIAS", "TARGET"), rows, found)


@command(alias, "remove", help="Remove aliases.")
@argument("name", "<alias>")
def remove(session: Session, name: str) -> None:
    aliases.remove(name)


@command(alias, "rename", help="Rename aliases.")
@argument("name", "<old alias>")
@argument("new", "<new alias>")
def rename(session: Session, name: str, new: str) -> None:
    aliases.rename(name, new)
