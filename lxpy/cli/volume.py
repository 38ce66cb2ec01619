"""`lxpy storage volume`: looking at volumes, making, changing and deleting them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from lxpy.cli import texts
from lxpy.cli.declare import (
    argument,
    command,
    flag,
    format_option,
    group,
    names,
    option,
    target_option,
)
from lxpy.cli.editor import edit as edit_text
from lxpy.cli.render import ordered
from lxpy.cli.render import show as render
from lxpy.cli.session import Session
from lxpy.cli.target import pairs, settings
from lxpy.cli.yamltext import dump
from lxpy.client.client import Client, Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, Refused
from lxpy.units import format_size

volume = group(
    None,
    "volume",
    """Manage storage volumes.

    Unless specified through a prefix, all volume operations affect "custom" (user created) volumes.
    """,
    lazy={
        "attach": "lxpy.cli.volume_attach:attach",
        "attach-profile": "lxpy.cli.volume_attach:attach_profile",
        "copy": "lxpy.cli.volume_copy:copy",
        "detach": "lxpy.cli.volume_attach:detach",
        "detach-profile": "lxpy.cli.volume_attach:detach_profile",
        "export": "lxpy.cli.volume_backup:export",
        "import": "lxpy.cli.volume_backup:import_volume",
        "move": "lxpy.cli.volume_copy:move",
        "restore": "lxpy.cli.volume_copy:restore",
        "snapshot": "lxpy.cli.volume_copy:take",
    },
)
POOL = "[<remote>:]<pool>"
_TYPES = ("custom", "image", "container", "virtual-machine")
_EDIT_HELP = """This is a YAML representation of a storage volume.
Any line starting with a '# will be ignored; only config and description can be changed, of a
snapshot only description and expires_at."""
_LETTERS: dict[str, tuple[str, Callable[[Json], str]]] = {
    "e": ("PROJECT", lambda each: str(each.get("project") or "default")),
    "t": ("TYPE", lambda each: _kind(each)),
    "n": ("NAME", lambda each: str(each["name"])),
    "d": ("DESCRIPTION", lambda each: str(each["description"])),
    "c": ("CONTENT-TYPE", lambda each: str(each["content_type"])),
    "u": ("USED BY", lambda each: str(len(each["used_by"] or []))),
    "L": ("LOCATION", lambda each: str(each.get("location") or "")),
    "U": ("USAGE", lambda each: str(each.get("usage") or "")),
}


def pool_argument() -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Declare the pool, the first word of most commands."""
    return argument("pool", POOL, shell_complete=names("storage-pools"))


def path_of(pool: str, text: str) -> str:
    """Return the path of "volume", "type/volume" or either with "/snapshot"."""
    kind, slash, name = text.partition("/")
    if not slash or kind not in _TYPES:
        kind, name = "custom", text
    name, _, snapshot = name.partition("/")
    path = f"/1.0/storage-pools/{quote(pool)}/volumes/{kind}/{quote(name)}"
    return f"{path}/snapshots/{quote(snapshot)}" if snapshot else path


def _kind(each: Json) -> str:
    return f"{each['type']} (snapshot)" if "/" in each["name"] else str(each["type"])


@command(volume, "list", short_help="List storage volumes")
@pool_argument()
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
    """List storage volumes; a filter is a part of the name, or KEY=VALUE of the configuration.

    \b
    Columns: c content type, d description, e project, L location, n name, t type,
             u number of users, U disk usage
    """
    client, name = session.server(pool)
    letters = (columns or ("etndcu" if all_projects else "tndcu")).replace(",", "")
    if wrong := [letter for letter in letters if letter not in _LETTERS]:
        raise BadRequest(f"Unknown column shorthand char '{wrong[0]}' in '{columns}'")
    every = {"all-projects": "true"} if all_projects else {}
    found = client.get(f"/1.0/storage-pools/{quote(name)}/volumes", recursion="1", **every)
    found = [each for each in found if all(_selects(word, each) for word in filters)]
    found.sort(key=lambda each: (each.get("project") or "", each["type"], each["name"]))
    if "U" in letters:
        for each in found:
            each["usage"] = _usage(client, name, each)
    rows = [[_LETTERS[letter][1](each) for letter in letters] for each in found]
    render(form, [_LETTERS[letter][0] for letter in letters], ordered(rows), found)


def _usage(client: Client, pool: str, each: Json) -> str:
    """Return what a volume takes, "" where its pool cannot tell."""
    if "/" in each["name"]:
        return ""
    try:
        state = client.get(f"{path_of(pool, each['type'] + '/' + each['name'])}/state")
    except Refused:
        return ""
    return format_size(state["usage"]["used"]) if state["usage"] else ""


def _selects(word: str, each: Json) -> bool:
    key, equals, value = word.partition("=")
    if not equals:
        return word in str(each["name"])
    return value == str((each["config"] or {}).get(key, each.get(key, "")))


@command(volume, "show", short_help="Show storage volume configurations")
@pool_argument()
@argument("name", "[<type>/]<volume>[/<snapshot>]", required=True)
@target_option()
def show(session: Session, pool: str, name: str) -> None:
    """Show storage volume configurations: "data" is a custom volume, "container/c1" another."""
    client, pool = session.server(pool)
    sys.stdout.write(dump(client.get(path_of(pool, name))))


