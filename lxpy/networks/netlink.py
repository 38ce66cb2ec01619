"""Changes links, addresses, routes and queues of the host: the only user of pyroute2.

One socket is kept open. What is only looked at goes through `interfaces`, which is faster.
"""

from __future__ import annotations

import errno
import ipaddress
import random
import socket
from collections.abc import Collection, Mapping
from ipaddress import IPv4Interface, IPv6Interface
from types import TracebackType
from typing import Any, Self

from pyroute2 import AsyncIPRoute, NetlinkError  # type: ignore[import-untyped]

from lxpy.errors import Conflict, Failed, LxpyError, NotSupported
from lxpy.networks.addresses import Subnet, host_end_hwaddr
from lxpy.networks.ends import Inside, Veth, VirtualFunction
from lxpy.networks.interfaces import FIRST_INDEX

_TRIES = 16
_INDEXES = 1 << 30
_NODAD = 0x02
_NO_LINK_LOCAL = 1
_PROXY = 0x08
_PERMANENT = 0x80
_BRIDGE_PORT_VLAN_UNTAGGED, _BRIDGE_PORT_VLAN_PVID = 0x4, 0x2
_VLAN_GVRP = 0x2
_IPVLAN_MODES = {"l2": 0, "l3s": 2}
_TAKEN = (errno.EEXIST, errno.EBUSY)
_GONE = (errno.ENODEV, errno.ENXIO)


