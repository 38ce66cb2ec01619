"""`lxpy query`: a request as it is."""

from __future__ import annotations

import json

import click

from lxpy.cli.declare import argument, command, flag, option
from lxpy.cli.session import Session
from lxpy.client.client import Answer, succeeded
from lxpy.errors import BadRequest, Refused


@command(None, "query", short_help="Send a raw query to the server")
@argument("path", "[<remote>:]<API path>")
@option("-d", "--data", default="", metavar="JSON", help="Input data")
@flag("--raw", help="Print the raw response")
@option("-X", "--request", "method", default="GET", metavar="METHOD", help="Action (default GET)")
@flag("--wait", help="Wait for the operation to complete")
def query(session: Session, path: str, data: str, raw: bool, method: str, wait: bool) -> None:
    """Send a raw query to the server and print the metadata of its answer.

    \b
    lxpy query /1.0
    lxpy query -X DELETE --wait /1.0/instances/c1
    """
    if path.startswith("/"):
        client, target = session.server("")[0], path
    else:
        client, target = session.server(path)
    if not target.startswith("/"):
        raise BadRequest("Query path must start with /")
    client.watcher = None
    headers = {"Content-Type": "application/json"} if data else {}
    # The path says which project is meant, unless --project does.
    target = client.target(target) if session.project else target
    response = client.request(method.upper(), target, data.encode() or None, headers)
    text = response.read()
    if "json" not in response.headers.get("content-type", ""):
        if response.status >= 400:
            raise Refused(text.decode(errors="replace").strip(), response.status)
        click.echo(text, nl=False)
        return
    if raw:
        click.echo(json.dumps(json.loads(text), indent="\t", ensure_ascii=False))
        return
    answer = Answer(response, text)
    metadata = answer.metadata
    if wait and answer.operation is not None:
        metadata = succeeded(client.wait(answer.operation))
    if metadata not in (None, {}):
        click.echo(json.dumps(metadata, indent="\t", ensure_ascii=False))
