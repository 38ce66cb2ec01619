"""`lxpy init` and `lxpy launch`: instances from images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lxpy.cli import making
from lxpy.cli.declare import (
    Function,
    OptionalValue,
    argument,
    command,
    flag,
    names,
    option,
    target_option,
)
from lxpy.cli.session import Session


def _options(function: Function) -> Function:
    """Declare what init and launch have in common."""
    for declare in reversed(_DECLARED):
        function = declare(function)
    return function


_DECLARED: tuple[Callable[[Function], Function], ...] = (
    argument("image", "[<remote>:]<image>", required=False, shell_complete=names("images/aliases")),
    argument("name", "[<remote>:][<name>]"),
    option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="Config to apply"),
    option(
        "-d",
        "--device",
        "devices",
        multiple=True,
        metavar="DEVICE,KEY=VALUE",
        help="New key/value to apply to a specific device",
    ),
    flag("--empty", help="Create an empty instance"),
    flag("-e", "--ephemeral", help="Ephemeral instance"),
    option("-n", "--network", default="", metavar="NETWORK", help="Network name"),
    flag("--no-profiles", help="Create the instance with no profiles applied"),
    option(
        "-p",
        "--profile",
        "profiles",
        multiple=True,
        metavar="PROFILE",
        help="Profile to apply to the new instance",
    ),
    option("-s", "--storage", default="", metavar="POOL", help="Storage pool name"),
    target_option(),
    option("-t", "--type", "instance_type", default="", metavar="TYPE", help="Instance type"),
    flag("--vm", help="Create a virtual machine"),
)


@command(None, "init", short_help="Create instances from images")
@_options
def init(session: Session, image: str | None, name: str | None, **options: Any) -> int:
    """Create instances from images; more of their definition may come as YAML on stdin.

    \b
    lxpy init images:debian/13 u1
    lxpy init images:debian/13 u1 < config.yaml
    """
    return making.init(session, _named(image, options), name, options)


@command(None, "launch", short_help="Create and start instances from images")
@_options
@click.option(
    "--console",
    cls=OptionalValue,
    when_bare="console",
    metavar='[="console"]',
    help="Immediately attach to the console",
)
def launch(
    session: Session, image: str | None, name: str | None, console: str | None, **options: Any
) -> int:
    """Create and start instances from images; more of their definition may come as YAML on stdin.

    \b
    lxpy launch images:debian/13 u1
    lxpy launch images:debian/13 u1 -c limits.memory=1GiB -d root,size=10GiB
    lxpy launch images:debian/13 u1 < config.yaml
    """
    return making.launch(session, _named(image, options), name, options, console)


def _named(image: str | None, options: dict[str, Any]) -> str | None:
    """Return the image; report a call that names none."""
    if image is None and not options["empty"]:
        raise click.MissingParameter(ctx=click.get_current_context(), param_type="argument")
    return image
