"""`lxpy storage volume`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from lxpy.cli.declare import argument, command, flag, format_option, group, names, option
from lxpy.cli.render import show as render
from lxpy.cli.session import Session
from lxpy.cli.target import pairs
from lxpy.cli.yamltext import dump
from lxpy.client.client import Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest

volume = group(None, "volume", "Manage storage volumes.")
_TYPES = ("custom", "image", "container", "virtual-machine")
_LETTERS: dict[str, tuple[str, Callable[[Json], str]]] = {
    "e": ("PROJECT", lambda each: str(each.get("project") or "default")),
    "t": ("TYPE", lambda each: str(each["type"])),
    "n": ("NAME", lambda each: str(each["name"])),
    "d": ("DESCRIPTION", lambda each: str(each["description"])),
    "c": ("CONTENT-TYPE", lambda each: str(each["content_type"])),
    "u": ("USED BY", lambda each: str(len(each["used_by"] or []))),
    "L": ("LOCATION", lambda each: str(each.get("location") or "")),
}


def _path(pool: str, text: str) -> str:
    """Return the path of "volume", "type/volume" or either with "/snapshot"."""
    kind, slash, name = text.partition("/")
    if not slash or kind not in _TYPES:
        kind, name = "custom", text
    name, _, snapshot = name.partition("/")
    path = f"/1.0/storage-pools/{quote(pool)}/volumes/{kind}/{quote(name)}"
    return f"{path}/snapshots/{quote(snapshot)}" if snapshot else path


@command(volume, "list", short_help="List storage volumes")
@argument("pool", "[<remote>:]<pool>", shell_complete=names("storage-pools"))
@argument("filters", "[<filter>...]", nargs=-1)
@flag("--all-projects", help="All projects")
@option("-c", "--columns", default="", help='Columns (default "tndcu")')
@format_option()
def list_volumes(
    session: Session,
    pool: str,
    filters: tuple[str, ...],
    all_projects: bool,
    columns: str,
    form: str,
) -> None:
    """List storage volumes; a filter is a part of the name, or KEY=VALUE of the configuration."""
    client, name = session.server(pool)
    letters = (columns or ("etndcu" if all_projects else "tndcu")).replace(",", "")
    if wrong := [letter for letter in letters if letter not in _LETTERS]:
        raise BadRequest(f"Unknown column shorthand char '{wrong[0]}' in '{columns}'")
    every = {"all-projects": "true"} if all_projects else {}
    found = client.get(f"/1.0/storage-pools/{quote(name)}/volumes", recursion="1", **every)
    found = [each for each in found if all(_selects(word, each) for word in filters)]
    found.sort(key=lambda each: (each.get("project") or "", each["type"], each["name"]))
    rows = [[_LETTERS[letter][1](each) for letter in letters] for each in found]
    render(form, [_LETTERS[letter][0] for letter in letters], rows, found)


def _selects(word: str, each: Json) -> bool:
    key, equals, value = word.partition("=")
    if not equals:
        return word in str(each["name"])
    return value == str((each["config"] or {}).get(key, each.get(key, "")))


@command(volume, "show", short_help="Show storage volume configurations")
@argument("pool", "[<remote>:]<pool>", shell_complete=names("storage-pools"))
@argument("name", "[<type>/]<volume>[/<snapshot>]", required=True)
def show(session: Session, pool: str, name: str) -> None:
    """Show storage volume configurations: "data" is a custom volume, "container/c1" another."""
    client, pool = session.server(pool)
    sys.stdout.write(dump(client.get(_path(pool, name))))


@command(volume, "create", help="Create new custom storage volumes.")
@argument("pool", "[<remote>:]<pool>", shell_complete=names("storage-pools"))
@argument("name", "<volume>")
@argument("words", "[key=value...]", nargs=-1)
@click.option(
    "--type",
    "content",
    type=click.Choice(("filesystem", "block")),
    default="filesystem",
    help="Content type",
)
def create(session: Session, pool: str, name: str, words: tuple[str, ...], content: str) -> None:
    client, pool = session.server(pool)
    body = {
        "name": name,
        "type": "custom",
        "content_type": content,
        "config": pairs(words),
        "description": "",
    }
    client.change("POST", f"/1.0/storage-pools/{quote(pool)}/volumes/custom", body)
    session.say(f"Storage volume {name} created")


@command(volume, "delete", help="Delete storage volumes.")
@argument("pool", "[<remote>:]<pool>", shell_complete=names("storage-pools"))
@argument("name", "<volume>[/<snapshot>]", required=True)
def delete(session: Session, pool: str, name: str) -> None:
    client, pool = session.server(pool)
    client.change("DELETE", _path(pool, name))
    session.say(f"Storage volume {name} deleted")
