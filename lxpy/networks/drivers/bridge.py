"""A bridge of ours: link, addresses, forwarding, firewall and dnsmasq."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

import structlog

from lxpy.errors import BadRequest, Conflict, Failed
from lxpy.networks import addresses, firewall, netlink, sysctls, tunnels
from lxpy.networks.addresses import Subnet
from lxpy.networks.dnsmasq import Dnsmasq
from lxpy.networks.drivers.base import Facts
from lxpy.networks.firewall import Allowed
from lxpy.networks.keys import Bridge
from lxpy.networks.leases import Lease, Reservation
from lxpy.networks.nic import Nic
from lxpy.networks.policy import Policy
from lxpy.networks.ports import Found
from lxpy.threads import in_thread

_log = structlog.get_logger()


class BridgeDriver:
    """A managed bridge."""

    def __init__(self, name: str, facts: Facts) -> None:
        self.name = name
        self._facts = facts
        self._config = Bridge(name, {})
        self._dnsmasq = Dnsmasq(name, facts.root / name)
        self._reserving = asyncio.Lock()
        self._hairpin = False
        self._up = False

    @property
    def is_up(self) -> bool:
        """Whether the bridge is there, as far as we know, and everything that goes with it."""
        return self._up and netlink.exists(self.name)

    async def up(self, config: Mapping[str, str], policy: Policy) -> None:
        """Make the bridge as its config says. Raises Conflict, Failed, MissingTool."""
        old, self._config = self._config, Bridge(self.name, config)
        self._up = False
        if not self._exists():
            await self._dnsmasq.stop()  # it would go on listening on the interface that is gone
        bridge, net = self._config, self._facts.netlink
        hwaddr = bridge.text("bridge.hwaddr").lower()
        own = addresses.stable_hwaddr(str(self._facts.root), self.name)
        await net.make_bridge(self.name, hwaddr or own, bridge.mtu, self._facts.owner)
        await in_thread(sysctls.prepare_bridge, self.name, ipv6=bridge.ipv6 is not None)
        await net.set_addresses(self.name, [x for x in (bridge.ipv4, bridge.ipv6) if x])
        routes = self._subnets() | self._facts.ports.routes(self.name)
        has_ipv6 = bridge.ipv6 is not None  # else the kernel takes none
        await net.set_routes(self.name, {x for x in routes if x.version == 4 or has_ipv6})
        await self._rejoin()
        await tunnels.settle(bridge, net, self._facts.interfaces, self._facts.owner)
        await self._join_external(set(old.items("bridge.external_interfaces")))
        await in_thread(
            sysctls.forward,
            ipv4=bridge.ipv4 is not None and bridge.flag("ipv4.routing"),
            ipv6=bridge.ipv6 is not None and bridge.flag("ipv6.routing"),
        )
        await self._guard(policy)
        await self._dnsmasq.start(bridge)
        self._up = True

    async def guard(self, policy: Policy) -> None:
        """Let other things pass."""
        if self.is_up:
            await self._guard(policy)

    async def _guard(self, policy: Policy) -> None:
        foreign = await firewall.apply(self._config, list(self._subnets()), policy)
        for chain in foreign.chains:
            _log.info("rules put into a chain that drops", network=self.name, table=chain.table,
                      chain=chain.name)  # fmt: skip
        await self._set_hairpin(wanted=bool(policy.forwards))

    async def _set_hairpin(self, *, wanted: bool) -> None:
        """Let guests reach themselves by a forward, where NAT happens while they are bridged."""
        back = wanted and await in_thread(sysctls.filters_bridges)
        if back == self._hairpin:
            return
        self._hairpin = back
        for port in self._facts.ports.on(self.name):
            if netlink.exists(port.host_name):
                await self._facts.netlink.hairpin(port.host_name, back=back)

    def _exists(self) -> bool:
        """Tell whether the bridge is there. Raises Conflict when it is somebody else's."""
        found = self._facts.interfaces.find(self.name)
        if found is not None and (found.kind != "bridge" or found.alias != self._facts.owner):
            raise Conflict(
                f'Network interface "{self.name}" already exists on this host and is not ours: '
                "delete it, or give the network another name"
            )
        return found is not None

    def _subnets(self) -> set[Subnet]:
        """The subnets that are routed to the bridge besides its own."""
        keys = ("ipv4.routes", "ipv6.routes")
        return {ipaddress.ip_network(each) for key in keys for each in self._config.items(key)}

    async def _rejoin(self) -> None:
        """Put the nics of running instances back that a deleted bridge has lost."""
        found = self._facts.interfaces.find(self.name)
        there = self._facts.interfaces.ports(found.index) if found is not None else []
        lost = {port.host_name for port in self._facts.ports.on(self.name)}
        for name in lost.difference(each.name for each in there):
            if netlink.exists(name):
                await self._facts.netlink.set_master(name, self.name)

    async def _join_external(self, before: set[str]) -> None:
        wanted = set(self._config.items("bridge.external_interfaces"))
        for name in before - wanted:
            if netlink.exists(name):
                await self._facts.netlink.set_master(name, "")
        for name in wanted:
            found = self._facts.interfaces.find(name)
            if found is None:
                _log.warning("external interface not there", network=self.name, interface=name)
                continue
            if any(each.scope == "global" for each in found.addresses):
                raise BadRequest(
                    f'Only unconfigured network interfaces can be bridged: "{name}" has addresses'
                )
            await self._facts.netlink.set_master(name, self.name)

    async def down(self) -> None:
        """Take the bridge away. Raises Failed, MissingTool."""
        self._up = False
        await self._dnsmasq.stop()
        await firewall.remove(self.name)
        facts = self._facts
        await tunnels.remove(self.name, facts.netlink, facts.interfaces, facts.owner)
        found = facts.interfaces.find(self.name)
        if found is not None and found.alias == facts.owner:
            await self._facts.netlink.delete_link(self.name)

    async def delete(self) -> None:
        """Take the bridge away, and delete its files."""
        await self.down()
        await self._dnsmasq.remove()

    async def close(self) -> None:
        """Let go of it."""
        await self._dnsmasq.leave()

    async def attach(self, nic: Nic, pid: int) -> dict[str, str]:
        """Join a namespace to the bridge."""
        allowed = await self._announce(nic)
        ports, mtu = self._facts.ports, self._config.mtu
        host = await ports.attach(self.name, nic, pid, mtu, allowed)
        if self._hairpin:
            await self._facts.netlink.hairpin(host, back=True)
        return {"host_name": host}

    async def change(self, nic: Nic) -> None:
        """Give a nic other options."""
        await self._facts.ports.change(nic, await self._announce(nic))

    async def adopt(self, found: Found, nic: Nic) -> None:
        """Take over a nic."""
        await self._facts.ports.adopt(found, nic, await self._announce(nic))

    async def _announce(self, nic: Nic) -> Allowed:
        """Tell dnsmasq of a nic; return the addresses it may use."""
        async with self._reserving:
            reservation = await self._reservation(nic)
            if self._dnsmasq.running:
                await self._dnsmasq.reserve(reservation)
        return Allowed(
            ipv4=self._allowed_ipv4(nic, reservation) if nic.filters_ipv4 else None,
            ipv6=self._allowed_ipv6(nic, reservation) if nic.filters_ipv6 else None,
        )

    async def _reservation(self, nic: Nic) -> Reservation:
        """Return what is reserved for a nic: a filtered one needs addresses that are known."""
        wanted = self._plain_reservation(nic)
        if nic.filters_ipv4 and not nic.ipv4 and self._config.dhcp_ranges("ipv4"):
            wanted = replace(wanted, ipv4=await self._free_ipv4(nic))
        if nic.filters_ipv6 and not nic.ipv6 and self._config.flag("ipv6.dhcp.stateful"):
            wanted = replace(wanted, ipv6=self._own_ipv6(nic))
        return wanted

    def _plain_reservation(self, nic: Nic) -> Reservation:
        managed = self._config.text("dns.mode") == "managed"
        return Reservation(
            instance=nic.instance,
            hwaddr=nic.hwaddr,
            hostname=nic.hostname if managed else "",
            ipv4="" if nic.ipv4 == "none" else nic.ipv4,
            ipv6="" if nic.ipv6 == "none" else nic.ipv6,
            device=nic.device,
        )

    async def _free_ipv4(self, nic: Nic) -> str:
        """Return the address that a nic has had, else one that nobody has."""
        known = await in_thread(self._dnsmasq.hosts.read)
        lent = await self._dnsmasq.leases()
        ranges = self._config.dhcp_ranges("ipv4")
        mine = [each.ipv4 for each in known if each.hwaddr == nic.hwaddr]
        mine += [each.address for each in lent if each.hwaddr == nic.hwaddr]
        for address in mine:
            if addresses.within(address, ranges):
                return address
        taken = {each.ipv4 for each in known if each.hwaddr != nic.hwaddr}
        taken |= {each.address for each in lent if each.hwaddr != nic.hwaddr}
        if self._config.ipv4 is not None:
            taken.add(str(self._config.ipv4.ip))
        return addresses.free_address(self.name, ranges, taken.__contains__, nic.hwaddr)

    def _own_ipv6(self, nic: Nic) -> str:
        """Return the address that a nic makes of its MAC, "" where it cannot."""
        address = self._config.ipv6
        if address is None or address.network.prefixlen != 64:
            return ""
        return str(addresses.eui64(address.network, nic.hwaddr))

    def _allowed_ipv4(self, nic: Nic, reserved: Reservation) -> tuple[IPv4Network, ...]:
        own = [reserved.ipv4] if reserved.ipv4 else []
        return tuple(IPv4Network(each) for each in (*own, *nic.subnets("ipv4")))

    def _allowed_ipv6(self, nic: Nic, reserved: Reservation) -> tuple[IPv6Network, ...]:
        own = reserved.ipv6 or ("" if nic.ipv6 == "none" else self._own_ipv6(nic))
        return tuple(IPv6Network(x) for x in (*([own] if own else []), *nic.subnets("ipv6")))

    async def reserve(self, nics: Iterable[Nic]) -> None:
        """Make names and addresses known; those of filtered nics stay what they were."""
        async with self._reserving:
            wanted = [await self._kept_reservation(each) for each in nics]
            if self._dnsmasq.running:
                await self._dnsmasq.replace(wanted)

    async def announce(self, instance: str, nics: Iterable[Nic]) -> None:
        """Make the names and addresses of an instance known, also while it does not run."""
        async with self._reserving:
            wanted = [await self._kept_reservation(each) for each in nics]
            if self._dnsmasq.running:
                await self._dnsmasq.replace(wanted, instance)

    async def _kept_reservation(self, nic: Nic) -> Reservation:
        """Return what is reserved for a nic that need not run: what a filtered one has had."""
        plain = self._plain_reservation(nic)
        for known in await in_thread(self._dnsmasq.hosts.of, nic.instance):
            if known.hwaddr == nic.hwaddr and nic.filters_ipv4:
                plain = replace(plain, ipv4=plain.ipv4 or known.ipv4)
        return plain

    async def forget(self, instance: str) -> None:
        """Give free the addresses of an instance that is deleted."""
        server = str(self._config.ipv4.ip) if self._config.ipv4 is not None else ""
        async with self._reserving:
            await self._dnsmasq.withdraw(instance, server)

    async def leases(self) -> list[Lease]:
        """Return what dnsmasq has lent."""
        return await self._dnsmasq.leases()


