"""`lxpy snapshot`, LXD's verb and a noun with verbs of its own; and `lxpy restore`."""

from __future__ import annotations

from typing import Any

import click

from lxpy.cli import snapshot_rows, snapshots
from lxpy.cli.declare import Group, argument, command, flag, format_option, names
from lxpy.cli.render import show
from lxpy.cli.session import Session
from lxpy.client.transport import quote

_INSTANCE = "[<remote>:]<instance>"


class _VerbAndNoun(Group):
    """Makes a snapshot when its first word is none of its own verbs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.list_commands(ctx), *ctx.help_option_names):
            args = ["create", *args]
        return super().parse_args(ctx, args)


snapshot = _VerbAndNoun(
    "snapshot",
    lazy={
        "mount": "lxpy.cli.snapshot_mount:mount",
        "umount": "lxpy.cli.snapshot_mount:umount",
    },
    no_args_is_help=True,
    short_help="Create instance snapshots, look at them",
    help="""Create instance snapshots, and see what is in them.

    \b
    lxpy snapshot [<remote>:]<instance> [<snapshot name>]
    lxpy snapshot list|delete|rename|diff|mount|umount ...

    The first form is that of lxc. Where an instance is called like one of the verbs, write
    "lxpy snapshot create list", or "lxpy snapshot -- list".
    """,
)


@command(snapshot, "create", short_help="Create instance snapshots")
@argument("instance", _INSTANCE, required=True, shell_complete=names("instances"))
@argument("name", "[<snapshot name>]")
@flag("--no-expiry", help="Ignore any configured auto-expiry for the instance")
@flag("--reuse", help="If the snapshot name already exists, delete and create a new one")
@flag("--stateful", help="Whether or not to snapshot the instance's running state")
def create(session: Session, **given: Any) -> int:
    """Create an instance snapshot; without a name it gets one by snapshots.pattern."""
    return snapshots.snapshot(session, **given)


@command(snapshot, "list", help="List the snapshots of an instance.")
@argument("instance", _INSTANCE, required=True, shell_complete=names("instances"))
@format_option()
def list_snapshots(session: Session, instance: str, form: str) -> None:
    client, name = session.server(instance)
    found = client.get(f"/1.0/instances/{quote(name)}/snapshots", recursion="1")
    show(form, snapshot_rows.HEADER, [snapshot_rows.row(each) for each in found], found)


@command(snapshot, "delete", help="Delete snapshots of an instance.")
@argument("instance", _INSTANCE, required=True, shell_complete=names("instances"))
@argument("chosen", "<snapshot>...", nargs=-1, required=True)
def delete(session: Session, instance: str, chosen: tuple[str, ...]) -> None:
    client, name = session.server(instance)
    for each in chosen:
        client.change("DELETE", _path(name, each))


@command(snapshot, "rename", help="Rename a snapshot.")
@argument("instance", _INSTANCE, required=True, shell_complete=names("instances"))
@argument("old", "<snapshot>", required=True)
@argument("new", "<new name>", required=True)
def rename(session: Session, instance: str, old: str, new: str) -> None:
    client, name = session.server(instance)
    client.change("POST", _path(name, old), {"name": new})


@command(snapshot, "diff", short_help="Show what is different since a snapshot")
@argument("instance", _INSTANCE, required=True, shell_complete=names("instances"))
@argument("old", "<snapshot>", required=True)
@argument("new", "[<snapshot>]")
@format_option()
def diff(session: Session, instance: str, old: str, new: str | None, form: str) -> None:
    """Show which files are different in another snapshot, or in the instance as it is now.

    What files hold is not compared: one counts as modified when its size, time, owner or mode is
    another. What is not printable in a name is shown as \\xNN, a backslash as two.
    """
    client, name = session.server(instance)
    found = client.get(f"{_path(name, old)}/diff", to=new or "")
    rows = [
        [each["what"].upper(), each["type"], ", ".join(each["how"]), each["path"]]
        for each in found["changes"]
    ]
    show(form, ("CHANGE", "TYPE", "OF", "PATH"), rows, found)
    if found["truncated"]:
        total = sum(found[key] for key in ("added", "removed", "modified"))
        click.echo(f"The first {len(rows)} of {total} changes are shown", err=True)


@command(None, "restore", short_help="Restore instances from snapshots")
@argument("instance", _INSTANCE, required=True, shell_complete=names("instances"))
@argument("name", "<snapshot>", required=True)
@flag("--stateful", help="Restore the instance's running state, or fail: snapshots that have it")
@flag("--stateless", help="Restore the disk alone")
def restore(session: Session, **given: Any) -> int:
    """Restore an instance from a snapshot; later snapshots stay.

    The running state is restored, too, where the snapshot has it. An instance
    that runs is stopped by force, and started again.
    """
    return snapshots.restore(session, **given)


def _path(name: str, chosen: str) -> str:
    """Return the path of a snapshot, which may be written with its instance."""
    return f"/1.0/instances/{quote(name)}/snapshots/{quote(chosen.removeprefix(f'{name}/'))}"
