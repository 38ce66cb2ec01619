"""`lxpy manpage`: the manual page, from the declarations of the commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from lxpy import __version__
from lxpy.cli.declare import Command, Group, command, global_options, option
from lxpy.cli.session import Session
from lxpy.client.remotes import DEFAULT_DIRECTORY
from lxpy.errors import BadRequest

_ENVIRONMENT = {
    "LXPY_DIR": f"Directory of the daemon to talk to (default {DEFAULT_DIRECTORY}).",
    "LXPY_SOCKET": "Its socket, if it is not unix.socket in that directory.",
    "LXD_DIR, LXD_SOCKET": "The same, where LXPY_DIR and LXPY_SOCKET are not set.",
    "LXPY_CONF": "Directory of config.yml (default ~/.config/lxpy).",
    "LXPY_PROJECT": "Project to use when --project is not given.",
    "VISUAL, EDITOR": "Editor of the edit commands.",
}


@command(None, "manpage", short_help="Print the manual page")
@option("-f", "--format", "form", default="man", metavar="man", help="Format, man only")
def manpage(session: Session, form: str) -> None:
    """Print the manual page, lxpy(1), in roff."""
    if form != "man":
        raise BadRequest(f'Format "{form}" is not supported: there is man')
    click.echo("\n".join(page()))


def page() -> Iterator[str]:
    """Yield the lines of the manual page."""
    from lxpy.cli.root import root  # root names this module

    yield f'.TH LXPY 1 "" "lxpy {__version__}" "User Commands"'
    yield ".SH NAME\nlxpy \\- manage system containers"
    yield ".SH SYNOPSIS\n.B lxpy\n.RI [ flags ]\n.I command\n.RI [ argument ...]"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(root.help or "")
    yield ".SH COMMANDS"
    yield from _commands(root, click.Context(root, info_name="lxpy"))
    yield ".SH GLOBAL FLAGS"
    yield from _options(global_options(), click.Context(root, info_name="lxpy"))
    yield ".SH ENVIRONMENT"
    for name, text in _ENVIRONMENT.items():
        yield f".TP\n.B {_escape(name)}\n{_escape(text)}"
    yield ".SH EXIT STATUS"
    yield "0, or 1 after an error; of exec and shell, the command's exit status: 127 when it was"
    yield "not found, 126 when it was not executable, 128 and the signal's number when killed."


def _commands(parent: Group, context: click.Context) -> Iterator[str]:
    for name in parent.list_commands(context):
        found = parent.get_command(context, name)
        if found is None or found.hidden:
            continue
        inner = click.Context(found, info_name=name, parent=context)
        if isinstance(found, Group):
            yield from _commands(found, inner)
            continue
        usage = " ".join(found.collect_usage_pieces(inner))
        yield f".SS {_escape(inner.command_path)} {_escape(usage)}"
        yield from _paragraphs(found.help or "")
        own = found.own if isinstance(found, Command) else found.params
        yield from _options(own, inner)


def _options(parameters: list[click.Parameter], context: click.Context) -> Iterator[str]:
    for parameter in parameters:
        if isinstance(parameter, click.Option):
            record = parameter.get_help_record(context)
            if record is not None:
                yield f".TP\n.B {_escape(record[0])}\n{_escape(record[1])}"


def _paragraphs(text: str) -> Iterator[str]:
    """Yield a help text; a paragraph marked with \\b keeps its lines."""
    for number, block in enumerate(inspect.cleandoc(text).split("\n\n")):
        if number:
            yield ".PP"
        if block.startswith("\b"):
            yield ".nf"
            yield from (_escape(line) for line in block.splitlines()[1:])
            yield ".fi"
        else:
            yield from (_escape(line.strip()) for line in block.splitlines())


def _escape(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
