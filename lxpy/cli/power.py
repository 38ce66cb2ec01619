"""`lxpy start`, `stop`, `restart`, `pause`, `resume`: for one instance, several, or all."""

from __future__ import annotations

from collections.abc import Callable

import click

from lxpy.cli import changing
from lxpy.cli.declare import Function, OptionalValue, argument, command, flag, names
from lxpy.cli.session import Session


def _instances() -> Callable[[Function], Function]:
    return argument(
        "instances",
        "[<remote>:]<instance> [[<remote>:]<instance>...]",
        nargs=-1,
        required=False,
        shell_complete=names("instances"),
    )


def _console() -> Callable[[Function], Function]:
    return click.option(
        "--console",
        cls=OptionalValue,
        when_bare="console",
        metavar='[="console"]',
        help="Immediately attach to the console",
    )


_every = flag("--all", "every", help="Run against all instances")
_force = flag("-f", "--force", help="Force the instance to shutdown")
_timeout = click.option(
    "--timeout",
    type=int,
    default=-1,
    metavar="SECONDS",
    help="Time to wait for the instance before killing it (default -1)",
)


@command(None, "start", short_help="Start instances")
@_instances()
@_every
@_console()
@flag("--stateless", help="Ignore the instance state")
def start(
    session: Session, instances: tuple[str, ...], every: bool, console: str | None, stateless: bool
) -> int:
    """Start instances, and resume those that are paused."""
    return changing.start(
        session, _some(instances, every), every=every, console=console, stateless=stateless
    )


@command(None, "stop", short_help="Stop instances")
@_instances()
@_every
@_console()
@_force
@flag("--stateful", help="Store the instance state")
@_timeout
def stop(
    session: Session,
    instances: tuple[str, ...],
    every: bool,
    console: str | None,
    force: bool,
    stateful: bool,
    timeout: int,
) -> int:
    """Stop instances: ask them to shut down, or kill them with --force."""
    return changing.stop(
        session,
        _some(instances, every),
        every=every,
        console=console,
        force=force,
        stateful=stateful,
        timeout=timeout,
    )


@command(None, "restart", short_help="Restart instances")
@_instances()
@_every
@_console()
@_force
@_timeout
def restart(
    session: Session,
    instances: tuple[str, ...],
    every: bool,
    console: str | None,
    force: bool,
    timeout: int,
) -> int:
    """Restart instances."""
    return changing.restart(
        session,
        _some(instances, every),
        every=every,
        console=console,
        force=force,
        timeout=timeout,
    )


@command(None, "pause", short_help="Pause instances")
@_instances()
@_every
def pause(session: Session, instances: tuple[str, ...], every: bool) -> int:
    """Pause instances: their processes stay in memory but get no processor time.

    The opposite of "lxpy pause" is "lxpy resume" or "lxpy start".
    """
    return changing.pause(session, _some(instances, every), every=every)


@command(None, "resume", short_help="Resume paused instances")
@_instances()
@_every
def resume(session: Session, instances: tuple[str, ...], every: bool) -> int:
    """Resume paused instances."""
    return changing.resume(session, _some(instances, every), every=every)


def _some(instances: tuple[str, ...], every: bool) -> tuple[str, ...]:
    """Return the instances; report a call that names none."""
    if not every and not instances:
        raise click.MissingParameter(ctx=click.get_current_context(), param_type="argument")
    return instances
