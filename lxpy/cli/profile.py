"""`lxpy profile`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from lxpy.cli.declare import argument, command, format_option, group, names, option
from lxpy.cli.devices import Owner, declare_devices, writable
from lxpy.cli.objects import Kind, declare_common
from lxpy.cli.render import ordered, show
from lxpy.cli.session import Session
from lxpy.cli.yamltext import load
from lxpy.client.transport import quote
from lxpy.errors import BadRequest

profile = group(None, "profile", "Manage profiles.")
KIND = Kind("profile", "profile", "profiles", ("config", "description", "devices"))
declare_common(profile, KIND)
declare_devices(profile, Owner("profile"))


@command(profile, "list", help="List profiles.")
@argument("remote", "[<remote>:]")
@format_option()
def list_profiles(session: Session, remote: str | None, form: str) -> None:
    client, _ = session.server(remote or "")
    found = client.get("/1.0/profiles", recursion="1")
    found.sort(key=lambda each: str(each["name"]))
    rows = [[each["name"], each["description"], str(len(each["used_by"] or []))] for each in found]
    show(form, ("NAME", "DESCRIPTION", "USED BY"), ordered(rows), found)


@command(profile, "create", help="Create profiles; a definition may come as YAML on stdin.")
@argument("name", "[<remote>:]<profile>")
def create(session: Session, name: str) -> None:
    client, name = KIND.locate(session, name)
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    body = {key: value for key, value in load(text).items() if key in KIND.writable}
    client.change("POST", "/1.0/profiles", {**body, "name": name})
    session.say(f"Profile {name} created")


@command(profile, "copy", help="Copy profiles.")
@argument("source", "[<remote>:]<profile>", shell_complete=names("profiles"))
@argument("destination", "[<remote>:]<profile>", required=True)
@option("--target-project", default="", metavar="NAME", help="Copy to a project")
def copy(session: Session, source: str, destination: str, target_project: str) -> None:
    client, name = KIND.locate(session, source)
    other, new = KIND.locate(session, destination)
    found = client.get(KIND.path(name))
    body = {key: found[key] for key in KIND.writable}
    if target_project:
        other.project = target_project
    other.change("POST", "/1.0/profiles", {**body, "name": new})


def _change(session: Session, instance: str, change: Callable[[list[str]], list[str]]) -> str:
    """Change the profiles of an instance; its name. Raises Refused."""
    client, name = session.server(instance)
    path = f"/1.0/instances/{quote(name)}"
    found, etag = client.fetch(path)
    found["profiles"] = change(list(found["profiles"] or []))
    client.change("PUT", path, writable(found), etag=etag)
    return name


@command(profile, "assign", short_help="Assign sets of profiles to instances")
@argument("instance", "[<remote>:]<instance>", shell_complete=names("instances"))
@argument("profiles", "<profiles>")
def assign(session: Session, instance: str, profiles: str) -> None:
    """Assign sets of profiles to instances.

    \b
    lxpy profile assign foo default,bar
    lxpy profile assign foo ''            (remove all profiles)
    """
    wanted = [each for each in profiles.split(",") if each]
    name = _change(session, instance, lambda _current: wanted)
    session.say(f"Profiles {','.join(wanted) or '(none)'} applied to {name}")


@command(profile, "add", help="Add profiles to instances.")
@argument("instance", "[<remote>:]<instance>", shell_complete=names("instances"))
@argument("name", "<profile>", shell_complete=names("profiles"))
def add(session: Session, instance: str, name: str) -> None:
    changed = _change(session, instance, lambda current: [*current, name])
    session.say(f"Profile {name} added to {changed}")


@command(profile, "remove", help="Remove profiles from instances.")
@argument("instance", "[<remote>:]<instance>", shell_complete=names("instances"))
@argument("name", "<profile>", shell_complete=names("profiles"))
def remove(session: Session, instance: str, name: str) -> None:
    def without(current: list[str]) -> list[str]:
        if name not in current:
            raise BadRequest(f"Profile {name} isn't currently applied to {instance}")
        return [each for each in current if each != name]

    changed = _change(session, instance, without)
    session.say(f"Profile {name} removed from {changed}")
