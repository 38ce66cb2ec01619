"""`lxpy copy`, `lxpy move` and `lxpy rename`, within a server and from one to another."""

from __future__ import annotations

from typing import Any

import click

from lxpy.cli.declare import argument, command, flag, names, option, target_option
from lxpy.cli.migrate import AUTO, LIVE, RESTART, Move
from lxpy.cli.migrate import MODES as RUNNING
from lxpy.cli.removing import path_of
from lxpy.cli.session import Session
from lxpy.cli.target import overrides, pairs, split_snapshot
from lxpy.cli.transfer import MODES as TRANSFERS
from lxpy.cli.transfer import Transfer
from lxpy.client.client import Client, Json
from lxpy.errors import BadRequest, NotSupported

_MODE_HELP = (
    "Between servers the target fetches (pull, the default), the source sends (push), or this "
    "program passes on (relay, the default where the source is not on the network)"
)


@command(None, "copy", short_help="Copy instances")
@argument("source", "[<remote>:]<source>[/<snapshot>]", shell_complete=names("instances"))
@argument("destination", "[[<remote>:]<destination>]")
@flag("--allow-inconsistent", help="Ignore copy errors for volatile files")
@option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="Config for the new instance")
@option(
    "-d",
    "--device",
    "devices",
    multiple=True,
    metavar="DEVICE,KEY=VALUE",
    help="New key/value to apply to a specific device",
)
@flag("-e", "--ephemeral", help="Ephemeral instance")
@flag("--instance-only", help="Copy the instance without its snapshots")
@flag("--live", help="Copy the memory of a running instance, too: the copy runs at once")
@option("--mode", type=click.Choice(TRANSFERS), default=None, help=_MODE_HELP)
@flag("--no-profiles", help="Create the instance with no profiles applied")
@option(
    "-p", "--profile", "profiles", multiple=True, metavar="PROFILE", help="Profile for the new one"
)
@flag("--refresh", help="Perform an incremental copy")
@flag("--stateless", help="Copy a stateful instance stateless")
@option("-s", "--storage", default="", metavar="POOL", help="Storage pool name")
@option("--target-project", default="", metavar="NAME", help="Copy to a project")
@target_option()
def copy(session: Session, source: str, destination: str | None, **options: Any) -> None:
    """Copy instances and snapshots within a server, or to another one."""
    client, name = session.server(source)
    if destination and session.server(destination)[0].path != client.path:
        if options["live"]:
            raise NotSupported("A twin runs on the same server: use lxpy move --live for others")
        _copy_away(session, source, destination, options)
        return
    wanted = _same_server(session, client, destination) if destination else ""
    if options["live"] and client.get(path_of(name))["status"] not in ("Running", "Ready"):
        raise BadRequest(f'Instance "{name}" does not run: copy it without --live')
    body = _definition(client, name, options)
    body["name"] = wanted
    body["source"] = {
        "type": "copy",
        "source": name,
        "project": client.project,
        "instance_only": options["instance_only"],
        "container_only": options["instance_only"],
        "refresh": options["refresh"],
        "live": not options["stateless"] and bool(body.get("stateful")),
        "lxpy_twin": options["live"],
        "allow_inconsistent": options["allow_inconsistent"],
    }
    if options["target_project"]:
        client = _in_project(session, source, options["target_project"])
    done = client.change("POST", "/1.0/instances", body)
    if not wanted:
        made = str(done["resources"]["instances"][0]).partition("?")[0].rpartition("/")[2]
        session.say(f"Instance name is: {made}")


def _copy_away(
    session: Session, source: str, destination: str, options: dict[str, Any], *, moves: bool = False
) -> str:
    """Copy to another server; return the name there. What `moves` keeps who it is.

    Raises Refused, BadRequest.
    """
    here, name = session.parse(source)
    there, wanted = session.parse(destination)
    client = session.client(here)
    instance, snapshot = split_snapshot(name)
    body = _definition(client, name, options, moves=moves)
    body["name"] = wanted or instance
    body["source"] = {
        "base-image": body["config"].get("volatile.base_image", ""),
        "instance_only": options["instance_only"],
        "container_only": options["instance_only"],
        "refresh": options["refresh"],
        "allow_inconsistent": options["allow_inconsistent"],
    }
    target = session.client(there)
    target.project = options["target_project"] or target.project
    ask: Json = {"name": snapshot or instance}
    if not snapshot:
        ask |= {key: body["source"][key] for key in ("instance_only", "allow_inconsistent")}
    Transfer(
        (here, client), (there, target),
        path=path_of(name), ask=ask, make_at="/1.0/instances", make=body,
    ).run(options["mode"])  # fmt: skip
    return str(body["name"])


@command(None, "fork", short_help="Make a running twin of a running instance")
@argument("source", "[<remote>:]<instance>", shell_complete=names("instances"))
@argument("destination", "[[<remote>:]<instance>]")
def fork(session: Session, source: str, destination: str | None) -> None:
    """Make a running twin of a running instance: its memory and disk, a name and addresses anew.

    The same as copy --live --instance-only.
    """
    words = [source, *([destination] if destination else []), "--live", "--instance-only"]
    copy.main(words, obj=session, standalone_mode=False)


def _same_server(session: Session, client: Client, destination: str) -> str:
    """Return the name in a destination on the same server. Raises BadRequest."""
    other, name = session.server(destination)
    if other.path != client.path:
        raise BadRequest("What gets another name stays on its server: use move or copy")
    return name


