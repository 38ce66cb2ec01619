"""`lxpy delete`: instances and snapshots."""

from __future__ import annotations

import click

from lxpy.cli import removing
from lxpy.cli.declare import argument, command, flag, names
from lxpy.cli.session import Session


@command(None, "delete", short_help="Delete instances and snapshots")
@argument(
    "instances",
    "[<remote>:]<instance>[/<snapshot>] [[<remote>:]<instance>[/<snapshot>]...]",
    nargs=-1,
    required=True,
    shell_complete=names("instances"),
)
@flag("-f", "--force", help="Force the removal of running instances")
@flag("-i", "--interactive", help="Require user confirmation")
def delete(session: Session, instances: tuple[str, ...], force: bool, interactive: bool) -> None:
    """Delete instances and snapshots. Nothing is deleted if one of them does not exist."""
    removing.delete(session, instances, force=force, confirm=click.confirm if interactive else None)
