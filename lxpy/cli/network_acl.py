"""`lxpy network acl`; `zone` and `peer`, which are refused."""

from __future__ import annotations

import sys

from lxpy.cli.declare import Group, argument, command, flag, format_option, group, names, option
from lxpy.cli.network_forward import without
from lxpy.cli.objects import Kind, declare_common
from lxpy.cli.render import ordered, show
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
    show(form, ("NAME", "DESCRIPTION", "USED BY"), ordered(rows), found)


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


_VERBS = "create delete edit get list set show unset"


def _refuse(parent: Group, why: str, extension: str, verbs: str = _VERBS) -> Group:
    """Declare verbs of a noun that our servers do not have."""
    for verb in verbs.split():

        def refuse(session: Session, **_given: object) -> None:
            raise NotSupported(f'The server is missing the required "{extension}" API extension')

        declared = argument("words", "[...]", nargs=-1, required=False)(refuse)
        if verb == "list":
            declared = format_option()(declared)
        elif verb == "add":
            declared = option("--ttl", help="Entry TTL")(declared)
        command(parent, verb, help=f"Not supported: {why}.",
                context_settings={"ignore_unknown_options": True})(declared)  # fmt: skip
    return parent


_PEERS, _ZONES = "network peerings need OVN", "servers of lxpy answer for no DNS zones"
_PEER, _ZONE, _RECORDS = "network_peer", "network_dns", "network_dns_records"
peer = _refuse(group(None, "peer", "Manage network peerings."), _PEERS, _PEER)
zone = _refuse(group(None, "zone", "Manage network zones."), _ZONES, _ZONE)
_record = group(zone, "record", "Manage network zone records.")
_refuse(_record, _ZONES, _RECORDS)
_entry = group(_record, "entry", "Manage network zone record entries.")
_refuse(_entry, _ZONES, _RECORDS, "add remove")
