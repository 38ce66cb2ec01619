"""`lxpy network acl`; `zone` and `peer`, which are refused."""

from __future__ import annotations

import sys

from lxpy.cli.declare import Group, argument, command, flag, format_option, group, names
from lxpy.cli.network_forward import without
from lxpy.cli.objects import Kind, declare_common
from lxpy.cli.render import show
from lxpy.cli.session import Session
from lxpy.cli.target import pairs
from lxpy.client.client import Json
from lxpy.errors import BadRequest, NotSupported

acl = group(None, "acl", "Manage network ACLs.")
KIND = Kind(
    "network ACL", "ACL", "network-acls", ("description", "config", "ingress", "egress")
)  # fmt: skip
declare_common(acl, KIND)
_name = argument("name", KIND.metavar, shell_complete=names(KIND.collection))
_DIRECTIONS = ("ingress", "egress")
_FIELDS = (
    "action", "source", "destination", "protocol", "source_port", "destination_port", "icmp_type",
    "icmp_code", "description", "state",
)  # fmt: skip


@command(acl, "list", help="List available network ACLS.")
@argument("remote", "[<remote>:]")
@format_option()
def list_acls(session: Session, remote: str | None, form: str) -> None:
    client, _ = session.server(remote or "")
    found = client.get("/1.0/network-acls", recursion="1")
    rows = [[each["name"], each["description"], str(len(each["used_by"] or []))] for each in found]
    show(form, ("NAME", "DESCRIPTION", "USED BY"), sorted(rows), found)


@command(acl, "create", help="Create new network ACLs.")
@argument("name", KIND.metavar)
@argument("words", "[key=value...]", nargs=-1)
def create(session: Session, name: str, words: tuple[str, ...]) -> None:
    client, name = KIND.locate(session, name)
    body = {"name": name, "description": "", "config": pairs(words), "ingress": [], "egress": []}
    client.change("POST", "/1.0/network-acls", body)
    session.say(f"Network ACL {name} created")


@command(acl, "show-log", help="Show network ACL log.")
@_name
def show_log(session: Session, name: str) -> None:
    client, name = KIND.locate(session, name)
    sys.stdout.write(client.download(f"{KIND.path(name)}/log").read().decode(errors="replace"))


rule = group(acl, "rule", "Manage network ACL rules.")


def _rules(found: Json, direction: str) -> list[Json]:
    if direction not in _DIRECTIONS:
        raise BadRequest("The direction argument must be one of: ingress, egress")
    rules: list[Json] = found[direction] or []
    return rules


def _fields(words: tuple[str, ...]) -> dict[str, str]:
    found = pairs(words)
    for key in found:
        if key not in _FIELDS:
            raise BadRequest(f"Unknown key: {key}")
    return found


@command(rule, "add", help="Add rules to an ACL.")
@_name
@argument("direction", "<direction>")
@argument("words", "<key>=<value>...", nargs=-1, required=True)
def add_rule(session: Session, name: str, direction: str, words: tuple[str, ...]) -> None:
    client, name = KIND.locate(session, name)
    found, etag = client.fetch(KIND.path(name))
    found[direction] = [*_rules(found, direction), {"state": "enabled", **_fields(words)}]
    KIND.put(client, name, found, etag)


@command(rule, "remove", help="Remove rules from an ACL.")
@_name
@argument("direction", "<direction>")
@argument("words", "<key>=<value>...", nargs=-1, required=False)
@flag("--force", help="Remove all rules that match")
def remove_rule(
    session: Session, name: str, direction: str, words: tuple[str, ...], force: bool
) -> None:
    client, name = KIND.locate(session, name)
    found, etag = client.fetch(KIND.path(name))
    wanted = _fields(words)

    def matches(each: Json) -> bool:
        return all(each.get(key, "") == value for key, value in wanted.items())

    found[direction] = without(_rules(found, direction), matches, "rule(s)", force=force)
    KIND.put(client, name, found, etag)


def _refused(name: str, noun: str, extension: str, verbs: str) -> Group:
    """Declare a noun that servers like ours do not have."""
    made = group(None, name, f"Manage network {noun}.")

    for verb in verbs.split():

        @command(made, verb, help=f"Not supported: servers without OVN have no network {noun}.",
                 context_settings={"ignore_unknown_options": True})  # fmt: skip
        @argument("words", "[...]", nargs=-1)
        def refuse(session: Session, words: tuple[str, ...]) -> None:
            raise NotSupported(f'The server is missing the required "{extension}" API extension')

    return made


_VERBS = "create delete edit get list set show unset"
zone = _refused("zone", "zones", "network_dns", f"{_VERBS} record")
peer = _refused("peer", "peerings", "network_peer", _VERBS)
