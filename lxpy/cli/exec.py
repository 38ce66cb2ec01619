"""Declares `lxpy exec` and `lxpy shell`; the work is in execute.py, which starts without click."""

from __future__ import annotations

import click

from lxpy.cli.declare import argument, command, flag, names, option
from lxpy.cli.execute import execute
from lxpy.cli.session import Session

_MODES = ("auto", "interactive", "non-interactive")


@command(None, "exec", short_help="Execute commands in instances")
@argument("instance", "[<remote>:]<instance>", shell_complete=names("instances"))
@argument("command", "[--] <command line>", nargs=-1, required=True)
@option("--cwd", default="", metavar="DIR", help="Directory to run the command in (default /root)")
@flag("-n", "--disable-stdin", help="Disable stdin (reads from /dev/null)")
@option("--env", multiple=True, metavar="KEY=VALUE", help="Environment variable to set")
@flag("-t", "--force-interactive", help="Force pseudo-terminal allocation")
@flag("-T", "--force-noninteractive", help="Disable pseudo-terminal allocation")
@option("--group", type=int, default=0, metavar="GID", help="Group to run as (default 0)")
@option("--mode", type=click.Choice(_MODES), default="auto", help="Override the terminal mode")
@option("--user", type=int, default=0, metavar="UID", help="User to run as (default 0)")
def run(session: Session, instance: str, command: tuple[str, ...], **options: object) -> int:
    """Execute commands in instances.

    The command is executed directly using exec, so there is no shell and shell patterns
    (variables, file redirects, ...) won't be understood. If you need a shell environment you need
    to execute the shell executable, passing the shell commands as arguments, for example:

        lxpy exec <instance> -- sh -c "cd /tmp && pwd"

    The mode is interactive if both stdin and stdout are terminals.
    """
    return execute(session, instance, command, **options)  # type: ignore[arg-type]


@command(None, "shell", short_help="Open a login shell in an instance")
@argument("instance", "[<remote>:]<instance>", shell_complete=names("instances"))
def shell(session: Session, instance: str) -> int:
    """Open a login shell in an instance: `lxpy exec <instance> -- su -l`."""
    return execute(session, instance, ("su", "-l"))
