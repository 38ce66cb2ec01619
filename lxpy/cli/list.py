"""Declares `lxpy list`; the work is in listing.py, which starts without click."""

from __future__ import annotations

from lxpy.cli.columns import DEFAULT, FAST, LETTERS
from lxpy.cli.declare import argument, command, flag, format_option, names, option
from lxpy.cli.listing import list_instances

_LETTERS = "\n".join(f"  {letter} - {title}" for letter, (title, _) in LETTERS.items())

list_command = command(
    None,
    "list",
    help=f"""List instances.

    A filter is the beginning of a name or a regular expression for it (web, '.*web.*01$'), or
    KEY=VALUE with a key of the configuration, which may be abbreviated (u.blah=abc,
    s.privileged=true), or one of the shorthands type, status, architecture, location, ipv4 and
    ipv6. Several filters are added one on top of the other.

    Columns of their own are "[config:|devices:]KEY[:TITLE][:MAXWIDTH]". The letters are:

    \b
{_LETTERS}
    """,
    short_help="List instances",
)(
    argument("words", "[<remote>:] [<filter>...]", nargs=-1, shell_complete=names("instances"))(
        option("-c", "--columns", default="", help=f'Columns (default "{DEFAULT}")')(
            format_option()(
                flag("--fast", help=f"Fast mode (same as --columns={FAST})")(
                    flag("--all-projects", help="Display instances from all projects")(
                        list_instances
                    )
                )
            )
        )
    )
)
