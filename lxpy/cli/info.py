"""`lxpy info`: an instance, or the server."""

from __future__ import annotations

import sys

from lxpy.cli import texts
from lxpy.cli.declare import argument, command, flag, names, target_option
from lxpy.cli.session import Session
from lxpy.cli.yamltext import dump
from lxpy.client.client import Client, Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, Refused
from lxpy.units import format_size, format_size_decimal

_LOG_LINES = 100


@command(None, "info", short_help="Show instance or server information")
@argument("instance", "[<remote>:][<instance>]", shell_complete=names("instances"))
@flag("--resources", help="Show the resources available to the server")
@flag("--show-log", help="Show the instance's last 100 log lines")
@flag("--snapshots", help="Show the instance's snapshots with their sizes, and nothing else")
@target_option()
def info(
    session: Session, instance: str | None, resources: bool, show_log: bool, snapshots: bool
) -> None:
    """Show instance or server information.

    \b
    lxpy info [<remote>:]<instance> [--show-log|--snapshots]
    lxpy info [<remote>:] [--resources]
    """
    client, name = session.server(instance or "")
    if snapshots:
        if not name:
            raise BadRequest("Name the instance whose snapshots to show")
        _show_sizes(client.get(f"/1.0/instances/{quote(name)}/snapshots", recursion="1"))
    elif name:
        _show_instance(client, name)
        if show_log:
            _show_log(client, name)
    elif resources:
        sys.stdout.write(dump(client.get("/1.0/resources")))
    else:
        sys.stdout.write(dump(client.get("/1.0")))


def _show_instance(client: Client, name: str) -> None:
    found = client.get(f"/1.0/instances/{quote(name)}", recursion="1")
    state = found.get("state") or client.get(f"/1.0/instances/{quote(name)}/state")
    print(f"Name: {found['name']}")
    if found.get("description"):
        print(f"Description: {found['description']}")
    print(f"Status: {str(found['status']).upper()}")
    if not state.get("pid") and (reason := found["config"].get("volatile.last_state.exit")):
        print(f"Ended: {reason}")
    kind = f"{found['type']} (ephemeral)" if found["ephemeral"] else found["type"]
    print(f"Type: {kind}")
    print(f"Architecture: {found['architecture']}")
    if (found.get("location") or "none") != "none":
        print(f"Location: {found['location']}")
    if state.get("pid"):
        print(f"PID: {state['pid']}")
    for title, key in (("Created", "created_at"), ("Last Used", "last_used_at")):
        if moment := texts.date(found[key]):
            print(f"{title}: {moment}")
    if state.get("pid"):
        print("\nResources:")
        _show_usage(state)
    _show_snapshots(found.get("snapshots") or [])


def _show_usage(state: Json) -> None:
    print(f"  Processes: {state['processes']}")
    disks = [(n, d["usage"]) for n, d in (state.get("disk") or {}).items() if d.get("usage")]
    if disks:
        print("  Disk usage:")
        for name, usage in disks:
            print(f"    {name}: {format_size(usage)}")
    if (cpu := state.get("cpu")) and cpu.get("usage") is not None:
        print(f"  CPU usage:\n    CPU usage (in seconds): {cpu['usage'] // 1_000_000_000}")
    memory = state.get("memory") or {}
    shown = [
        (title, memory.get(key))
        for title, key in (
            ("Memory (current)", "usage"),
            ("Memory (peak)", "usage_peak"),
            ("Swap (current)", "swap_usage"),
            ("Swap (peak)", "swap_usage_peak"),
        )
    ]
    if any(value for _, value in shown):
        print("  Memory usage:")
        for title, value in shown:
            if value:
                print(f"    {title}: {format_size(value)}")
    if state.get("network"):
        print("  Network usage:")
        for name, card in sorted(state["network"].items()):
            _show_card(name, card)


def _show_card(name: str, card: Json) -> None:
    print(f"    {name}:")
    print(f"      Type: {card['type']}")
    print(f"      State: {str(card['state']).upper()}")
    for title, key in (("Host interface", "host_name"), ("MAC address", "hwaddr"), ("MTU", "mtu")):
        if card.get(key):
            print(f"      {title}: {card[key]}")
    counters = card["counters"]
    print(f"      Bytes received: {format_size_decimal(counters['bytes_received'])}")
    print(f"      Bytes sent: {format_size_decimal(counters['bytes_sent'])}")
    print(f"      Packets received: {counters['packets_received']}")
    print(f"      Packets sent: {counters['packets_sent']}")
    print("      IP addresses:")
    for address in card["addresses"] or []:
        family = f"{address['family']}:"
        print(f"        {family:<6} {address['address']}/{address['netmask']} ({address['scope']})")


def _show_snapshots(snapshots: list[Json]) -> None:
    if not snapshots:
        return
    from lxpy.cli.render import table

    rows = [
        [
            str(each["name"]).rpartition("/")[2],
            texts.date(each["created_at"]),
            texts.date(each.get("expires_at") or ""),
            texts.yes(each["stateful"]),
        ]
        for each in snapshots
    ]
    print("\nSnapshots:")
    sys.stdout.write(table(("NAME", "TAKEN AT", "EXPIRES AT", "STATEFUL"), rows))


def _show_sizes(snapshots: list[Json]) -> None:
    from lxpy.cli import snapshot_rows
    from lxpy.cli.render import table

    sys.stdout.write(table(snapshot_rows.HEADER, [snapshot_rows.row(each) for each in snapshots]))


def _show_log(client: Client, name: str) -> None:
    """Print the end of the instance's log: LXD's is lxc.log, ours may have another name."""
    base = f"/1.0/instances/{quote(name)}/logs"
    try:
        text = client.download(f"{base}/lxc.log").read().decode(errors="replace")
    except Refused as error:
        if error.code != 404:
            raise
        text = ""
    lines = text.splitlines()[-_LOG_LINES:]
    print("\nLog:\n\n" + "\n".join(lines) + "\n" if lines else "\nLog:\n\n(empty)\n")
