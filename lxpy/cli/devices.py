"""The devices of instances and profiles: `lxpy config device` and `lxpy profile device`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from lxpy.cli.declare import Group, argument, command, group, names
from lxpy.cli.session import Session
from lxpy.cli.target import pairs, settings
from lxpy.cli.yamltext import dump
from lxpy.client.client import Client, Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, NotFound

Devices = dict[str, dict[str, Any]]


class Owner:
    """Something that has devices: "instance" or "profile"."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.collection = f"{word}s"
        self.metavar = f"[<remote>:]<{word}>"

    def locate(self, session: Session, text: str) -> tuple[Client, str, str]:
        """Return client, name and path of an owner. Raises NotFound."""
        client, name = session.server(text)
        return client, name, f"/1.0/{self.collection}/{quote(name)}"

    def update(self, session: Session, text: str, change: Callable[[Json, Devices], None]) -> str:
        """Change the devices of an owner; its name. Raises what `change` raises, and Refused."""
        client, name, path = self.locate(session, text)
        found, etag = client.fetch(path)
        devices: Devices = found["devices"] or {}
        change(found, devices)
        found["devices"] = devices
        client.change("PUT", path, writable(found), etag=etag)
        return name


#: Fields of an instance or a profile that PUT takes.
_WRITABLE = (
    "architecture",
    "config",
    "devices",
    "ephemeral",
    "profiles",
    "stateful",
    "description",
)


def writable(found: Json) -> Json:
    """Return the part of an instance or profile that PUT takes."""
    return {key: found[key] for key in _WRITABLE if key in found}


def declare_devices(parent: Group, owner: Owner) -> Group:
    """Declare the group `device` for an owner."""
    device = group(parent, "device", "Manage devices.")
    _declare_set(device, owner)
    _declare_shown(device, owner)

    @command(device, "add", help=f"Add {owner.word} devices.")
    @argument("name", owner.metavar, shell_complete=names(owner.collection))
    @argument("device", "<device>")
    @argument("kind", "<type>")
    @argument("words", "[key=value...]", nargs=-1)
    def add(session: Session, name: str, device: str, kind: str, words: tuple[str, ...]) -> None:
        def change(found: Json, devices: Devices) -> None:
            if device in devices:
                raise BadRequest("The device already exists")
            devices[device] = {"type": kind, **pairs(words)}

        made = owner.update(session, name, change)
        session.say(f"Device {device} added to {made}")

    @command(device, "remove", help=f"Remove {owner.word} devices.")
    @argument("name", owner.metavar, shell_complete=names(owner.collection))
    @argument("devices", "<device> [<device>...]", nargs=-1, required=True)
    def remove(session: Session, name: str, devices: tuple[str, ...]) -> None:
        def change(found: Json, current: Devices) -> None:
            for each in devices:
                del_device(found, current, each)

        changed = owner.update(session, name, change)
        for each in devices:
            session.say(f"Device {each} removed from {changed}")

    return device


def del_device(found: Json, devices: Devices, device: str) -> None:
    """Remove a device from those of an object. Raises BadRequest, NotFound."""
    _own(found, devices, device, "removed from individual instance", "Override device")
    del devices[device]


def _own(found: Json, devices: Devices, device: str, what: str, remedy: str) -> dict[str, Any]:
    """Return a device that the object has itself. Raises BadRequest, NotFound."""
    if device in devices:
        return devices[device]
    if device in (found.get("expanded_devices") or {}):
        raise BadRequest(
            f"Device from profile(s) cannot be {what}. {remedy} or modify profile instead"
        )
    raise NotFound("Device doesn't exist")


def _declare_set(parent: Group, owner: Owner) -> None:
    what = "modified for individual instance"

    @command(parent, "set", help=f"Set {owner.word} device configuration keys.")
    @argument("name", owner.metavar, shell_complete=names(owner.collection))
    @argument("device", "<device>")
    @argument("words", "<key>=<value>...", nargs=-1, required=True)
    def set_keys(session: Session, name: str, device: str, words: tuple[str, ...]) -> None:
        def change(found: Json, devices: Devices) -> None:
            _own(found, devices, device, what, "Override device").update(settings(words))

        owner.update(session, name, change)

    @command(parent, "unset", help=f"Unset {owner.word} device configuration keys.")
    @argument("name", owner.metavar, shell_complete=names(owner.collection))
    @argument("device", "<device>")
    @argument("key", "<key>")
    def unset(session: Session, name: str, device: str, key: str) -> None:
        def change(found: Json, devices: Devices) -> None:
            _own(found, devices, device, what, "Override device").pop(key, None)

        owner.update(session, name, change)


def _declare_shown(parent: Group, owner: Owner) -> None:
    def read(session: Session, name: str) -> Json:
        client, _, path = owner.locate(session, name)
        found: Json = client.get(path)
        return found

    @command(parent, "get", help=f"Get values for {owner.word} device configuration keys.")
    @argument("name", owner.metavar, shell_complete=names(owner.collection))
    @argument("device", "<device>")
    @argument("key", "<key>")
    def get(session: Session, name: str, device: str, key: str) -> None:
        found = read(session, name)
        devices = found.get("expanded_devices") or found["devices"] or {}
        if device not in devices:
            raise NotFound("Device doesn't exist")
        print(devices[device].get(key, ""))

    @command(parent, "list", help=f"List {owner.word} devices.")
    @argument("name", owner.metavar, shell_complete=names(owner.collection))
    def list_devices(session: Session, name: str) -> None:
        print("\n".join(sorted(read(session, name)["devices"] or {})))

    @command(parent, "show", help=f"Show full device configuration of {owner.word}s.")
    @argument("name", owner.metavar, shell_complete=names(owner.collection))
    def show(session: Session, name: str) -> None:
        sys.stdout.write(dump(dict(sorted((read(session, name)["devices"] or {}).items()))))
