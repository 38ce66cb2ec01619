"""`lxpy config`: configuration of instances and, without an instance, of the server."""

from __future__ import annotations

import sys

from lxpy.cli.declare import argument, command, flag, group, names, target_option
from lxpy.cli.devices import Devices, Owner, declare_devices, writable
from lxpy.cli.editor import edit
from lxpy.cli.metadata import metadata, template
from lxpy.cli.removing import path_of
from lxpy.cli.session import Session
from lxpy.cli.target import pairs, settings, split_snapshot
from lxpy.cli.trust import trust
from lxpy.cli.yamltext import dump
from lxpy.client.client import Client, Json
from lxpy.errors import BadRequest, NotFound

config = group(None, "config", "Manage instance and server configuration options.")
_instance = Owner("instance")
device = declare_devices(config, _instance)
config.add_command(metadata)
config.add_command(template)
config.add_command(trust)


def _place(session: Session, text: str) -> tuple[Client, str, str]:
    """Return client, name and path; without a name, those of the server."""
    client, name = session.server(text)
    return client, name, path_of(name) if name else "/1.0"


def _save(client: Client, name: str, path: str, found: Json, etag: str) -> None:
    """Write back what was read with `etag`. Raises Refused."""
    if not name:
        body: Json = {"config": found["config"]}
    elif split_snapshot(name)[1]:
        body = {"expires_at": found.get("expires_at")}
    else:
        body = writable(found)
    client.change("PUT", path, body, etag=etag)


@command(config, "get", short_help="Get values for instance or server configuration keys")
@argument("words", "[<remote>:][<instance>] <key>", nargs=-1, required=True)
@flag("-e", "--expanded", help="Access the expanded configuration")
@target_option()
def get(session: Session, words: tuple[str, ...], expanded: bool) -> None:
    """Get values for instance or server configuration keys."""
    if len(words) > 2:
        raise BadRequest("Invalid number of arguments")
    client, name, path = _place(session, words[0] if len(words) == 2 else "")
    if expanded and not name:
        raise BadRequest("--expanded cannot be used with a server")
    found = client.get(path)
    values = found["expanded_config" if expanded else "config"] or {}
    value = values.get(words[-1], "")
    print(str(value).lower() if isinstance(value, bool) else value)


@command(config, "set", short_help="Set instance or server configuration keys")
@argument("words", "[<remote>:][<instance>] <key>=<value>...", nargs=-1, required=True)
@target_option()
def set_keys(session: Session, words: tuple[str, ...]) -> None:
    """Set instance or server configuration keys.

    \b
    lxpy config set [<remote>:]<instance> limits.cpu=2 limits.memory=1GiB
    lxpy config set core.https_address=[::]:8443

    A single key may also be set as: lxpy config set [<remote>:][<instance>] <key> <value>
    """
    # As in lxc: "a=b" is a key of the server, "NAME a=b" and "NAME a b" of an instance, and two
    # words without "=" are a key and a value of the server.
    if (
        "=" in words[0]
        and not words[0].partition("=")[0].endswith(":")
        or len(words) == 2
        and "=" not in words[1]
        and not words[0].endswith(":")
    ):
        target, rest = "", words
    else:
        target, rest = words[0], words[1:]
    if not rest:
        raise BadRequest("Invalid number of arguments")
    client, name, path = _place(session, target)
    changes = settings(rest)
    found, etag = client.fetch(path)
    found["config"] = {**(found["config"] or {}), **changes}
    _save(client, name, path, found, etag)


@command(config, "unset", short_help="Unset instance or server configuration keys")
@argument("words", "[<remote>:][<instance>] <key>", nargs=-1, required=True)
@target_option()
def unset(session: Session, words: tuple[str, ...]) -> None:
    """Unset instance or server configuration keys."""
    if len(words) > 2:
        raise BadRequest("Invalid number of arguments")
    client, name, path = _place(session, words[0] if len(words) == 2 else "")
    key = words[-1]
    found, etag = client.fetch(path)
    if key not in (found["config"] or {}):
        raise BadRequest(f"Can't unset key '{key}', it's not currently set")
    del found["config"][key]
    _save(client, name, path, found, etag)


_OF_SNAPSHOTS = (
    "created_at", "expanded_config", "expanded_devices", "expires_at", "last_used_at", "name",
    "size", "stateful",
)  # fmt: skip


@command(config, "show", short_help="Show instance or server configurations")
@argument("name", "[<remote>:][<instance>[/<snapshot>]]", shell_complete=names("instances"))
@flag("-e", "--expanded", help="Show the expanded configuration")
@target_option()
def show(session: Session, name: str | None, expanded: bool) -> None:
    """Show instance or server configurations."""
    client, instance, path = _place(session, name or "")
    found = client.get(path)
    if not instance:
        shown = {"config": found["config"]}
    else:
        shown = writable(found)
        if expanded:
            shown |= {"config": found["expanded_config"], "devices": found["expanded_devices"]}
        if split_snapshot(instance)[1]:
            shown |= {key: found[key] for key in _OF_SNAPSHOTS if key in found}
    sys.stdout.write(dump(shown))


@command(config, "edit", short_help="Edit instance or server configurations as YAML")
@argument("name", "[<remote>:][<instance>[/<snapshot>]]", shell_complete=names("instances"))
@target_option()
def edit_config(session: Session, name: str | None) -> None:
    """Edit instance or server configurations as YAML, or read them on stdin.

    \b
    lxpy config edit <instance> < instance.yaml
    """
    client, instance, path = _place(session, name or "")
    found, etag = client.fetch(path)
    if not instance:
        shown: Json = {"config": found["config"]}
    elif split_snapshot(instance)[1]:
        shown = {"expires_at": found.get("expires_at")}
    else:
        shown = writable(found)
    edit(
        shown,
        "This is a YAML representation of the configuration.\n"
        "Any line starting with a '# will be ignored.",
        lambda wanted: _save(client, instance, path, {**shown, **wanted}, etag),
    )


@command(device, "override", short_help="Copy profile inherited devices and override keys")
@argument("name", "[<remote>:]<instance>", shell_complete=names("instances"))
@argument("device", "<device>")
@argument("words", "[key=value...]", nargs=-1)
def override(session: Session, name: str, device: str, words: tuple[str, ...]) -> None:
    """Copy profile inherited devices and override configuration keys."""

    def change(found: Json, devices: Devices) -> None:
        if device in devices:
            raise BadRequest("The device already exists")
        inherited = (found.get("expanded_devices") or {}).get(device)
        if inherited is None:
            raise NotFound("The profile device doesn't exist")
        devices[device] = {**inherited, **pairs(words)}

    made = _instance.update(session, name, change)
    session.say(f"Device {device} overridden for {made}")
