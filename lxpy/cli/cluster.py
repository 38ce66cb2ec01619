"""`lxpy cluster`: the verbs of `lxc cluster`, which say that this server is in none."""

from __future__ import annotations

from lxpy.cli.declare import Group, argument, command, flag, format_option, group, option
from lxpy.cli.session import Session
from lxpy.errors import BadRequest

cluster = group(None, "cluster", "Manage cluster members; lxpy runs on single servers.")
_groups = group(cluster, "group", "Manage cluster groups.")
_roles = group(cluster, "role", "Manage cluster roles.")


_MEMBER = "[<remote>:]<member>"
#: group, verb, what it does, usage, flags
_VERBS: tuple[tuple[Group, str, str, str, tuple[str, ...]], ...] = (
    (cluster, "add", "Request a join token for adding a cluster member", _MEMBER, ("--name=",)),
    (cluster, "edit", "Edit cluster member configurations as YAML", _MEMBER, ()),
    (cluster, "enable", "Enable clustering on a single server", "[<remote>:] <name>", ()),
    (cluster, "evacuate", "Evacuate cluster member", _MEMBER, ("--force",)),
    (cluster, "get", "Get values for cluster member configuration keys", f"{_MEMBER} <key>", ()),
    (cluster, "list", "List all the cluster members", "[<remote>:]", ("format",)),
    (cluster, "list-tokens", "List active join tokens", "[<remote>:]", ("format",)),
    (cluster, "remove", "Remove a member from the cluster", _MEMBER, ("-f --force", "--yes")),
    (cluster, "rename", "Rename a cluster member", f"{_MEMBER} <new-name>", ()),
    (cluster, "restore", "Restore cluster member", _MEMBER, ("--force",)),
    (cluster, "revoke-token", "Revoke cluster member join token", _MEMBER, ()),
    (cluster, "set", "Set configuration keys of a member", f"{_MEMBER} <key>=<value>...", ()),
    (cluster, "show", "Show details of a cluster member", _MEMBER, ()),
    (cluster, "unset", "Unset a cluster member's configuration keys", f"{_MEMBER} <key>", ()),
    (cluster, "update-certificate", "Update cluster certificate", "[<remote>:] <cert> <key>", ()),
    (_roles, "add", "Add roles to a cluster member", f"{_MEMBER} <role>", ()),
    (_roles, "remove", "Remove roles from a cluster member", f"{_MEMBER} <role>", ()),
    (_groups, "assign", "Assign sets of groups to cluster members", f"{_MEMBER} <group>", ()),
    (_groups, "create", "Create a cluster group", "[<remote>:]<group>", ()),
    (_groups, "delete", "Delete a cluster group", "[<remote>:]<group>", ()),
    (_groups, "edit", "Edit a cluster group", "[<remote>:]<group>", ()),
    (_groups, "list", "List all the cluster groups", "[<remote>:]", ("format",)),
    (_groups, "remove", "Remove member from group", f"{_MEMBER} <group>", ()),
    (_groups, "rename", "Rename a cluster group", "[<remote>:]<group> <new-name>", ()),
    (_groups, "show", "Show cluster group configurations", "[<remote>:]<group>", ()),
)  # fmt: skip


def _declare(parent: Group, verb: str, help: str, usage: str, flags: tuple[str, ...]) -> None:
    def refuse(session: Session, **_given: object) -> None:
        raise BadRequest(
            "LXD server isn't part of a cluster (lxpy manages one server; copy and move go "
            'between servers by "lxpy remote")'
        )

    declared = argument("words", usage, nargs=-1, required=False)(refuse)
    for each in flags:
        if each == "format":
            declared = format_option()(declared)
        elif each.endswith("="):
            declared = option(each.removesuffix("="), default="", help="Name")(declared)
        else:
            declared = flag(*each.split(), help="Accepted for compatibility")(declared)
    command(parent, verb, help=f"{help}.")(declared)


for _verb in _VERBS:
    _declare(*_verb)