@command(volume, "info", short_help="Show storage volume state information")
@pool_argument()
@argument("name", "[<type>/]<volume>", required=True)
@target_option()
def info(session: Session, pool: str, name: str) -> None:
    """Show what a storage volume is, what it takes, and its snapshots."""
    client, pool = session.server(pool)
    path = path_of(pool, name)
    found, usage = client.get(path), client.get(f"{path}/state")["usage"]
    used, total = (usage or {}).get("used"), (usage or {}).get("total")
    lines = (
        ("Name", found["name"]),
        ("Description", found["description"]),
        ("Type", found["type"]),
        ("Content type", found["content_type"]),
        ("Usage", format_size(used) if used is not None else ""),
        ("Total", format_size(total) if total else ""),
        ("Created", texts.date(found.get("created_at") or "")),
    )
    for title, text in lines:
        if text:
            print(f"{title}: {text}")
    if found["type"] == "custom" and (snapshots := client.get(f"{path}/snapshots", recursion="1")):
        print("\nSnapshots:")
        rows = [
            [each["name"], each["description"], texts.date(each.get("expires_at") or "")]
            for each in snapshots
        ]
        render("table", ("NAME", "DESCRIPTION", "EXPIRES AT"), sorted(rows), snapshots)


@command(volume, "create", short_help="Create new custom storage volumes")
@pool_argument()
@argument("name", "<volume>")
@argument("words", "[key=value...]", nargs=-1)
@click.option(
    "--type",
    "content",
    type=click.Choice(("filesystem", "block")),
    default="filesystem",
    help="Content type",
)
@option("--description", default="", metavar="TEXT", help="Description of the volume")
@target_option()
def create(
    session: Session, pool: str, name: str, words: tuple[str, ...], content: str, description: str
) -> None:
    """Create a custom storage volume: a directory of files, or a disk (block).

    \b
    lxpy storage volume create default data size=10GiB
    lxpy storage volume create default db --type=block size=20GiB
    """
    client, pool = session.server(pool)
    body = {
        "name": name,
        "type": "custom",
        "content_type": content,
        "config": pairs(words),
        "description": description,
    }
    client.change("POST", f"/1.0/storage-pools/{quote(pool)}/volumes/custom", body)
    session.say(f"Storage volume {name} created")


@command(volume, "delete", help="Delete storage volumes and their snapshots.")
@pool_argument()
@argument("name", "<volume>[/<snapshot>]", required=True)
@target_option()
def delete(session: Session, pool: str, name: str) -> None:
    client, pool = session.server(pool)
    client.change("DELETE", path_of(pool, name))
    session.say(f"Storage volume {name} deleted")


@command(volume, "rename", help="Rename storage volumes and storage volume snapshots.")
@pool_argument()
@argument("old", "<old name>[/<old snapshot name>]", required=True)
@argument("new", "<new name>[/<new snapshot name>]", required=True)
@target_option()
def rename(session: Session, pool: str, old: str, new: str) -> None:
    client, pool = session.server(pool)
    (old_name, _, old_snapshot), (new_name, _, snapshot) = old.partition("/"), new.partition("/")
    if bool(old_snapshot) != bool(snapshot) or (snapshot and old_name != new_name):
        raise BadRequest(f"Can't rename {old} to {new}: snapshots stay with their volume")
    client.change("POST", path_of(pool, old), {"name": snapshot or new_name})
    session.say(f'Renamed storage volume from "{old}" to "{new}"')


# Config keys


@command(volume, "get", help="Get values for storage volume configuration keys.")
@pool_argument()
@argument("name", "[<type>/]<volume>[/<snapshot>]", required=True)
@argument("key", "<key>")
@target_option()
def get(session: Session, pool: str, name: str, key: str) -> None:
    client, pool = session.server(pool)
    print((client.get(path_of(pool, name))["config"] or {}).get(key, ""))


@command(volume, "set", help="Set storage volume configuration keys.")
@pool_argument()
@argument("name", "[<type>/]<volume>", required=True)
@argument("words", "<key>=<value>...", nargs=-1, required=True)
@target_option()
def set_keys(session: Session, pool: str, name: str, words: tuple[str, ...]) -> None:
    client, pool = session.server(pool)
    found, etag = client.fetch(path_of(pool, name))
    found["config"] = {**(found["config"] or {}), **settings(words)}
    _put(client, path_of(pool, name), found, etag)


@command(volume, "unset", help="Unset storage volume configuration keys.")
@pool_argument()
@argument("name", "[<type>/]<volume>", required=True)
@argument("key", "<key>")
@target_option()
def unset(session: Session, pool: str, name: str, key: str) -> None:
    client, pool = session.server(pool)
    found, etag = client.fetch(path_of(pool, name))
    found["config"] = {k: value for k, value in (found["config"] or {}).items() if k != key}
    _put(client, path_of(pool, name), found, etag)


@command(volume, "edit", help="Edit storage volume configurations as YAML, or read them on stdin.")
@pool_argument()
@argument("name", "[<type>/]<volume>[/<snapshot>]", required=True)
@target_option()
def edit(session: Session, pool: str, name: str) -> None:
    client, pool = session.server(pool)
    path = path_of(pool, name)
    found, etag = client.fetch(path)
    edit_text(found, _EDIT_HELP, lambda wanted: _put(client, path, wanted, etag))


def _put(client: Client, path: str, found: Json, etag: str) -> None:
    writable = ("description", "expires_at") if "/snapshots/" in path else ("description", "config")
    body = {key: found[key] for key in writable if key in found}
    client.change("PUT", path, body, etag=etag)
