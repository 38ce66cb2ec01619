"""`lxpy network`."""

from __future__ import annotations

from lxpy.cli.declare import argument, command, format_option, group, names, option, target_option
from lxpy.cli.devices import Devices, Owner
from lxpy.cli.making import nic
from lxpy.cli.network_acl import acl, peer, zone
from lxpy.cli.network_forward import forward
from lxpy.cli.objects import Kind, declare_common
from lxpy.cli.render import ordered, show
from lxpy.cli.session import Session
from lxpy.cli.target import pairs
from lxpy.cli.texts import yes
from lxpy.client.client import Json
from lxpy.errors import BadRequest, NotFound
from lxpy.units import format_size_decimal

network = group(None, "network", "Manage and attach instances to networks.")
KIND = Kind("network", "network", "networks", ("config", "description"))
declare_common(network, KIND)
for noun in (acl, forward, peer, zone):
    network.add_command(noun)


@command(network, "list", help="List available networks.")
@argument("remote", "[<remote>:]")
@format_option()
def list_networks(session: Session, remote: str | None, form: str) -> None:
    client, _ = session.server(remote or "")
    found = client.get("/1.0/networks", recursion="1")
    found.sort(key=lambda each: str(each["name"]))
    header = ("NAME", "TYPE", "MANAGED", "IPV4", "IPV6", "DESCRIPTION", "USED BY", "STATE")
    rows = [
        [
            each["name"],
            each["type"],
            yes(each["managed"]),
            (each["config"] or {}).get("ipv4.address", ""),
            (each["config"] or {}).get("ipv6.address", ""),
            each["description"],
            str(len(each["used_by"] or [])),
            str(each["status"]).upper(),
        ]
        for each in found
        if each["type"] not in ("loopback", "unknown")
    ]
    show(form, header, ordered(rows), found)


@command(network, "create", help="Create new networks.")
@argument("name", "[<remote>:]<network>")
@argument("words", "[key=value...]", nargs=-1)
@option("-t", "--type", "kind", default="", metavar="TYPE", help='Network type (default "bridge")')
@target_option()
def create(session: Session, name: str, words: tuple[str, ...], kind: str) -> None:
    client, name = KIND.locate(session, name)
    body = {"name": name, "type": kind or "bridge", "description": "", "config": pairs(words)}
    client.change("POST", "/1.0/networks", body)
    session.say(f"Network {name} created")


@command(network, "info", help="Get runtime information on networks.")
@argument("name", "[<remote>:]<network>", shell_complete=names("networks"))
@target_option()
def info(session: Session, name: str) -> None:
    client, name = KIND.locate(session, name)
    _show_state(name, client.get(f"{KIND.path(name)}/state"))


def _show_state(name: str, state: Json) -> None:
    print(f"Name: {name}")
    print(f"MAC address: {state['hwaddr']}")
    print(f"MTU: {state['mtu']}")
    print(f"State: {state['state']}")
    print(f"Type: {state['type']}")
    if state["addresses"]:
        print("\nIP addresses:")
        for each in state["addresses"]:
            print(f"  {each['family']}\t{each['address']}/{each['netmask']} ({each['scope']})")
    if counters := state.get("counters"):
        print("\nNetwork usage:")
        print(f"  Bytes received: {format_size_decimal(counters['bytes_received'])}")
        print(f"  Bytes sent: {format_size_decimal(counters['bytes_sent'])}")
        print(f"  Packets received: {counters['packets_received']}")
        print(f"  Packets sent: {counters['packets_sent']}")
    if bridge := state.get("bridge"):
        print("\nBridge:")
        print(f"  ID: {bridge['id']}")
        print(f"  STP: {str(bridge['stp']).lower()}")
        print(f"  Forward delay: {bridge['forward_delay']}")
        print(f"  Default VLAN ID: {bridge['vlan_default']}")
        print(f"  VLAN filtering: {str(bridge['vlan_filtering']).lower()}")
        print(f"  Upper devices: {', '.join(bridge['upper_devices'] or [])}")


@command(network, "list-leases", help="List DHCP leases.")
@argument("name", "[<remote>:]<network>", shell_complete=names("networks"))
@format_option()
def list_leases(session: Session, name: str, form: str) -> None:
    client, name = KIND.locate(session, name)
    found = client.get(f"{KIND.path(name)}/leases") or []
    rows = [
        [each["hostname"], each["hwaddr"], each["address"], str(each["type"]).upper()]
        for each in found
    ]
    show(form, ("HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"), ordered(rows), found)


def _declare_attachments(owner: Owner, suffix: str) -> None:
    """Declare attach and detach for instances, attach-profile and detach-profile."""

    @command(network, f"attach{suffix}", help=f"Attach network interfaces to {owner.collection}.")
    @argument("name", "[<remote>:]<network>", shell_complete=names("networks"))
    @argument("target", f"<{owner.word}>", shell_complete=names(owner.collection))
    @argument("device", "[<device name>]")
    @argument("interface", "[<interface name>]")
    def attach(
        session: Session, name: str, target: str, device: str | None, interface: str | None
    ) -> None:
        client, network_name = KIND.locate(session, name)
        card = nic(client, network_name, interface or "")

        def change(found: Json, devices: Devices) -> None:
            if (device or network_name) in devices:
                raise BadRequest("The device already exists")
            devices[device or network_name] = card

        owner.update(session, _beside(session, name, target), change)

    @command(network, f"detach{suffix}", help=f"Detach network interfaces from {owner.collection}.")
    @argument("name", "[<remote>:]<network>", shell_complete=names("networks"))
    @argument("target", f"<{owner.word}>", shell_complete=names(owner.collection))
    @argument("device", "[<device name>]")
    def detach(session: Session, name: str, target: str, device: str | None) -> None:
        _, network_name = KIND.locate(session, name)

        def change(found: Json, devices: Devices) -> None:
            del devices[_device_on(devices, network_name, device)]

        owner.update(session, _beside(session, name, target), change)


def _beside(session: Session, first: str, second: str) -> str:
    """Return the second name on the remote of the first."""
    remote, _ = session.parse(first)
    return f"{remote.name}:{second}"


def _device_on(devices: Devices, network_name: str, device: str | None) -> str:
    """Return which device is on a network. Raises NotFound, BadRequest."""
    if device is not None:
        if device not in devices:
            raise NotFound("The specified device doesn't exist")
        if network_name not in (devices[device].get("network"), devices[device].get("parent")):
            raise BadRequest("The specified device doesn't match the network")
        return device
    found = [
        name
        for name, each in devices.items()
        if each.get("type") == "nic" and network_name in (each.get("network"), each.get("parent"))
    ]
    if not found:
        raise NotFound("No device found for this network")
    if len(found) > 1:
        raise BadRequest("More than one device matches, specify the device name")
    return found[0]


_declare_attachments(Owner("instance"), "")
_declare_attachments(Owner("profile"), "-profile")