def _in_project(session: Session, source: str, project: str) -> Client:
    remote, _ = session.parse(source)
    client = remote.client(project, trace=session.trace)
    client.watcher = session.client(remote).watcher
    return client


def _definition(client: Client, name: str, options: dict[str, Any], *, moves: bool = False) -> Json:
    """Return the source's own definition, changed as the flags say. Raises Refused.

    Only what `moves` keeps what the daemon has noted of it.
    """
    found = client.get(path_of(name))
    kept = ("architecture", "config", "devices", "ephemeral", "profiles", "stateful", "description")
    body = {key: found[key] for key in kept if key in found}
    body["config"] = {
        key: value
        for key, value in (found["config"] or {}).items()
        if moves or not key.startswith("volatile.") or key == "volatile.base_image"
    } | pairs(options["config"])
    expanded = found.get("expanded_devices") or {}
    devices: dict[str, dict[str, str]] = {**(found["devices"] or {})}
    for device, changes in overrides(options["devices"]).items():
        devices[device] = {**(devices.get(device) or expanded.get(device) or {}), **changes}
    if pool := options["storage"]:
        root = next((key for key, each in expanded.items() if each.get("path") == "/"), "root")
        devices[root] = {"type": "disk", "path": "/", **expanded.get(root, {}), "pool": pool}
    body["devices"] = devices
    body["ephemeral"] = found["ephemeral"] if moves else bool(options["ephemeral"])
    if options["no_profiles"]:
        body["profiles"] = []
    elif options["profiles"]:
        body["profiles"] = list(options["profiles"])
    return body


@command(None, "move", short_help="Rename or move instances")
@argument("source", "[<remote>:]<instance>[/<snapshot>]", shell_complete=names("instances"))
@argument("destination", "[<remote>:][<instance>[/<snapshot>]]")
@flag("--allow-inconsistent", help="Ignore copy errors for volatile files")
@option("-c", "--config", multiple=True, metavar="KEY=VALUE", help="Config for the target instance")
@option(
    "-d",
    "--device",
    "devices",
    multiple=True,
    metavar="DEVICE,KEY=VALUE",
    help="New key/value to apply to a specific device",
)
@flag("--instance-only", help="Move the instance without its snapshots")
@flag("--live", help="Move a running instance with its memory to another server (--mode live)")
@option(
    "--mode",
    type=click.Choice([*RUNNING, *TRANSFERS]),
    default=None,
    help="How a running instance gets to another server: live, restart, or auto (live if it can "
    f"be, the default). {_MODE_HELP}",
)
@flag("--no-profiles", help="Unset all profiles on the target instance")
@option(
    "-p", "--profile", "profiles", multiple=True, metavar="PROFILE", help="Profile for the target"
)
@flag("--stateless", help="Move a running instance without its memory (--mode restart)")
@option("-s", "--storage", default="", metavar="POOL", help="Storage pool name")
@option("--target-project", default="", metavar="NAME", help="Move to a project")
@target_option()
def move(session: Session, source: str, destination: str | None, **options: Any) -> None:
    """Rename an instance or snapshot, or move an instance to another server, pool or project.

    \b
    lxpy move <old name> <new name>
    lxpy move <instance> --storage <pool>
    lxpy move <instance> <remote>: --live
    """
    client, name = session.server(source)
    if destination and session.server(destination)[0].path != client.path:
        _move_away(session, source, destination, options)
        return
    instance_only, storage = options["instance_only"], options["storage"]
    target_project = options["target_project"]
    wanted = _same_server(session, client, destination) if destination else name
    if not (storage or target_project):
        if wanted == name:
            raise click.MissingParameter(ctx=click.get_current_context(), param_type="argument")
        _rename(client, name, wanted)
        return
    body: Json = {"name": wanted, "migration": True, "live": True, "instance_only": instance_only}
    if storage:
        body["pool"] = storage
    if target_project:
        body["project"] = target_project
    client.change("POST", path_of(name), body)


def _move_away(session: Session, source: str, destination: str, options: dict[str, Any]) -> None:
    """Move to another server. Raises BadRequest, Refused with the instance where it was."""
    client, name = session.server(source)
    target, wanted = session.server(destination)
    mode = options["mode"]
    transfer = mode if mode in TRANSFERS else None

    def copied(refresh: bool) -> None:
        chosen = {**options, "mode": transfer, "refresh": refresh}
        _copy_away(session, source, destination, chosen, moves=True)

    by = mode if mode in RUNNING else LIVE if options["live"] else AUTO
    task = Move(session, (client, name), (target, wanted or name), copied)
    task.run(RESTART if options["stateless"] else by)


@command(None, "rename", short_help="Rename instances and snapshots")
@argument("source", "[<remote>:]<instance>[/<snapshot>]", shell_complete=names("instances"))
@argument("destination", "<instance>[/<snapshot>]", required=True)
def rename(session: Session, source: str, destination: str) -> None:
    """Rename instances and snapshots."""
    client, name = session.server(source)
    _rename(client, name, _same_server(session, client, destination))


def _rename(client: Client, old: str, new: str) -> None:
    instance, snapshot = split_snapshot(old)
    new_instance, new_snapshot = split_snapshot(new)
    if bool(snapshot) != bool(new_snapshot) or (snapshot and instance != new_instance):
        raise BadRequest(f"Can't rename {old} to {new}: snapshots stay with their instance")
    client.change("POST", path_of(old), {"name": new_snapshot or new_instance})
