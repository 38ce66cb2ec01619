"""`lxpy remote`: the servers that the user may name."""

from __future__ import annotations

import click

from lxpy.cli import remote_adding
from lxpy.cli.declare import argument, command, flag, format_option, group
from lxpy.cli.render import show as render
from lxpy.cli.session import Session
from lxpy.client.remotes import IMAGES

remote = group(None, "remote", "Manage the list of remote servers.")
_HEADER = ("NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC", "GLOBAL")


@command(remote, "add", short_help="Add new remote servers")
@argument("words", "[<remote>] <IP|FQDN|URL|token>", nargs=-1, required=True)
@flag("--accept-certificate", help="Accept certificate")
@click.option("--auth-type", default="", metavar="TYPE", help="Server authentication type (tls)")
@click.option("--domain", default="", hidden=True, help="Belongs to authentication by candid")
@click.option("--password", default="", metavar="PASSWORD", help="Remote admin password")
@click.option(
    "--protocol", default="lxd", metavar="PROTOCOL", help="Server protocol (lxd or simplestreams)"
)
@flag("--public", help="Public image server")
def add(session: Session, words: tuple[str, ...], domain: str, **flags: object) -> None:
    """Add new remote servers.

    A token of the server's administrator (lxpy config trust add --name NAME) says all there is to
    know; otherwise the server's fingerprint is to be confirmed, and its password is asked for.

    \b
    lxpy remote add far 192.0.2.1
    lxpy remote add far eyJjbGllbnRfbmFtZSI6...
    lxpy remote add mirror https://images.example.com --protocol=simplestreams
    """
    if len(words) > 2:
        raise click.UsageError("Invalid number of arguments")
    wish = remote_adding.Wish(words[0], words[-1], **flags)  # type: ignore[arg-type]  # as declared
    remote_adding.add(session, wish)


@command(remote, "list", help="List the available remotes.")
@format_option()
def list_remotes(session: Session, form: str) -> None:
    default = session.remotes.default
    rows, data = [], {}
    for each in session.remotes.all():
        auth = "file access" if each.is_local else each.auth_type or "none"
        if not each.is_local and not each.public and not each.auth_type:
            auth = "tls"
        current = " (current)" if each.name == default else ""
        rows.append(
            [
                f"{each.name}{current}",
                each.address,
                each.protocol,
                auth,
                "YES" if each.public else "NO",
                "YES" if each.static else "NO",
                "NO",
            ]
        )
        data[each.name] = each.entry() if form == "yaml" else {
            "Addr": each.address, "AuthType": each.auth_type, "Domain": "",
            "Project": each.project, "Protocol": each.protocol, "Public": each.public,
            "Global": False, "Static": each.static,
        }  # fmt: skip
    render(form, _HEADER, rows, data)


@command(remote, "get-default", help="Show the default remote.")
def get_default(session: Session) -> None:
    print(session.remotes.default)


@command(remote, "switch", help="Switch the default remote.")
@argument("name", "<remote>")
def switch(session: Session, name: str) -> None:
    session.remotes.require(name)
    if name == IMAGES:
        raise click.UsageError(f'The remote "{IMAGES}" is no server: name one that has instances')
    session.remotes.default = name
    session.remotes.save()


@command(remote, "rename", help="Rename remotes.")
@argument("name", "<remote>")
@argument("new", "<new-name>")
def rename(session: Session, name: str, new: str) -> None:
    session.remotes.rename(name, new)


@command(remote, "remove", help="Remove remotes.")
@argument("name", "<remote>")
def remove(session: Session, name: str) -> None:
    session.remotes.remove(name)


@command(remote, "set-url", help="Set the URL for the remote.")
@argument("name", "<remote>")
@argument("url", "<URL>")
def set_url(session: Session, name: str, url: str) -> None:
    session.remotes.require(name, changing=True).address = url
    session.remotes.save()


remote.other_names = {"set-default": "switch", "rm": "remove"}
