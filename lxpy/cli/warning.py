"""`lxpy warning`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lxpy.cli import texts
from lxpy.cli.declare import argument, command, flag, format_option, group, names, option
from lxpy.cli.render import show as render
from lxpy.cli.session import Session
from lxpy.cli.yamltext import dump
from lxpy.client.client import Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest

warning = group(None, "warning", "Manage warnings.")

_DEFAULT = "utSscpl"
_COLUMNS: dict[str, tuple[str, Callable[[Json], str]]] = {
    "c": ("COUNT", lambda each: str(each["count"])),
    "f": ("FIRST SEEN", lambda each: texts.date(each["first_seen_at"])),
    "l": ("LAST SEEN", lambda each: texts.date(each["last_seen_at"])),
    "L": ("LOCATION", lambda each: str(each["location"])),
    "p": ("PROJECT", lambda each: str(each["project"])),
    "s": ("SEVERITY", lambda each: str(each["severity"]).upper()),
    "S": ("STATUS", lambda each: str(each["status"]).upper()),
    "t": ("TYPE", lambda each: str(each["type"])),
    "u": ("UUID", lambda each: str(each["uuid"])),
}


def _path(identity: str) -> str:
    return f"/1.0/warnings/{quote(identity)}"


@command(warning, "list", help="List warnings.")
@argument("remote", "[<remote>:]")
@flag("-a", "--all", "every", help="List all warnings, those acknowledged and resolved, too")
@option("-c", "--columns", default=_DEFAULT, help=f'Columns, of cfLlpsStu (default "{_DEFAULT}")')
@format_option()
def list_warnings(
    session: Session, remote: str | None, every: bool, columns: str, form: str
) -> None:
    client, _ = session.server(remote or "")
    letters = columns.replace(",", "")
    for letter in letters:
        if letter not in _COLUMNS:
            raise BadRequest(f"Unknown column shorthand char '{letter}' in '{columns}'")
    found = client.get("/1.0/warnings", recursion="1")
    shown = [each for each in found if every or each["status"] == "new"]
    rows = [[_COLUMNS[letter][1](each) for letter in letters] for each in shown]
    render(form, [_COLUMNS[letter][0] for letter in letters], rows, shown)


@command(warning, "show", help="Show warning.")
@argument("identity", "[<remote>:]<warning-uuid>", shell_complete=names("warnings"))
def show(session: Session, identity: str) -> None:
    client, identity = session.server(identity)
    sys.stdout.write(dump(client.get(_path(identity))))


@command(warning, "acknowledge", help="Acknowledge warning.")
@argument("identity", "[<remote>:]<warning-uuid>", shell_complete=names("warnings"))
def acknowledge(session: Session, identity: str) -> None:
    client, identity = session.server(identity)
    client.change("PUT", _path(identity), {"status": "acknowledged"})


@command(warning, "delete", help="Delete a warning, or all of them.")
@argument("identity", "[<remote>:][<warning-uuid>]", shell_complete=names("warnings"))
@flag("-a", "--all", "every", help="Delete all warnings")
def delete(session: Session, identity: str | None, every: bool) -> None:
    client, identity = session.server(identity or "")
    if not identity and not every:
        raise BadRequest("Specify a warning UUID or use --all")
    found = [identity]
    if every:
        found = [each["uuid"] for each in client.get("/1.0/warnings", recursion="1")]
    for each in found:
        client.change("DELETE", _path(each))
