"""`lxpy snapshot mount` and `umount`: snapshots on directories of this host."""

from __future__ import annotations

import os

import click

from lxpy.cli.declare import argument, command, format_option
from lxpy.cli.render import show
from lxpy.cli.session import Session
from lxpy.client.transport import quote

_MOUNTS = "/1.0/lxpy/snapshot-mounts"


@command(None, "mount", short_help="Mount a snapshot on a directory of this host")
@argument("words", "[<instance> <snapshot> <directory>]", nargs=-1)
@format_option()
def mount(session: Session, words: tuple[str, ...], form: str) -> None:
    """Mount a snapshot read-only on an empty directory of this host, until it is unmounted.

    Owners are shown by the numbers they have in the instance. The snapshot cannot be deleted
    meanwhile. Without arguments, list what is mounted.
    """
    if not words:
        _list(session, form)
        return
    if len(words) != 3:
        raise click.UsageError("Invalid number of arguments", click.get_current_context())
    client, name = session.server(words[0])
    path = f"/1.0/instances/{quote(name)}/snapshots/{quote(words[1])}/mount"
    client.ask("POST", path, {"directory": os.path.abspath(words[2])})


def _list(session: Session, form: str) -> None:
    client, _ = session.server("")
    found = client.get(_MOUNTS)
    rows = [[each["instance"], each["snapshot"], each["directory"]] for each in found]
    show(form, ("INSTANCE", "SNAPSHOT", "DIRECTORY"), rows, found)


@command(None, "umount", help="Unmount a snapshot from a directory of this host.")
@argument("directory", "<directory>", required=True)
def umount(session: Session, directory: str) -> None:
    client, _ = session.server("")
    place = os.path.realpath(directory)
    client.ask("DELETE", _MOUNTS, parameters={"directory": place})
