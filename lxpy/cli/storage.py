"""`lxpy storage`: pools."""

from __future__ import annotations

import sys

from lxpy.cli.declare import argument, command, flag, format_option, group, names, target_option
from lxpy.cli.objects import Kind, declare_common
from lxpy.cli.render import ordered, show
from lxpy.cli.session import Session
from lxpy.cli.target import pairs
from lxpy.cli.volume import volume
from lxpy.cli.yamltext import dump
from lxpy.units import format_size

storage = group(None, "storage", "Manage storage pools and volumes.")
storage.add_command(volume)
KIND = Kind("storage pool", "pool", "storage-pools", ("config", "description"))
declare_common(storage, KIND, renames=False)


@command(storage, "list", help="List available storage pools.")
@argument("remote", "[<remote>:]")
@format_option()
def list_pools(session: Session, remote: str | None, form: str) -> None:
    client, _ = session.server(remote or "")
    found = client.get("/1.0/storage-pools", recursion="1")
    found.sort(key=lambda each: str(each["name"]))
    header = ("NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE")
    rows = [
        [
            each["name"],
            each["driver"],
            (each["config"] or {}).get("source", ""),
            each["description"],
            str(len(each["used_by"] or [])),
            str(each["status"]).upper(),
        ]
        for each in found
    ]
    show(form, header, ordered(rows), found)


@command(storage, "create", help="Create storage pools.")
@argument("name", "[<remote>:]<pool>")
@argument("driver", "<driver>")
@argument("words", "[key=value...]", nargs=-1)
@target_option()
def create(session: Session, name: str, driver: str, words: tuple[str, ...]) -> None:
    client, name = KIND.locate(session, name)
    body = {"name": name, "driver": driver, "description": "", "config": pairs(words)}
    client.change("POST", "/1.0/storage-pools", body)
    session.say(f"Storage pool {name} created")


@command(storage, "show", help="Show storage pool configurations and resources.")
@argument("name", "[<remote>:]<pool>", shell_complete=names("storage-pools"))
@flag("--resources", help="Show the resources available to the storage pool")
@target_option()
def show_pool(session: Session, name: str, resources: bool) -> None:
    client, name = KIND.locate(session, name)
    path = KIND.path(name)
    sys.stdout.write(dump(client.get(f"{path}/resources" if resources else path)))


@command(storage, "info", help="Show useful information about storage pools.")
@argument("name", "[<remote>:]<pool>", shell_complete=names("storage-pools"))
@flag("--bytes", "exact", help="Show the used and free space in bytes")
@target_option()
def info(session: Session, name: str, exact: bool) -> None:
    client, name = KIND.locate(session, name)
    found = client.get(KIND.path(name))
    space = client.get(f"{KIND.path(name)}/resources")["space"]
    shown = {
        "description": found["description"],
        "driver": found["driver"],
        "name": found["name"],
        "space used": str(space["used"]) if exact else format_size(space["used"]),
        "total space": str(space["total"]) if exact else format_size(space["total"]),
    }
    sys.stdout.write(dump({"info": shown, "used by": _users(found["used_by"] or [])}))


def _users(urls: list[str]) -> dict[str, list[str]]:
    """Return names by kind of "/1.0/KIND/NAME"."""
    users: dict[str, list[str]] = {}
    for url in urls:
        kind, _, name = url.partition("?")[0].removeprefix("/1.0/").partition("/")
        if "/volumes/" in name:
            kind, name = "volumes", name.rpartition("/")[2]
        users.setdefault(kind, []).append(name)
    return {kind: sorted(found) for kind, found in sorted(users.items())}