def check_free(facts: Facts, name: str) -> None:
    """Raise BadRequest when the host has an interface of a new network's name."""
    found = facts.interfaces.find(name)
    if found is not None and found.alias != facts.owner:
        raise BadRequest(
            f'The network already exists: "{name}" is an interface of this host that lxpy does '
            "not manage; choose another name"
        )


async def attach_unmanaged(facts: Facts, nic: Nic, pid: int) -> dict[str, str]:
    """Join a namespace to a bridge of somebody else. Raises Failed, NoSuchLink, BadRequest."""
    parent = nic.parent
    found = facts.interfaces.find(parent)
    if found is None:
        raise netlink.NoSuchLink(parent)
    if found.kind != "bridge":
        raise Failed(f'Parent "{parent}" is no bridge: make one, and put "{parent}" into it')
    allowed = unmanaged_allowed(nic)
    return {"host_name": await facts.ports.attach(parent, nic, pid, found.mtu, allowed)}


def unmanaged_allowed(nic: Nic) -> Allowed:
    """Return the addresses of a nic on a bridge of others: they must be given, or BadRequest."""
    for family, filters, given in (
        ("ipv4", nic.filters_ipv4, nic.ipv4),
        ("ipv6", nic.filters_ipv6, nic.ipv6),
    ):
        if filters and not given:
            raise BadRequest(
                f"security.{family}_filtering on an unmanaged bridge needs {family}.address: "
                "nobody else knows the address"
            )
    own4 = [nic.ipv4] if nic.ipv4 not in ("", "none") else []
    own6 = [nic.ipv6] if nic.ipv6 not in ("", "none") else []
    v4 = tuple(IPv4Network(each) for each in (*own4, *nic.subnets("ipv4")))
    v6 = tuple(IPv6Network(each) for each in (*own6, *nic.subnets("ipv6")))
    return Allowed(v4 if nic.filters_ipv4 else None, v6 if nic.filters_ipv6 else None)
