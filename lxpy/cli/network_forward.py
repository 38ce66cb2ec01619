"""`lxpy network forward`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lxpy.cli.declare import argument, command, flag, format_option, group, names, target_option
from lxpy.cli.editor import edit
from lxpy.cli.render import ordered, show
from lxpy.cli.session import Session
from lxpy.cli.target import pairs, settings
from lxpy.cli.yamltext import dump
from lxpy.client.client import Client, Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, NotFound

forward = group(None, "forward", "Manage network forwards.")
_WRITABLE = ("description", "config", "ports")


def _locate(session: Session, network: str, address: str = "") -> tuple[Client, str]:
    """Return client and path of a network's forwards, or of one. Raises BadRequest."""
    client, name = session.server(network)
    if not name:
        raise BadRequest("Missing network name")
    path = f"/1.0/networks/{quote(name)}/forwards"
    return client, f"{path}/{quote(address)}" if address else path


def _put(client: Client, path: str, found: Json, etag: str) -> None:
    body = {key: found[key] for key in _WRITABLE if key in found}
    client.change("PUT", path, body, etag=etag)


_network = argument("network", "[<remote>:]<network>", shell_complete=names("networks"))
_address = argument("address", "<listen_address>")


@command(forward, "list", help="List available network forwards.")
@_network
@format_option()
def list_forwards(session: Session, network: str, form: str) -> None:
    client, path = _locate(session, network)
    found = client.get(path, recursion="1")
    rows = [
        [
            each["listen_address"],
            each["description"],
            (each["config"] or {}).get("target_address", ""),
            str(len(each["ports"] or [])),
        ]
        for each in found
    ]
    header = ("LISTEN ADDRESS", "DESCRIPTION", "DEFAULT TARGET ADDRESS", "PORTS")
    show(form, header, ordered(rows), found)


@command(forward, "show", help="Show network forward configurations.")
@_network
@_address
@target_option()
def show_forward(session: Session, network: str, address: str) -> None:
    client, path = _locate(session, network, address)
    sys.stdout.write(dump(client.get(path)))


@command(forward, "create", help="Create new network forwards.")
@_network
@_address
@argument("words", "[key=value...]", nargs=-1)
@target_option()
def create(session: Session, network: str, address: str, words: tuple[str, ...]) -> None:
    client, path = _locate(session, network)
    body = {"listen_address": address, "description": "", "config": pairs(words), "ports": []}
    client.change("POST", path, body)
    session.say(f"Network forward {address} created")


@command(forward, "get", help="Get values for network forward configuration keys.")
@_network
@_address
@argument("key", "<key>")
def get(session: Session, network: str, address: str, key: str) -> None:
    client, path = _locate(session, network, address)
    print((client.get(path)["config"] or {}).get(key, ""))


@command(forward, "set", help="Set network forward keys.")
@_network
@_address
@argument("words", "<key>=<value>...", nargs=-1, required=True)
@target_option()
def set_keys(session: Session, network: str, address: str, words: tuple[str, ...]) -> None:
    client, path = _locate(session, network, address)
    found, etag = client.fetch(path)
    found["config"] = {**(found["config"] or {}), **settings(words)}
    _put(client, path, found, etag)


@command(forward, "unset", help="Unset network forward configuration keys.")
@_network
@_address
@argument("key", "<key>")
def unset(session: Session, network: str, address: str, key: str) -> None:
    client, path = _locate(session, network, address)
    found, etag = client.fetch(path)
    found["config"] = {k: value for k, value in (found["config"] or {}).items() if k != key}
    _put(client, path, found, etag)


@command(forward, "edit", help="Edit network forwards as YAML, or read them on stdin.")
@_network
@_address
@target_option()
def edit_forward(session: Session, network: str, address: str) -> None:
    client, path = _locate(session, network, address)
    found, etag = client.fetch(path)
    edit(
        found,
        "This is a YAML representation of the network forward.\nAny line starting with a '# will "
        "be ignored; the listen address and location cannot be changed.",
        lambda wanted: _put(client, path, wanted, etag),
    )


@command(forward, "delete", help="Delete network forwards.")
@_network
@_address
@target_option()
def delete(session: Session, network: str, address: str) -> None:
    client, path = _locate(session, network, address)
    client.change("DELETE", path)
    session.say(f"Network forward {address} deleted")


port = group(forward, "port", "Manage network forward ports.")


@command(port, "add", help="Add ports to a forward.")
@_network
@_address
@argument("protocol", "<protocol>")
@argument("listen", "<listen_port(s)>")
@argument("to", "<target_address>")
@argument("targets", "[<target_port(s)>]")
@target_option()
def add_port(
    session: Session,
    network: str,
    address: str,
    protocol: str,
    listen: str,
    to: str,
    targets: str | None,
) -> None:
    client, path = _locate(session, network, address)
    found, etag = client.fetch(path)
    new = {"protocol": protocol, "listen_port": listen, "target_address": to}
    new |= {"target_port": targets} if targets else {}
    found["ports"] = [*(found["ports"] or []), new]
    _put(client, path, found, etag)


@command(port, "remove", help="Remove ports from a forward.")
@_network
@_address
@argument("protocol", "[<protocol>]")
@argument("listen", "[<listen_port(s)>]")
@flag("--force", help="Remove all ports that match")
@target_option()
def remove_port(
    session: Session,
    network: str,
    address: str,
    protocol: str | None,
    listen: str | None,
    force: bool,
) -> None:
    client, path = _locate(session, network, address)
    found, etag = client.fetch(path)

    def matches(each: Json) -> bool:
        return protocol in (None, each["protocol"]) and listen in (None, each["listen_port"])

    found["ports"] = without(found["ports"] or [], matches, "port(s)", force=force)
    _put(client, path, found, etag)


def without(
    items: list[Json], matches: Callable[[Json], bool], noun: str, *, force: bool
) -> list[Json]:
    """Return the items that do not match; `noun` is "port(s)".

    Raises NotFound when none matches, BadRequest when several do, and not by `force`.
    """
    kept = [each for each in items if not matches(each)]
    gone = len(items) - len(kept)
    if not gone:
        raise NotFound(f"No matching {noun} found")
    if gone > 1 and not force:
        several = noun.replace("(s)", "s")
        raise BadRequest(f"Multiple {several} match. Use --force to remove them all")
    return kept
