"""`lxpy operation`."""

from __future__ import annotations

import sys

from lxpy.cli import texts
from lxpy.cli.declare import argument, command, flag, format_option, group, names
from lxpy.cli.render import show as render
from lxpy.cli.session import Session
from lxpy.cli.yamltext import dump
from lxpy.client.transport import quote

operation = group(None, "operation", "List, show and delete background operations.")


@command(operation, "list", help="List background operations.")
@argument("remote", "[<remote>:]")
@flag("--all-projects", help="List operations from all projects")
@format_option()
def list_operations(session: Session, remote: str | None, all_projects: bool, form: str) -> None:
    client, _ = session.server(remote or "")
    every = {"all-projects": "true"} if all_projects else {}
    by_status = client.get("/1.0/operations", recursion="1", **every)
    found = [each for group_ in by_status.values() for each in group_]
    found.sort(key=lambda each: str(each["created_at"]))
    rows = [
        [
            each["id"],
            str(each["class"]).upper(),
            each["description"],
            str(each["status"]).upper(),
            texts.yes(each["may_cancel"]),
            texts.date(each["created_at"]),
        ]
        for each in found
    ]
    render(form, ("ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"), rows, found)


@command(operation, "show", help="Show details on a background operation.")
@argument("identity", "[<remote>:]<operation>", shell_complete=names("operations"))
def show(session: Session, identity: str) -> None:
    client, identity = session.server(identity)
    sys.stdout.write(dump(client.get(f"/1.0/operations/{quote(identity)}")))


@command(operation, "delete", help="Delete a background operation (will attempt to cancel).")
@argument("identity", "[<remote>:]<operation>", shell_complete=names("operations"))
def delete(session: Session, identity: str) -> None:
    client, identity = session.server(identity)
    client.change("DELETE", f"/1.0/operations/{quote(identity)}")
    session.say(f"Operation {identity} deleted")