class NoSuchLink(Failed):
    """An interface of the host is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(f'Network interface "{name}" does not exist on this host')


class Netlink:
    """An open netlink socket."""

    def __init__(self) -> None:
        self._route: Any = AsyncIPRoute()
        self._random = random.SystemRandom()

    async def __aenter__(self) -> Self:
        await self._route.setup_endpoint()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the socket."""
        self._route.close()

    # Links

    async def make_bridge(self, name: str, hwaddr: str, mtu: int, alias: str) -> None:
        """Make a bridge that is up, or set an existing one so. Raises Failed."""
        with _explained(f"making bridge {name}"):
            try:
                await self._route.link("add", ifname=name, kind="bridge", address=hwaddr)
            except NetlinkError as error:
                if error.code not in _TAKEN:
                    raise
            # Only an MTU that is set later stays when ports come and go.
            await self._route.link(
                "set", ifname=name, mtu=mtu, address=hwaddr, IFLA_IFALIAS=alias, state="up"
            )
            try:  # all are on VLAN 1 until a nic says otherwise
                await self._route.link("set", ifname=name, kind="bridge", br_vlan_filtering=1)
            except NetlinkError as error:
                if error.code != errno.EOPNOTSUPP:  # a kernel without that
                    raise

    async def delete_link(self, name: str) -> bool:
        """Delete an interface; False when there is none. Takes tens of milliseconds."""
        with _explained(f"deleting interface {name}"):
            try:
                await self._route.link("del", ifname=name)
            except NetlinkError as error:
                if error.code not in _GONE:
                    raise
                return False
            return True

    async def set_master(self, name: str, bridge: str) -> None:
        """Make an interface a port of a bridge ("" takes it out). Raises Failed, NoSuchLink."""
        master = index(bridge) if bridge else 0
        with _explained(f"joining {name} to {bridge or 'no bridge'}"):
            await self._route.link("set", index=index(name), master=master, state="up")

    async def make_veth(self, veth: Veth) -> str:
        """Make a pair of interfaces and return the name of the host's end, which joins later.

        The guest's end is made in the guest's namespace, under an index that is unique on this
        host and most likely everywhere: a checkpoint can be restored only where its index is free.
        Raises Failed, Conflict (host_name is taken).
        """
        for _ in range(_TRIES):
            host = veth.host_name or f"veth{self._random.getrandbits(32):08x}"
            if await self._add_pair(veth, host):
                return host
            if veth.host_name and exists(host):
                raise Conflict(
                    f'Network interface "{host}" already exists on this host: change host_name'
                )
        raise Failed(
            f'Failed making interface "{veth.name}": is there one of that name already? '
            f"{_TRIES} pairs of names and indexes are all taken"
        )

    async def _add_pair(self, veth: Veth, host: str) -> bool:
        """Make a pair, up inside; False when a name or the index is taken."""
        queue = {} if veth.queue_length is None else {"txqlen": veth.queue_length}
        peer = {
            "ifname": host, "address": host_end_hwaddr(veth.hwaddr), "mtu": veth.mtu, **queue
        }  # fmt: skip
        with _explained(f"making interface {veth.name}"):
            try:
                await self._route.link(
                    "add", kind="veth", ifname=veth.name, net_ns_pid=veth.pid,
                    index=FIRST_INDEX + self._random.randrange(_INDEXES), address=veth.hwaddr,
                    mtu=veth.mtu, state="up", peer=peer, **queue,
                )  # fmt: skip
            except NetlinkError as error:
                if error.code not in _TAKEN:
                    raise
                return False
            return True

    def make_index(self) -> int:
        """Return a number for an interface that is most likely free everywhere."""
        return FIRST_INDEX + self._random.randrange(_INDEXES)

    async def make_inside(self, kind: str, link: Inside) -> None:
        """Make a macvlan or ipvlan of a parent in a namespace, up.

        Raises Failed, NoSuchLink, NotSupported.
        """
        more: dict[str, object] = {"macvlan_mode": "bridge", "address": link.hwaddr}
        if kind == "ipvlan":
            more = {"ipvlan_mode": _IPVLAN_MODES[link.mode]}
        if link.mtu:
            more["mtu"] = link.mtu
        with _explained(f"making {kind} {link.name} of {link.parent}"):
            await self._route.link(
                "add", kind=kind, ifname=link.name, link=index(link.parent), net_ns_pid=link.pid,
                index=link.index, state="up", **more,
            )  # fmt: skip

    async def move_inside(self, link: Inside) -> None:
        """Move an interface of the host into a namespace, where it is off.

        Raises Failed, NoSuchLink.
        """
        changes: dict[str, object] = {"address": link.hwaddr} if link.hwaddr else {}
        if link.mtu:
            changes["mtu"] = link.mtu
        with _explained(f"moving {link.parent} into an instance as {link.name}"):
            own = index(link.parent)
            await self._route.link("set", index=own, state="down")
            if changes:
                await self._route.link("set", index=own, **changes)
            await self._route.link(
                "set", index=own, ifname=link.name, net_ns_pid=link.pid,
                IFLA_NEW_IFINDEX=link.index,
            )  # fmt: skip

    async def set_function(
        self, parent: str, number: int, settings: VirtualFunction | None = None
    ) -> None:
        """Give a card's virtual function an address and a VLAN, or (None) take both away."""
        wanted = settings or VirtualFunction("00:00:00:00:00:00", 0, filtered=True)
        with _explained(f"setting virtual function {number} of {parent}"):
            await self._route.link(
                "set", index=index(parent),
                vf={"vf": number, "mac": wanted.hwaddr, "vlan": wanted.vlan,
                    "spoofchk": int(wanted.filtered)},
            )  # fmt: skip

    async def make_vlan(self, parent: str, vlan: int, name: str, alias: str, *, gvrp: bool) -> None:
        """Make the interface of a parent's VLAN, up, with a note on it. Raises Failed."""
        flags = {"vlan_flags": {"flags": _VLAN_GVRP, "mask": _VLAN_GVRP}} if gvrp else {}
        with _explained(f"making the interface of VLAN {vlan} of {parent}"):
            await self._route.link(
                "add", kind="vlan", ifname=name, link=index(parent), vlan_id=vlan, **flags
            )
            await self._route.link("set", ifname=name, IFLA_IFALIAS=alias, state="up")

    async def make_tunnel(self, name: str, tunnel: Mapping[str, object], alias: str) -> None:
        """Make a tunnel's end, not up yet, with a note on it. Raises Failed."""
        with _explained(f"making tunnel {name}"):
            try:
                await self._route.link("add", ifname=name, **tunnel)
            except NetlinkError as error:
                if error.code not in _TAKEN:
                    raise
                raise Conflict(f'Network interface "{name}" already exists on this host') from error
            await self._route.link("set", ifname=name, IFLA_IFALIAS=alias)

    async def set_link(
        self, name: str, *, new_name: str = "", up: bool | None = None, **changes: object
    ) -> None:
        """Rename an interface, switch it on or off, change its MTU or MAC address.

        Raises Failed, NoSuchLink.
        """
        with _explained(f"changing interface {name}"):
            number = index(name)
            if new_name and new_name != name:
                await self._route.link("set", index=number, state="down")
                await self._route.link("set", index=number, ifname=new_name)
            if up is not None:
                changes["state"] = "up" if up else "down"
            if changes:
                await self._route.link("set", index=number, **changes)

    async def note(self, name: str, alias: str) -> None:
        """Leave a note on an interface. Raises Failed, NoSuchLink."""
        with _explained(f"noting whose {name} is"):
            await self._route.link("set", index=index(name), IFLA_IFALIAS=alias)

    async def tag_port(self, name: str, vlan: int, tagged: Collection[int]) -> None:
        """Put a bridge's port into VLANs: `vlan` is that of frames without a tag (0: of none).

        Raises Failed.
        """
        number = index(name)
        with _explained(f"putting {name} into VLANs"):
            try:
                await self._route.vlan_filter("del", index=number, vlan_info={"vid": 1})
            except NetlinkError as error:
                if error.code not in (errno.ENOENT, errno.EINVAL):
                    raise
            for each in tagged:
                await self._route.vlan_filter("add", index=number, vlan_info={"vid": each})
            if vlan:
                flags = _BRIDGE_PORT_VLAN_UNTAGGED | _BRIDGE_PORT_VLAN_PVID
                await self._route.vlan_filter(
                    "add", index=number, vlan_info={"vid": vlan, "flags": flags}
                )

    async def join(
        self, host: str, bridge: str, alias: str, vlans: tuple[int, Collection[int]] | None = None
    ) -> None:
        """Make the host's end of a pair a port of a bridge, with a note on it, and switch it on.

        `vlans` are that of its frames without a tag (0: none), and those with one; None leaves it
        to the bridge. Raises Failed, NoSuchLink.
        """
        master = index(bridge)
        mode = [["IFLA_INET6_ADDR_GEN_MODE", _NO_LINK_LOCAL]]
        with _explained(f"joining {host} to {bridge}"):
            await self._route.link(
                "set", ifname=host, master=master, IFLA_IFALIAS=alias,
                IFLA_AF_SPEC={"attrs": [["AF_INET6", {"attrs": mode}]]},
            )  # fmt: skip
            if vlans is not None:
                await self.tag_port(host, *vlans)
            # Only then: an interface that comes up gives itself an address at once.
            await self._route.link("set", ifname=host, state="up")

    async def isolate(self, name: str, *, isolated: bool = True) -> None:
        """Let a bridge's port speak with no other isolated port. Raises Failed."""
        with _explained(f"isolating {name}"):
            await self._route.brport("set", index=index(name), isolated=int(isolated))

    async def hairpin(self, name: str, *, back: bool) -> None:
        """Let a bridge's port send frames back to where they came from. Raises Failed."""
        with _explained(f"setting how {name} bridges"):
            await self._route.brport("set", index=index(name), mode=int(back))

    async def shape(self, name: str, bits: int) -> None:
        """Send at most `bits` each second through an interface; 0 lifts the limit. Raises Failed.

        A token bucket: bursts of a twentieth of a second, packets wait for 100 ms at most.
        """
        with _explained(f"limiting {name}"):
            try:
                await self._route.tc("del", index=index(name), root=True)
            except NetlinkError as error:
                if error.code not in (errno.ENOENT, errno.EINVAL):
                    raise
            if bits:
                rate = max(1, bits // 8)
                await self._route.tc(
                    "add", "tbf", index=index(name), handle="1:", rate=rate,
                    burst=max(rate // 20, 20_000), latency=100_000,
                )  # fmt: skip

    # Addresses and routes

    async def set_addresses(
        self, name: str, wanted: Collection[IPv4Interface | IPv6Interface]
    ) -> None:
        """Give an interface these addresses and take away others; link-local ones stay."""
        number = index(name)
        with _explained(f"setting the addresses of {name}"):
            have = {
                ipaddress.ip_interface(f"{text}/{each['prefixlen']}")
                async for each in await self._route.addr("dump", index=number)
                if (text := each.get("local") or each.get("address"))
            }
            for each in have - set(wanted):
                if not each.ip.is_link_local:
                    await self._route.addr("del", index=number, **_address(each))
            for each in wanted:
                if each not in have:
                    await self._route.addr("add", index=number, **_address(each))

    async def set_routes(self, name: str, wanted: Collection[Subnet]) -> None:
        """Route these subnets to an interface; static routes to it of another kind are removed."""
        number = index(name)
        with _explained(f"setting the routes of {name}"):
            have = await self._static_routes(number)
            for each in have - set(wanted):
                await self._change_route("del", number, each)
            for each in wanted:
                if each not in have:
                    await self._change_route("replace", number, each)

    async def _static_routes(self, number: int) -> set[Subnet]:
        found: set[Subnet] = set()
        for family in (socket.AF_INET, socket.AF_INET6):
            async for each in await self._route.route("dump", family=family, oif=number):
                if each["proto"] == 4 and each.get("oif") == number:
                    subnet = _subnet(each)
                    if subnet is not None:
                        found.add(subnet)
        return found

    async def add_address(self, name: str, address: IPv4Interface | IPv6Interface) -> None:
        """Give an interface one more address. Raises Failed, NoSuchLink."""
        with _explained(f"giving {name} the address {address}"):
            await self._route.addr("replace", index=index(name), **_address(address))

    async def add_route(
        self, name: str, subnet: Subnet, *, table: int = 254, via: str = ""
    ) -> None:
        """Route a subnet to an interface, in a table, `via` a neighbour. Raises Failed."""
        more: dict[str, object] = {"table": table}
        if via:
            more |= {"gateway": via, "scope": 0}
        with _explained(f"routing {subnet} to {name}"):
            await self._change_route("replace", index(name), subnet, more)

    async def set_proxy(self, name: str, address: str, *, answers: bool) -> None:
        """Answer on an interface, or not any more, for another's address. Raises Failed."""
        if not answers and not exists(name):
            return
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with _explained(f"answering on {name} for {address}"):
            try:
                await self._route.neigh(
                    "replace" if answers else "del", dst=address, ifindex=index(name),
                    family=family, flags=_PROXY, state=_PERMANENT,
                )  # fmt: skip
            except NetlinkError as error:
                if answers or error.code not in (errno.ENOENT, errno.ESRCH):
                    raise

    async def delete_route(self, name: str, subnet: Subnet, *, table: int = 254) -> None:
        """Route a subnet no more; it is fine when it is not. Raises Failed."""
        if not exists(name):
            return
        with _explained(f"routing {subnet} to {name} no more"):
            try:
                await self._change_route("del", index(name), subnet, {"table": table})
            except NetlinkError as error:
                if error.code != errno.ESRCH:
                    raise

    async def _change_route(
        self, command: str, number: int, subnet: Subnet, more: Mapping[str, object] | None = None
    ) -> None:
        family = socket.AF_INET if subnet.version == 4 else socket.AF_INET6
        scope = {"scope": 253} if subnet.version == 4 else {}
        settings: dict[str, object] = {
            "dst": str(subnet),
            "oif": number,
            "family": family,
            "proto": 4,
        }
        await self._route.route(command, **settings | scope | dict(more or {}))

    async def subnets(self) -> set[Subnet]:
        """Return every subnet that the host has an address in or a route to, defaults left out."""
        found: set[Subnet] = set()
        with _explained("reading the routes"):
            for family in (socket.AF_INET, socket.AF_INET6):
                async for each in await self._route.route("dump", family=family):
                    subnet = _subnet(each)
                    if subnet is not None and subnet.prefixlen > 0:
                        found.add(subnet)
            async for each in await self._route.addr("dump"):
                text = each.get("local") or each.get("address")
                if text:
                    found.add(ipaddress.ip_network(f"{text}/{each['prefixlen']}", strict=False))
        return found


def index(name: str) -> int:
    """Return the index of an interface. Raises NoSuchLink."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise NoSuchLink(name) from error


def exists(name: str) -> bool:
    """Tell whether the host has an interface of that name."""
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def name_of(number: int) -> str:
    """Return the name of an interface, "" when there is none."""
    try:
        return socket.if_indextoname(number)
    except OSError:
        return ""


def _address(address: IPv4Interface | IPv6Interface) -> dict[str, object]:
    given: dict[str, object] = {"address": str(address.ip), "prefixlen": address.network.prefixlen}
    if isinstance(address, IPv6Interface):
        given["flags"] = _NODAD  # dnsmasq binds to it at once
    elif address.network.prefixlen < 31:
        given["broadcast"] = str(address.network.broadcast_address)
    return given


def _subnet(route: Mapping[str, Any]) -> Subnet | None:
    text = route.get("dst")
    if not text:
        return None
    return ipaddress.ip_network(f"{text}/{route['dst_len']}", strict=False)


class _explained:
    """Turns what the kernel refuses into a Failed that says what was wanted."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, NetlinkError):
            raise _translate(self._doing, error) from error


def _translate(doing: str, error: NetlinkError) -> LxpyError:
    text = f"Failed {doing}: {error.args[1] if len(error.args) > 1 else error}"
    if error.code == errno.EOPNOTSUPP:
        return NotSupported(f"{text}: the kernel lacks a module for that")
    if error.code == errno.EPERM:
        return Failed(f"{text}: lxpyd needs CAP_NET_ADMIN")
    return Failed(text)
