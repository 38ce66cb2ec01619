"""`lxpy image alias`."""

from __future__ import annotations

from collections.abc import Iterable

from lxpy.cli.declare import argument, command, format_option, group, names
from lxpy.cli.render import ordered, show
from lxpy.cli.session import Session
from lxpy.client.client import Client
from lxpy.client.transport import quote

alias = group(None, "alias", "Manage image aliases.")


def _path(name: str) -> str:
    return f"/1.0/images/aliases/{quote(name)}"


def set_aliases(client: Client, mark: str, aliases: Iterable[str]) -> None:
    """Let aliases name an image; one that names another image is moved. Raises Refused."""
    for name in aliases:
        if client.find(_path(name)) is not None:
            client.change("DELETE", _path(name))
        client.change("POST", "/1.0/images/aliases", {"name": name, "target": mark})


@command(alias, "create", help="Create aliases for existing images.")
@argument("name", "[<remote>:]<alias>")
@argument("mark", "<fingerprint>")
def create(session: Session, name: str, mark: str) -> None:
    client, name = session.server(name)
    client.change("POST", "/1.0/images/aliases", {"name": name, "target": mark})


@command(alias, "delete", help="Delete image aliases.")
@argument("name", "[<remote>:]<alias>", shell_complete=names("images/aliases"))
def delete(session: Session, name: str) -> None:
    client, name = session.server(name)
    client.change("DELETE", _path(name))


@command(alias, "rename", help="Rename aliases.")
@argument("name", "[<remote>:]<alias>", shell_complete=names("images/aliases"))
@argument("new", "<new-name>")
def rename(session: Session, name: str, new: str) -> None:
    client, name = session.server(name)
    client.change("POST", _path(name), {"name": new})


@command(alias, "list", help="List image aliases; filters are parts of alias or fingerprint.")
@argument("words", "[<remote>:] [<filters>...]", nargs=-1)
@format_option()
def list_aliases(session: Session, words: tuple[str, ...], form: str) -> None:
    remote = words[0] if words and words[0].endswith(":") else ""
    filters = words[1:] if remote else words
    client, _ = session.server(remote)
    found = client.get("/1.0/images/aliases", recursion="1")
    found = [
        each
        for each in found
        if all(word in each["name"] or word in each["target"] for word in filters)
    ]
    found.sort(key=lambda each: str(each["name"]))
    rows = [
        [
            each["name"],
            each["target"][:12],
            str(each.get("type") or "container").upper(),
            each.get("description") or "",
        ]
        for each in found
    ]
    show(form, ("ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"), ordered(rows), found)
