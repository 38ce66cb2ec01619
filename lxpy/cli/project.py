"""`lxpy project`."""

from __future__ import annotations

import sys

from lxpy.cli.declare import argument, command, format_option, group, names, option
from lxpy.cli.objects import Kind, declare_common
from lxpy.cli.render import ordered, show
from lxpy.cli.session import Session
from lxpy.cli.target import pairs
from lxpy.cli.texts import yes
from lxpy.cli.yamltext import load
from lxpy.client.remotes import set_project
from lxpy.errors import BadRequest
from lxpy.units import format_size_decimal, is_true

project = group(None, "project", "Manage projects.")
KIND = Kind("project", "project", "projects", ("config", "description"))
declare_common(project, KIND)
_FEATURES = ("images", "profiles", "storage.volumes", "networks")
_BYTES = ("DISK", "MEMORY")


@command(project, "list", help="List projects.")
@argument("remote", "[<remote>:]")
@format_option()
def list_projects(session: Session, remote: str | None, form: str) -> None:
    client, _ = session.server(remote or "")
    current = client.project or "default"
    found = client.get("/1.0/projects", recursion="1")
    found.sort(key=lambda each: str(each["name"]))
    header = (
        "NAME", "IMAGES", "PROFILES", "STORAGE VOLUMES", "NETWORKS", "DESCRIPTION", "USED BY"
    )  # fmt: skip
    rows = [
        [
            f"{each['name']} (current)" if each["name"] == current else each["name"],
            *(yes(_has(each["name"], each["config"], feature)) for feature in _FEATURES),
            each["description"],
            str(len(each["used_by"] or [])),
        ]
        for each in found
    ]
    show(form, header, ordered(rows), found)


def _has(name: str, config: dict[str, str], feature: str) -> bool:
    return name == "default" or is_true(config.get(f"features.{feature}"))


@command(project, "create", help="Create projects; a definition may come as YAML on stdin.")
@argument("name", "[<remote>:]<project>")
@option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="Config of the new project")
def create(session: Session, name: str, config: tuple[str, ...]) -> None:
    client, name = KIND.locate(session, name)
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    body = {key: value for key, value in load(text).items() if key in KIND.writable}
    body["config"] = {**(body.get("config") or {}), **pairs(config)}
    client.change("POST", "/1.0/projects", {"description": "", **body, "name": name})
    session.say(f"Project {name} created")


@command(project, "switch", help="Switch the current project.")
@argument("name", "[<remote>:]<project>", shell_complete=names("projects"))
def switch(session: Session, name: str) -> None:
    remote, wanted = session.parse(name)
    if not wanted:
        raise BadRequest("Missing project name")
    session.client(remote).get(KIND.path(wanted))
    set_project(remote.name, wanted)


@command(project, "info", help="Get a summary of resource allocations.")
@argument("name", "[<remote>:]<project>", shell_complete=names("projects"))
@format_option()
def info(session: Session, name: str, form: str) -> None:
    client, name = KIND.locate(session, name)
    state = client.get(f"{KIND.path(name)}/state")
    rows = []
    for kind in sorted(state["resources"]):
        amount = state["resources"][kind]
        limit = "UNLIMITED" if amount["Limit"] < 0 else _amount(kind, amount["Limit"])
        rows.append([kind.upper(), limit, _amount(kind, amount["Usage"])])
    show(form, ("RESOURCE", "LIMIT", "USAGE"), rows, state)


def _amount(kind: str, number: int) -> str:
    return format_size_decimal(number) if kind.upper() in _BYTES else str(number)
