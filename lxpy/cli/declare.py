"""How commands are declared: click's, with the global flags and habits of `lxc`.

A declaration made here is all that help, completion and manual page know of a command.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from lxpy.cli.render import FORMATS
from lxpy.cli.session import Session

#: A command's function: its first argument is the session, it may return an exit status. Any: the
#: others are the command's own.
Function = Callable[..., Any]

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _global(attribute: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return a callback that sets an attribute of the session, wherever the flag stands."""

    def apply(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if given and value is not None:
            setattr(context.ensure_object(Session), attribute, value)

    return apply


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from lxpy import __version__

        click.echo(__version__)
        context.exit()


def global_options() -> list[click.Parameter]:
    """Return the flags that every command has."""
    flag = {"is_flag": True, "expose_value": False}
    return [
        click.Option(
            ["--project"],
            metavar="NAME",
            expose_value=False,
            callback=_global("project"),
            help="Override the source project",
        ),
        click.Option(
            ["-q", "--quiet"], callback=_global("quiet"), help="Don't show progress", **flag
        ),
        click.Option(
            ["--debug"], callback=_global("trace"), help="Show requests and answers", **flag
        ),
        click.Option(["-v", "--verbose"], help="Accepted for compatibility", hidden=True, **flag),
        click.Option(
            ["--force-local"],
            callback=_global("force_local"),
            help="Use the local unix socket, whatever the default remote is",
            **flag,
        ),
        click.Option(
            ["--version"], is_eager=True, callback=_version, help="Print the version", **flag
        ),
    ]


class _Shared(click.Command):
    """What commands and groups have in common: global flags, and Go's way to write booleans."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        attributes.setdefault("context_settings", CONTEXT)
        super().__init__(*arguments, **attributes)
        self.own = list(self.params)
        self.params += global_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._translate(args))

    def _translate(self, args: list[str]) -> list[str]:
        """Rewrite `--flag=true`, drop `--flag=false`, give `--console` its default value."""
        flags: set[str] = set()
        defaults: dict[str, str] = {}
        for parameter in self.params:
            if isinstance(parameter, click.Option) and parameter.is_flag:
                flags.update(parameter.opts)
            elif isinstance(parameter, OptionalValue):
                defaults.update(dict.fromkeys(parameter.opts, parameter.when_bare))
        found: list[str] = []
        for number, word in enumerate(args):
            if word == "--":
                return found + args[number:]
            name, equals, value = word.partition("=")
            if name in defaults and not equals:
                found.append(f"{name}={defaults[name]}")
            elif name in flags and equals and value.lower() in ("true", "1", "t"):
                found.append(name)
            elif not (name in flags and equals and value.lower() in ("false", "0", "f")):
                found.append(word)
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shared = set(map(id, self.params)) - set(map(id, self.own))
        for title, mine in (("Flags", True), ("Global flags", False)):
            records = [
                record
                for parameter in self.get_params(ctx)
                if isinstance(parameter, click.Option)
                and (id(parameter) not in shared and parameter.name != "help") is mine
                and (record := parameter.get_help_record(ctx)) is not None
            ]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        arguments = [
            piece
            for parameter in self.own
            if isinstance(parameter, click.Argument)
            for piece in parameter.get_usage_pieces(ctx)
        ]
        last = arguments.pop() if arguments and arguments[-1].startswith("[--]") else ""
        return [*arguments, "[flags]", *filter(None, (last,))]


class OptionalValue(click.Option):
    """A flag that may have a value, `--console` or `--console=vga`."""

    def __init__(self, *arguments: Any, when_bare: str, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.when_bare = when_bare


class Argument(click.Argument):
    """An argument with what the manual page says of it."""

    def make_metavar(self, ctx: click.Context) -> str:
        return str(self.metavar)


class Command(_Shared):
    """A command."""


class Group(_Shared, click.Group):
    """A noun with its verbs. `lazy` are commands by name, as "module:attribute"."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        self.lazy: dict[str, str] = attributes.pop("lazy", {})
        self.other_names: dict[str, str] = {}
        super().__init__(*arguments, **attributes)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = {**_OTHER_NAMES, **self.other_names}
        name = known.get(cmd_name, cmd_name) if cmd_name not in self.lazy else cmd_name
        if place := self.lazy.get(name):
            module, _, attribute = place.partition(":")
            found: click.Command = getattr(importlib.import_module(module), attribute)
            return found
        found_here = super().get_command(ctx, cmd_name) or super().get_command(ctx, name)
        if found_here is None and cmd_name == "mv":
            return super().get_command(ctx, "rename")
        return found_here

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise UnknownCommand(args[0], ctx)
        return super().resolve_command(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[command]"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)


#: Short and other names that `lxc` has for its verbs, too.
_OTHER_NAMES = {
    "ls": "list",
    "rm": "delete",
    "cp": "copy",
    "mv": "move",
    "apply": "assign",
    "unpause": "resume",
}


class UnknownCommand(click.UsageError):
    """A verb that does not exist."""

    def __init__(self, word: str, context: click.Context) -> None:
        super().__init__(f'unknown command "{word}" for "{context.command_path}"', context)


def command(parent: click.Group | None, name: str, **attributes: Any) -> Callable[[Function], Any]:
    """Declare a command of a group; its function gets the session first."""

    if "help" in attributes:
        attributes.setdefault("short_help", _first_line(attributes["help"]))

    def declare(function: Function) -> click.Command:
        made = click.command(name, cls=Command, **attributes)(click.pass_obj(function))
        if parent is not None:
            parent.add_command(made)
        return made

    return declare


def group(parent: click.Group | None, name: str, help: str, **attributes: Any) -> Group:
    """Declare a noun."""
    attributes.setdefault("short_help", _first_line(help))
    made = Group(name, help=help, no_args_is_help=True, **attributes)
    if parent is not None:
        parent.add_command(made)
    return made


def _first_line(text: str) -> str:
    """Return what a list of commands says of one: the beginning of its help."""
    return text.strip().partition("\n")[0].partition(";")[0].removesuffix(".")


def argument(name: str, metavar: str, **attributes: Any) -> Callable[[Function], Function]:
    """Declare an argument; `metavar` is how `lxc` writes it, such as "[<remote>:]<instance>"."""
    attributes.setdefault("required", not metavar.endswith("]"))
    return click.argument(name, cls=Argument, metavar=metavar, **attributes)


def option(*spellings: str, **attributes: Any) -> Callable[[Function], Function]:
    """Declare a flag with a value."""
    if "type" not in attributes:
        attributes.setdefault("metavar", "VALUE")
    return click.option(*spellings, **attributes)


def flag(*spellings: str, **attributes: Any) -> Callable[[Function], Function]:
    """Declare a flag without a value."""
    return click.option(*spellings, is_flag=True, **attributes)


def target_option(name: str = "--target") -> Callable[[Function], Function]:
    """Declare --target, which names a cluster's member: there is none, so that it is refused."""

    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value:
            raise click.UsageError(f"To use {name}, the destination remote must be a cluster")

    return click.option(
        name, expose_value=False, hidden=True, callback=refuse, help="Cluster member name"
    )


def format_option() -> Callable[[Function], Function]:
    """Declare -f, the format of a list."""
    return click.option(
        "-f",
        "--format",
        "form",
        default="table",
        metavar="|".join(FORMATS),
        callback=_check_format,
        shell_complete=lambda _context, _parameter, start: [
            CompletionItem(form) for form in FORMATS if form.startswith(start)
        ],
        help='Format (default "table")',
    )


def _check_format(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value not in FORMATS:
        raise click.UsageError(f'Invalid format "{value}"')
    return value


def names(kind: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return a completion by what exists: "instances", "images/aliases", "profiles" ..."""

    def complete(
        context: click.Context, parameter: click.Parameter, start: str
    ) -> list[CompletionItem]:
        from lxpy.cli.completion import existing

        return [CompletionItem(name) for name in existing(kind, start)]

    return complete
