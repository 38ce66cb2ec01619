"""`lxpy monitor`: events as they happen."""

from __future__ import annotations

import json
import select
import sys

import click

from lxpy.cli.declare import argument, command, flag, option
from lxpy.cli.render import as_json
from lxpy.cli.session import Session
from lxpy.client.client import Json
from lxpy.errors import BadRequest, Refused

_FORMATS = ("json", "pretty", "yaml")
_LEVELS = ("debug", "info", "warning", "error", "fatal", "panic")


@command(None, "monitor", short_help="Monitor a local or remote server")
@argument("remote", "[<remote>:]")
@flag("--all-projects", help="Show events from all projects")
@click.option("-f", "--format", "form", type=click.Choice(_FORMATS), default="yaml", help="Format")
@click.option(
    "--loglevel", type=click.Choice(_LEVELS), help="Minimum level of log messages (pretty only)"
)
@flag("--pretty", help="Pretty rendering (short for --format=pretty)")
@option("--type", "types", multiple=True, metavar="TYPE", help="Event type to listen for")
def monitor(
    session: Session,
    remote: str | None,
    all_projects: bool,
    form: str,
    loglevel: str | None,
    pretty: bool,
    types: tuple[str, ...],
) -> None:
    """Monitor a server: operations, lifecycle events and log messages, until Ctrl-C.

    \b
    lxpy monitor --type=lifecycle
    lxpy monitor --pretty --type=logging --loglevel=info
    """
    form = "pretty" if pretty else form
    if loglevel and form != "pretty":
        raise BadRequest("--loglevel needs --format=pretty")
    client, rest = session.server(remote or "")
    if rest:
        raise BadRequest(f'"{remote}" is no remote; did you mean "{remote}:"?')
    stream = client.events(",".join(types), all_projects=all_projects)
    least = _LEVELS.index(loglevel) if loglevel else 0
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    messages = list(stream.messages())
    try:
        while True:
            for _, text in messages:
                _print(json.loads(text), form, least)
            if stream.closed:
                raise Refused("The server closed the connection")
            poll.poll()
            messages = list(stream.receive())
    finally:
        stream.close()


def _print(event: Json, form: str, least: int) -> None:
    if form == "json":
        sys.stdout.write(as_json(event))
    elif form == "pretty":
        if (line := _line(event, least)) is not None:
            print(line)
    else:
        from lxpy.cli.yamltext import dump  # yaml takes 12 ms

        sys.stdout.write(f"{dump(event)}\n\n")
    sys.stdout.flush()


def _line(event: Json, least: int) -> str | None:
    """Return an event as one line; None for a log message below the wanted level."""
    metadata = event["metadata"]
    stamp = str(event["timestamp"])[:19].replace("T", " ")
    if event["type"] == "logging":
        level = str(metadata["level"])
        if level in _LEVELS and _LEVELS.index(level) < least:
            return None
        context = metadata.get("context") or {}
        return _joined(level.upper(), stamp, str(metadata["message"]), context)
    if event["type"] == "lifecycle":
        context = {"source": metadata["source"], **(metadata.get("context") or {})}
        return _joined("INFO", stamp, f"Action: {metadata['action']}", context)
    keys = ("class", "description", "status", "err")
    context = {key: metadata[key] for key in keys if metadata.get(key)}
    return _joined("INFO", stamp, f"ID: {metadata['id']}", context)


def _joined(level: str, stamp: str, text: str, context: Json) -> str:
    pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in sorted(context.items()))
    return f"{level:<7} [{stamp}] {text} {pairs}".rstrip()
