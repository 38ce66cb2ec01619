"""`lxpy publish`: images from instances and snapshots."""

from __future__ import annotations

import sys

from lxpy.cli.changing import change_state
from lxpy.cli.declare import argument, command, flag, names, option
from lxpy.cli.image_alias import set_aliases
from lxpy.cli.image_copy import Copy, fingerprint_of
from lxpy.cli.session import Session
from lxpy.cli.target import pairs, split_snapshot
from lxpy.client.client import Client, Json
from lxpy.client.remotes import Remote
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, Refused

_NOT_RUNNING = ("Stopped", "Error")


@command(None, "publish", short_help="Publish instances as images")
@argument("source", "[<remote>:]<instance>[/<snapshot>]", shell_complete=names("instances"))
@argument("words", "[<remote>:] [key=value...]", nargs=-1)
@option("--alias", "aliases", multiple=True, metavar="NAME", help="New alias to define at target")
@option("--compression", default="", metavar="ALGORITHM",
        help="Compression algorithm to use (none for uncompressed)")  # fmt: skip
@option("--expire", default="", metavar="DATE", help="Image expiration date (format: rfc3339)")
@flag("-f", "--force", help="Stop the instance if currently running")
@flag("--public", help="Make the image public")
@flag("--reuse", help="If an alias names another image already, delete that image")
def publish(
    session: Session,
    source: str,
    words: tuple[str, ...],
    aliases: tuple[str, ...],
    compression: str,
    expire: str,
    force: bool,
    public: bool,
    reuse: bool,
) -> None:
    """Publish instances and snapshots as images, here or on another server."""
    origin, name = session.parse(source)
    client = session.client(origin)
    remote, properties = _sort(session, origin, words)
    target = session.client(remote)
    is_here = target.path == client.path
    instance, snapshot = split_snapshot(name)
    if not instance:
        raise BadRequest("Instance name is mandatory")
    body: Json = {
        "source": {"type": "snapshot" if snapshot else "instance", "name": name},
        "public": public and is_here,
        "compression_algorithm": compression,
    }
    if properties:
        body["properties"] = properties
    if expire:
        body["expires_at"] = expire
    replaced = _named(target, aliases) if reuse else set()
    stopped = not snapshot and _stop(client, instance, force)
    try:
        done = client.change("POST", "/1.0/images", body)
    finally:
        if stopped:
            change_state(client, instance, {"action": "start", "timeout": -1, "stateful": False})
    mark = fingerprint_of(done)
    if not is_here:
        try:
            Copy(session, origin, mark, remote, target, public=public, auto_update=False).run(None)
        finally:
            client.change("DELETE", f"/1.0/images/{mark}")
    set_aliases(target, mark, aliases)
    for old in replaced - {mark}:
        target.change("DELETE", f"/1.0/images/{quote(old)}")
    session.say(f"Instance published with fingerprint: {mark}")


def _sort(
    session: Session, origin: Remote, words: tuple[str, ...]
) -> tuple[Remote, dict[str, str]]:
    """Return where the image goes and its properties. Raises NotFound, BadRequest."""
    if words and words[0].endswith(":") and "=" not in words[0]:
        return session.parse(words[0])[0], pairs(words[1:])
    return origin, pairs(words)


def _named(client: Client, aliases: tuple[str, ...]) -> set[str]:
    """Return the fingerprints of the images that have these names now."""
    found = (client.find(f"/1.0/images/aliases/{quote(name)}") for name in aliases)
    return {str(each["target"]) for each in found if each is not None}


def _stop(client: Client, instance: str, force: bool) -> bool:
    """Stop an instance that runs, if that is allowed; tell whether it shall run again."""
    found = client.get(f"/1.0/instances/{quote(instance)}")
    if found["status"] in _NOT_RUNNING:
        return False
    if not force:
        raise Refused(
            "The instance is currently running. Use --force to have it stopped and restarted"
        )
    if found["ephemeral"]:
        body = {key: found[key] for key in ("config", "devices", "profiles", "architecture")}
        body |= {"ephemeral": False, "description": found.get("description", "")}
        client.change("PUT", f"/1.0/instances/{quote(instance)}", body)
        print("The instance is not ephemeral any more, so that it can be stopped", file=sys.stderr)
    change_state(client, instance, {"action": "stop", "timeout": -1, "stateful": False})
    return True
