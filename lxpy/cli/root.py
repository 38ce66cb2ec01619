"""`lxpy` itself: the table of its verbs, and how wrong calls are reported."""

from __future__ import annotations

import sys

import click

from lxpy.cli.declare import Group
from lxpy.cli.session import Session

#: Where each verb is declared. Its module is imported when it is called, or for `lxpy --help`.
VERBS = {
    "alias": "lxpy.cli.alias:alias",
    "checkpoint": "lxpy.cli.checkpoint:checkpoint",
    "cluster": "lxpy.cli.cluster:cluster",
    "completion": "lxpy.cli.completion:completion",
    "config": "lxpy.cli.config:config",
    "console": "lxpy.cli.console:console",
    "copy": "lxpy.cli.copy:copy",
    "delete": "lxpy.cli.delete:delete",
    "doctor": "lxpy.cli.doctor:doctor",
    "exec": "lxpy.cli.exec:run",
    "export": "lxpy.cli.export:export",
    "file": "lxpy.cli.file:file",
    "fork": "lxpy.cli.copy:fork",
    "help": "lxpy.cli.help:help_command",
    "image": "lxpy.cli.image:image",
    "import": "lxpy.cli.import_:import_backup",
    "info": "lxpy.cli.info:info",
    "init": "lxpy.cli.create:init",
    "launch": "lxpy.cli.create:launch",
    "list": "lxpy.cli.list:list_command",
    "manpage": "lxpy.cli.manpage:manpage",
    "monitor": "lxpy.cli.monitor:monitor",
    "move": "lxpy.cli.copy:move",
    "network": "lxpy.cli.network:network",
    "operation": "lxpy.cli.operation:operation",
    "pause": "lxpy.cli.power:pause",
    "profile": "lxpy.cli.profile:profile",
    "project": "lxpy.cli.project:project",
    "publish": "lxpy.cli.publish:publish",
    "query": "lxpy.cli.query:query",
    "recover": "lxpy.cli.recover:recover",
    "remote": "lxpy.cli.remote:remote",
    "rename": "lxpy.cli.copy:rename",
    "restart": "lxpy.cli.power:restart",
    "restore": "lxpy.cli.snapshot:restore",
    "resume": "lxpy.cli.power:resume",
    "shell": "lxpy.cli.exec:shell",
    "shutdown": "lxpy.cli.server:shutdown",
    "snapshot": "lxpy.cli.snapshot:snapshot",
    "start": "lxpy.cli.power:start",
    "stop": "lxpy.cli.power:stop",
    "storage": "lxpy.cli.storage:storage",
    "version": "lxpy.cli.server:version",
    "warning": "lxpy.cli.warning:warning",
}


def _alone(context: click.Context) -> None:
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


root = Group(
    "lxpy",
    lazy=VERBS,
    no_args_is_help=False,
    invoke_without_command=True,
    callback=click.pass_context(_alone),
    params=[
        click.Option([name], is_flag=True, hidden=True, expose_value=False)
        for name in ("--all", "--sub-commands")  # of lxc; all commands are always shown
    ],
    help="""System containers: verbs, flags and exit codes as LXD's lxc has them.

    To start your first container, try: lxpy launch images:debian/13
    """,
)


def run(words: list[str]) -> int:
    """Run a command; return the exit status. Wrong calls are reported here, with status 1."""
    try:
        status = root.main(words, prog_name="lxpy", standalone_mode=False, obj=Session())
    except click.UsageError as error:
        _complain(error)
        return 1
    except click.ClickException as error:
        print(f"Error: {error.format_message()}", file=sys.stderr)
        return 1
    except click.Abort:
        print(file=sys.stderr)
        return 130
    return status if isinstance(status, int) else 0


def _complain(error: click.UsageError) -> None:
    """Report a wrong call in `lxc`'s words."""
    context = error.ctx
    text = error.format_message()
    if isinstance(error, click.NoSuchOption):
        text = _unknown_flag(error)
    elif isinstance(error, click.exceptions.NoArgsIsHelpError) and context is not None:
        click.echo(context.get_help())
        return
    elif isinstance(error, click.MissingParameter) or "unexpected extra argument" in text:
        text = "Invalid number of arguments"
    if context is not None and text == "Invalid number of arguments":
        print(context.get_usage(), file=sys.stderr)
        print(f"Try `{context.command_path} --help` for help\n", file=sys.stderr)
    print(f"Error: {text}", file=sys.stderr)


def _unknown_flag(error: click.NoSuchOption) -> str:
    name = error.option_name
    if name.startswith("--"):
        text = f"unknown flag: {name}"
    else:
        text = f"unknown shorthand flag: '{name[1:2]}' in {name}"
    if error.possibilities:
        text += f" (did you mean {', '.join(sorted(error.possibilities))}?)"
    return text
