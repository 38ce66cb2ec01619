"""`lxpy file mount`: an instance's files on a local directory, by sshfs."""

from __future__ import annotations

import shutil
import subprocess

from lxpy.cli.declare import argument, command, flag, option
from lxpy.cli.session import Session
from lxpy.client.client import Client
from lxpy.client.transport import Connection, quote, refusal
from lxpy.errors import BadRequest, MissingTool

_SWITCHING = 101


@command(None, "mount", short_help="Mount files from instances")
@argument("source", "[<remote>:]<instance>[/<path>]", required=True)
@argument("target", "<target path>", required=True)
@option("--listen", default="", metavar="ADDRESS", help="Not supported: needs an SSH server here")
@option("--auth-user", default="", metavar="NAME", help="Not supported: belongs to --listen")
@flag("--no-auth", help="Not supported: belongs to --listen")
def mount(
    session: Session, source: str, target: str, listen: str, auth_user: str, no_auth: bool
) -> int:
    """Mount files from instances; until Ctrl-C, or umount.

    Example: lxpy file mount foo/root fooroot
    """
    if listen or auth_user or no_auth:
        raise BadRequest(
            "An SSH server of its own is not supported: mount on a directory, and let the host's "
            "SSH server show that"
        )
    client, rest = session.server(source)
    instance, _, path = rest.partition("/")
    if "@" in instance:
        raise BadRequest("To look at a snapshot, use: lxpy snapshot mount")
    if shutil.which("sshfs") is None:
        raise MissingTool("sshfs", "sshfs", "mounting files")
    connection = _connect(client, instance)
    session.say(f"sshfs mounting {rest} on {target}\nPress ctrl+c to finish")
    words = ("sshfs", "-f", "-o", "slave", f"{instance}:/{path}", target)
    try:
        return subprocess.run(
            words, stdin=connection.fileno(), stdout=connection.fileno(), check=False
        ).returncode
    except KeyboardInterrupt:
        return 0
    finally:
        connection.close()


def _connect(client: Client, instance: str) -> Connection:
    """Return a connection that speaks SFTP from here on. Raises Refused, Unreachable."""
    connection = client.connect()
    target = client.target(f"/1.0/instances/{quote(instance)}/sftp")
    connection.send("GET", target, {"Connection": "Upgrade", "Upgrade": "sftp"})
    response = connection.response()
    if response.status != _SWITCHING:
        raise refusal(response.status, response.read().decode(errors="replace"))
    return connection
