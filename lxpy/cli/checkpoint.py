"""`lxpy checkpoint --check`: what would keep the memory of an instance from being saved."""

from __future__ import annotations

import click

from lxpy.cli import render
from lxpy.cli.declare import argument, command, flag, names
from lxpy.cli.removing import path_of
from lxpy.cli.session import Session
from lxpy.errors import BadRequest


@command(None, "checkpoint", short_help="Tell whether the memory of an instance can be saved")
@argument("instance", "[<remote>:]<instance>", shell_complete=names("instances"))
@flag("--check", help="Look only (the memory itself is saved by snapshot and stop --stateful)")
def checkpoint(session: Session, instance: str, check: bool) -> int:
    """Tell what would keep the memory of a running instance from being saved, and what helps.

    Nothing stands still for it. The exit status is 1 if something would.
    """
    if not check:
        raise BadRequest(
            "Give --check; the memory is saved by lxpy snapshot --stateful and lxpy stop --stateful"
        )
    client, name = session.server(instance)
    found = client.get(f"{path_of(name)}/checkpoint")
    if found["possible"]:
        click.echo(f"Nothing is known that keeps the memory of {name} from being saved.")
        return 0
    rows = [
        [str(each["pid"] or ""), each["command"], each["reason"], each["remedy"]]
        for each in found["blockers"]
    ]
    click.echo(render.table(["PID", "PROCESS", "REASON", "REMEDY"], rows))
    return 1
