"""Making instances from images: what `init` and `launch` do."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from lxpy.cli.changing import change_state
from lxpy.cli.image_source import attempt, fingerprint, sources
from lxpy.cli.target import overrides, pairs
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, NotFound, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lxpy.cli.session import Session
    from lxpy.client.client import Client, Json

#: What the command line may say of a new instance, and what it is without a word.
DEFAULTS: dict[str, object] = {
    "config": (),
    "devices": (),
    "empty": False,
    "ephemeral": False,
    "network": "",
    "no_profiles": False,
    "profiles": (),
    "storage": "",
    "instance_type": "",
    "vm": False,
}


def init(session: Session, image: str | None, name: str | None, options: Json) -> int:
    """Create an instance."""
    create(session, image, name, options)
    return 0


def launch(
    session: Session, image: str | None, name: str | None, options: Json, console: str | None = None
) -> int:
    """Create and start an instance; attach to its console if asked to."""
    client, made = create(session, image, name, options)
    session.say(f"Starting {made}")
    change_state(client, made, {"action": "start", "timeout": -1, "stateful": False})
    if not console:
        return 0
    from lxpy.cli.console import attach  # seldom asked for

    return attach(client, made, console)


def create(
    session: Session, image: str | None, name: str | None, options: Json
) -> tuple[Client, str]:
    """Create an instance; return the client of its server and its name. Raises Refused."""
    if options["empty"]:
        if name is not None:
            raise BadRequest("--empty cannot be combined with an image name")
        image, name = None, image
    request = _read_stdin()
    client, wanted = _place(session, image, name)
    request |= {"name": wanted, "type": "virtual-machine" if options["vm"] else "container"}
    request["instance_type"] = options["instance_type"]
    request["config"] = {**(request.get("config") or {}), **pairs(options["config"])}
    if options["ephemeral"]:
        request["ephemeral"] = True
    if options["no_profiles"]:
        request["profiles"] = []
    elif options["profiles"]:
        request["profiles"] = [each for each in options["profiles"] if each]
    session.say(f"Creating {wanted}" if wanted else "Creating the instance")
    request["devices"] = _devices(client, request, options)
    with _sources(session, client, image) as places:
        done = attempt(
            places,
            lambda each: client.change("POST", "/1.0/instances", {**request, "source": each}),
        )
    made = _name_of(done)
    if not wanted:
        session.say(f"Instance name is: {made}")
    return client, made


def _read_stdin() -> Json:
    """Return what comes as YAML on stdin, unless that is a terminal. Raises BadRequest."""
    if sys.stdin is None or sys.stdin.isatty():
        return {}
    text = sys.stdin.read()
    if not text.strip():
        return {}
    from lxpy.cli.yamltext import load  # yaml takes 12 ms

    return load(text)


def _place(session: Session, image: str | None, name: str | None) -> tuple[Client, str]:
    """Return where to create, and the name, which may be empty. Raises NotFound, BadRequest."""
    if name is not None:
        return session.server(name)
    if image is not None:
        remote, _ = session.parse(image)
        if remote.protocol == "lxd":
            return session.client(remote), ""
    return session.server("")


def _sources(
    session: Session, client: Client, image: str | None
) -> AbstractContextManager[list[Json]]:
    """Return what the instance can be made from: places to try. Raises BadRequest, NotFound."""
    if image is None:
        return nullcontext([{"type": "none"}])
    remote, name = session.parse(image)
    if not name:
        raise BadRequest(f'"{image}" names no image; try: lxpy image list {remote.name}:')
    if remote.protocol == "lxd" and session.client(remote).path == client.path:
        return nullcontext([{"type": "image", "fingerprint": fingerprint(client, name)}])
    return sources(session, remote, name)


def _devices(client: Client, request: Json, options: Json) -> dict[str, dict[str, str]]:
    """Return the devices: those of stdin, of -n and -s, and what -d changes in any of them.

    Raises NotFound for a network or pool that does not exist.
    """
    devices: dict[str, dict[str, str]] = dict(request.get("devices") or {})
    if network := options["network"]:
        devices["eth0"] = nic(client, network, "eth0")
    if pool := options["storage"]:
        if client.find(f"/1.0/storage-pools/{quote(pool)}") is None:
            raise NotFound(f'Failed loading storage pool "{pool}": Storage pool not found')
        devices["root"] = {"type": "disk", "path": "/", "pool": pool}
    inherited: dict[str, dict[str, str]] | None = None
    for name, changes in overrides(options["devices"]).items():
        if name not in devices and inherited is None:
            inherited = _of_profiles(client, request.get("profiles"))
        devices[name] = {**((inherited or {}).get(name) or {}), **devices.get(name, {}), **changes}
    return devices


def nic(client: Client, network: str, name: str) -> dict[str, str]:
    """Return a network card on a network. Raises NotFound."""
    found = client.find(f"/1.0/networks/{quote(network)}")
    if found is None:
        raise NotFound(f'Failed loading network "{network}": Network not found')
    card = {"type": "nic", "name": name} if name else {"type": "nic"}
    if found["managed"]:
        return {**card, "network": network}
    kind = "bridged" if found["type"] == "bridge" else "macvlan"
    return {**card, "nictype": kind, "parent": network}


def _of_profiles(client: Client, profiles: list[str] | None) -> dict[str, dict[str, str]]:
    """Return the devices that profiles bring along."""
    devices: dict[str, dict[str, str]] = {}
    for profile in ["default"] if profiles is None else profiles:
        found = client.find(f"/1.0/profiles/{quote(profile)}")
        devices |= (found or {}).get("devices") or {}
    return devices


def _name_of(operation: Json) -> str:
    """Return the name of the instance that an operation created. Raises Refused."""
    resources = operation.get("resources") or {}
    for url in resources.get("instances") or resources.get("containers") or []:
        return str(url).partition("?")[0].rpartition("/")[2]
    raise Refused("Failed to get instance name from operation")
