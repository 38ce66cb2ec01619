"""`lxpy storage volume attach` and `detach`: custom volumes as disks of instances, of profiles."""

from __future__ import annotations

from typing import Any

from lxpy.cli.declare import argument, command, names
from lxpy.cli.devices import Devices, Owner, del_device
from lxpy.cli.session import Session
from lxpy.cli.volume import path_of, pool_argument
from lxpy.client.client import Json
from lxpy.errors import BadRequest, NotFound

_DEVICE = "[<device name>]"


def _attach(
    session: Session, owner: Owner, pool: str, name: str, target: str, words: tuple[str, ...]
) -> None:
    """Add a disk that shows a volume; `words` are [device] path.

    Block and ISO volumes are shown as a device: without a path, as /dev/VOLUME.
    """
    target = _beside(pool, target)
    client, pool = session.server(pool)
    if len(words) > 2:
        raise BadRequest("Write [<device name>] [<path>] after the name of what it is attached to")
    device = words[0] if len(words) == 2 else name
    path = words[-1] if words else ""
    content = client.get(path_of(pool, name)).get("content_type")
    if not path and content == "filesystem":
        raise BadRequest(f'Say where volume "{name}" is to be seen: <path>, such as /srv/{name}')

    def change(_: Json, devices: Devices) -> None:
        if device in devices:
            raise BadRequest(f'The device already exists: "{device}"; give another device name')
        shown = path or f"/dev/{name}"
        devices[device] = {"type": "disk", "pool": pool, "source": name, "path": shown}

    owner.update(session, target, change)


def _beside(pool: str, target: str) -> str:
    """Return the name of an instance or profile on the server that the pool is on."""
    remote, colon, _ = pool.rpartition(":")
    return f"{remote}{colon}{target}"


def _detach(
    session: Session, owner: Owner, pool: str, name: str, target: str, device: str | None
) -> None:
    target = _beside(pool, target)
    _, pool = session.server(pool)

    def shows(each: dict[str, Any]) -> bool:
        wanted = {"type": "disk", "pool": pool, "source": name}
        return all(each.get(key) == value for key, value in wanted.items())

    def change(found: Json, devices: Devices) -> None:
        matching = [each for each in devices if shows(devices[each])]
        if device is not None:
            matching = [device]
        if not matching:
            raise NotFound("No device found for this storage volume")
        if len(matching) > 1:
            raise BadRequest("More than one device matches, specify the device name")
        del_device(found, devices, matching[0])

    owner.update(session, target, change)


@command(None, "attach", short_help="Attach new storage volumes to instances")
@pool_argument()
@argument("name", "<volume>")
@argument("instance", "<instance>", shell_complete=names("instances"))
@argument("words", "[<device name>] [<path>]", nargs=-1)
def attach(session: Session, pool: str, name: str, instance: str, words: tuple[str, ...]) -> None:
    """Attach a custom volume to an instance, while it runs, too.

    Any number of instances may share a volume of files. A block or ISO volume is shown as a device.

    \b
    lxpy storage volume attach default data c1 /srv/data
    lxpy storage volume attach default db c1 /dev/db
    """
    _attach(session, Owner("instance"), pool, name, instance, words)


@command(None, "attach-profile", help="Attach new storage volumes to profiles.")
@pool_argument()
@argument("name", "<volume>")
@argument("profile", "<profile>", shell_complete=names("profiles"))
@argument("words", "[<device name>] [<path>]", nargs=-1)
def attach_profile(
    session: Session, pool: str, name: str, profile: str, words: tuple[str, ...]
) -> None:
    _attach(session, Owner("profile"), pool, name, profile, words)


@command(None, "detach", help="Detach storage volumes from instances.")
@pool_argument()
@argument("name", "<volume>")
@argument("instance", "<instance>", shell_complete=names("instances"))
@argument("device", _DEVICE)
def detach(session: Session, pool: str, name: str, instance: str, device: str | None) -> None:
    _detach(session, Owner("instance"), pool, name, instance, device)


@command(None, "detach-profile", help="Detach storage volumes from profiles.")
@pool_argument()
@argument("name", "<volume>")
@argument("profile", "<profile>", shell_complete=names("profiles"))
@argument("device", _DEVICE)
def detach_profile(
    session: Session, pool: str, name: str, profile: str, device: str | None
) -> None:
    _detach(session, Owner("profile"), pool, name, profile, device)
