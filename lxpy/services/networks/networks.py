"""Networks: made, changed, renamed, deleted; instances are joined to them and leave them.

Source: LXD docs, "Networks", "Bridge network".
"""

from __future__ import annotations

import builtins
import contextlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from msgspec import UNSET

from lxpy.api import instances as instances_api
from lxpy.api import networks as api
from lxpy.db import networks as queries
from lxpy.db import profiles as profile_queries
from lxpy.db.engine import Database
from lxpy.db.rows import NetworkRow, ProfileRow
from lxpy.errors import BadRequest, Conflict, LxpyError, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.devices.nic import NicPlan, nictype
from lxpy.instances.devices.nic_kinds import SAVED
from lxpy.instances.expand import merge_patch
from lxpy.instances.model import DEFAULT_PROJECT, Instance
from lxpy.networks import addresses, keys, sysctls
from lxpy.networks.drivers import TYPES
from lxpy.networks.drivers.bridge import check_free
from lxpy.networks.forwards import Forward
from lxpy.networks.keys import Bridge
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.networks import nics, views
from lxpy.services.networks.acls import LOCK as ACLS
from lxpy.services.networks.acls import Acls
from lxpy.services.networks.forwards import Forwards, check_kept
from lxpy.services.networks.nics import Network
from lxpy.services.networks.wiring import Wiring
from lxpy.services.server.warnings import NETWORK, Trouble
from lxpy.threads import in_thread


class Networks:
    """All networks of this installation; they belong to project "default", every project sees them.

    `root` has a directory for each, `owner` is the installation's name on the host. Rows are kept
    in memory: this daemon alone writes them.
    """

    def __init__(
        self,
        db: Database,
        root: Path,
        owner: str,
        store: InstanceStore,
        locks: Locks,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._store = store
        self._locks = locks
        self._lifecycle = lifecycle
        self._wiring = Wiring(root, owner, store, locks)
        self.forwards = Forwards(db, self._wiring, locks, lifecycle)
        self.acls = Acls(db, self._wiring, locks, lifecycle)
        self._default = ""

    # Life

    async def ensure_default(self, name: str) -> None:
        """Make the row of the default network of a new installation, with free subnets.

        The bridge itself waits for its first user. Raises NoFreeSubnet.
        """
        self._default = name
        async with self._db.read() as session:
            if await queries.find(session, DEFAULT_PROJECT, name) is not None:
                return
        await self._insert(Network(name, config=await self._filled({}, new=True)))

    async def start(self, running: Mapping[str, int]) -> None:
        """Read the networks, bring them up, take over the nics of what runs (name -> pid)."""
        async with self._db.read() as session:
            rows = await queries.all_of(session, DEFAULT_PROJECT)
        self._wiring.networks = {
            row.name: Network(
                row.name, row.type, row.description, row.config,
                msgspec.convert(row.forwards, tuple[Forward, ...]),
            )
            for row in rows
        }  # fmt: skip
        await self.acls.start()
        await self._wiring.start(running, self._default)

    def troubles(self) -> Iterable[Trouble]:
        """Return which networks are not up, and why."""
        for name, text in self._wiring.failed.items():
            yield Trouble(NETWORK, text, entity_url=f"/1.0/networks/{name}")

    async def stop(self) -> None:
        """Take every network down: the installation shuts down."""
        await self._wiring.down()

    async def close(self) -> None:
        """Let go of everything; networks stay as they are."""
        await self._wiring.close()

    def host_addresses(self) -> Sequence[str]:
        """Return the addresses by which others may reach this host. Raises OSError."""
        return [
            each.address
            for interface in self._wiring.facts.interfaces.host()
            for each in interface.addresses
            if each.scope == "global"
        ]

    # Networks

    async def list(self) -> Sequence[api.Network]:
        """Return the managed networks, and the other interfaces of the host."""
        profiles = await self._profiles()
        found = [self._view(each, profiles) for each in self._wiring.networks.values()]
        for each in self._wiring.facts.interfaces.host(addresses=False):
            if each.name not in self._wiring.networks and views.is_shown(each):
                found.append(views.unmanaged(each, self._used_by(each.name, profiles)))
        return sorted(found, key=lambda each: (not each.managed, each.name))

    async def get(self, name: str) -> api.Network:
        """Return a network or an interface of the host. Raises NotFound."""
        profiles = await self._profiles()
        if name in self._wiring.networks:
            return self._view(self._wiring.networks[name], profiles)
        found = self._wiring.facts.interfaces.find(name)
        if found is None:
            raise NotFound("Network not found")
        return views.unmanaged(found, self._used_by(name, profiles))

    def is_managed(self, name: str) -> bool:
        """Tell whether there is such a network of ours."""
        return name in self._wiring.networks

    def writable(self, network: api.Network) -> object:
        """Return what the ETag of a network stands for."""
        return [network.name, network.managed, network.type, network.description, network.config]

    async def create(self, wish: api.NetworksPost) -> None:
        """Make a network and bring it up. Raises BadRequest, Failed, MissingTool, Conflict."""
        name, kind = wish.name, wish.type or "bridge"
        keys.check_name(name)
        if kind not in TYPES:
            known = ", ".join(TYPES)
            raise BadRequest(f'Network type "{kind}" is not supported: use one of {known}')
        async with self._locks.hold(ACLS), self._locks.hold("network", name):
            if name in self._wiring.networks:
                raise BadRequest("The network already exists")
            keys.validate(name, wish.config or {}, kind)
            if kind == "bridge":
                check_free(self._wiring.facts, name)
            config = await self._filled(wish.config or {}, new=True, kind=kind)
            network = Network(name, kind, wish.description, config)
            self._check_overlap(network)
            self._wiring.policy(network)
            await self._insert(network)
            try:
                await self._wiring.up(network)
            except BaseException:
                with contextlib.suppress(LxpyError):
                    await self._wiring.driver(name).delete()
                await self._remove(name)
                raise
        self._tell("network-created", name)

    async def put(self, name: str, wish: api.NetworkPut) -> None:
        """Replace a network's writable part, at once. Raises NotFound, LxpyError."""
        await self._change(name, wish.description, wish.config or {})

    async def patch(self, name: str, wish: api.NetworkPatch) -> None:
        """Change what is given. Raises as `put`."""
        old = self._managed(name)
        config = old.config if wish.config is UNSET else merge_patch(old.config, wish.config)
        description = old.description if wish.description is UNSET else wish.description
        await self._change(name, description, config)

    async def _change(self, name: str, description: str, config: Mapping[str, str]) -> None:
        async with self._locks.hold(ACLS), self._locks.hold("network", name):
            old = self._managed(name)
            keys.validate(name, config, old.type)
            filled = await self._filled(config, new=False, kind=old.type)
            new = replace(old, description=description, config=filled)
            self._check_overlap(new)
            check_kept(new)
            self._wiring.policy(new)
            is_used = name != self._default or self._wiring.driver(name).is_up
            if new.config != old.config and is_used:
                try:
                    await self._wiring.up(new)
                except LxpyError:
                    await self._wiring.up(old)
                    raise
            async with self._db.write() as session:
                row = await queries.find(session, DEFAULT_PROJECT, name)
                if row is not None:
                    row.description, row.config = new.description, dict(new.config)
            self._wiring.networks[name] = new
        self._tell("network-updated", name)

    async def rename(self, name: str, new_name: str) -> None:
        """Rename a network that nobody uses. Raises NotFound, BadRequest, Conflict, LxpyError."""
        keys.check_name(new_name)
        async with (
            self._locks.hold("network", min(name, new_name)),
            self._locks.hold("network", max(name, new_name)),
        ):
            old = self._managed(name)
            if new_name in self._wiring.networks:
                raise Conflict(f'Network "{new_name}" already exists')
            if old.type == "bridge":
                check_free(self._wiring.facts, new_name)
            await self._check_unused(name)
            await self._wiring.driver(name).delete()
            await self._move(name, replace(old, name=new_name))
            try:
                await self._wiring.up(self._wiring.networks[new_name])
            except LxpyError:
                await self._move(new_name, old)
                await self._wiring.up(old)
                raise
        self._tell("network-renamed", new_name, {"old_name": name})

    async def delete(self, name: str) -> None:
        """Delete a network that nobody uses. Raises NotFound, BadRequest, LxpyError."""
        async with self._locks.hold("network", name):
            self._managed(name)
            await self._check_unused(name)
            await self._wiring.driver(name).delete()
            await self._remove(name)
        self._tell("network-deleted", name)

    def refuse_peers(self, name: str) -> None:
        """Raise NotFound, or BadRequest: peers are a matter of OVN networks."""
        kind = self._managed(name).type
        raise BadRequest(f'Network driver "{kind}" does not support peering')

    async def leases(self, project: str, name: str) -> Sequence[api.Lease]:
        """Return the addresses of a network that a project may see. Raises NotFound."""
        network = self._managed(name)
        others = [each for each in self._store.listed() if each.project != project]
        return views.all_leases(
            Bridge(name, network.config),
            [each.nic for each in self._wiring.on(name, project)],
            await self._wiring.driver(name).leases(),
            set(nics.hwaddrs(others)),
        )

    async def state(self, name: str) -> api.NetworkState:
        """Return what a network's interface does. Raises NotFound."""
        interfaces = self._wiring.facts.interfaces
        network = self._wiring.networks.get(name)
        found = interfaces.find(network.config.get("parent", name) if network else name)
        if found is None:
            if name not in self._wiring.networks:
                raise NotFound(f'Network interface "{name}" not found')
            network = self._managed(name)
            return api.NetworkState(mtu=Bridge(name, network.config).mtu, type="broadcast")
        return views.state(found, interfaces.ports(found.index) if found.bridge else [])

    # Nics of instances

    def make_hwaddr(self) -> str:
        """Return a MAC address that no instance has."""
        return addresses.free_hwaddr(set(nics.hwaddrs(self._store.listed())))

    async def validate_nics(
        self, instance: Instance, plans: Iterable[NicPlan], *, may_be_taken: bool = False
    ) -> None:
        """Raise when a nic's network is not there, or its address does not fit or is taken.

        Copies `may_be_taken` for what they are copies of, until they start.
        """
        others = () if may_be_taken else self._store.listed()
        nics.check(instance, plans, self._wiring.networks, others)

    async def validate_start(self, instance: Instance, plans: Iterable[NicPlan]) -> None:
        """Raise when an address that somebody chose for an instance is another's by now."""
        if nics.are_chosen(instance):
            await self.validate_nics(instance, plans)

    def check_devices(self, given: Mapping[str, Mapping[str, str]]) -> None:
        """Raise when a nic among the devices of a profile does not fit its network."""
        nics.check_devices(given, self._wiring.networks)

    def nictype(self, device: Mapping[str, str]) -> str:
        """Return the nictype of a nic device, "" when its network does not exist."""
        types = {each.name: each.type for each in self._wiring.networks.values()}
        return nictype(device, types)

    def unsaved(self, instance: Instance) -> dict[str, str]:
        """Return the nics whose links no dump can save, with their nictypes."""
        found = {name: self.nictype(each) for name, each in nics.nic_devices(instance).items()}
        return {name: kind for name, kind in found.items() if kind not in ("", *SAVED)}

    async def attach(
        self, instance: Instance, plans: Iterable[NicPlan], pid: int
    ) -> dict[str, str]:
        """Join the network namespace of process `pid` to networks; return the volatile keys of
        the devices: "eth0.host_name" ... Raises LxpyError, with nothing left behind.
        """
        return await self._wiring.attach(instance, plans, pid)

    async def replug(self, instance: Instance, plan: NicPlan) -> None:
        """Give an attached nic other limits, filters, routes or addresses. Raises LxpyError."""
        await self._wiring.change(nics.placed(instance, plan))

    async def unplug(self, instance: Instance, plan: NicPlan) -> None:
        """Take a nic away from a running instance."""
        await self._wiring.detach(instance.unique_name, plan.device)

    async def cut(self, instance: Instance) -> None:
        """Take all nics from a running instance, at once."""
        for each in nics.nics_of(instance):
            await self._wiring.detach(instance.unique_name, each.nic.device)

    async def detach(self, instance: Instance) -> None:
        """Clean up after an instance that has ended. Idempotent."""
        await self._wiring.detach(instance.unique_name)
        if self._store.has(instance.project, instance.name):
            current = self._store.get(instance.project, instance.name)
            await self._store.note(current, dict.fromkeys(nics.host_keys(current), ""))

    async def announce(self, instance: Instance, old: Instance | None = None) -> None:
        """Reserve the names and addresses of an instance that need not run yet; logs what fails.

        `old` is what it was before.
        """
        await self._wiring.announce(instance, old)

    async def forget(self, unique: str) -> None:
        """Give free what an instance that is deleted has had: name, addresses. Idempotent."""
        await self._wiring.forget(unique)

    def turn_back(self, instance: Instance) -> None:
        """Let the bridges send back to an instance what it has sent to itself, by translation.

        Only where the firewall sees what is bridged: else it is the host that sends it back.
        """
        if sysctls.filters_bridges():
            for port in self._wiring.facts.ports.of(instance.unique_name):
                sysctls.turn_back(port.host_name)

    def around(self, network: str, address: str) -> str:
        """Return the subnet of a managed network that an address lies in, else the address."""
        if network in self._wiring.networks:
            for subnet in Bridge(network, self._wiring.networks[network].config).subnets:
                if ipaddress.ip_address(address) in subnet:
                    return str(subnet)
        return address

    async def guest_state(self, pid: int) -> dict[str, instances_api.NetworkState]:
        """Return the interfaces in the namespace of a process. Raises OSError when it is gone."""
        return views.guest(self._wiring.facts.interfaces.guest(pid))

    # Inside

    async def _filled(
        self, config: Mapping[str, str], *, new: bool, kind: str = "bridge"
    ) -> dict[str, str]:
        """Return the config with free subnets where it says "auto", or (`new`) says nothing."""
        filled = {key: value for key, value in config.items() if value != ""}
        if kind != "bridge":
            return filled
        for family in ("ipv4", "ipv6"):
            key = f"{family}.address"
            wanted = filled.get(key, "auto" if new else "")
            if wanted != "auto":
                continue
            if family == "ipv6" and not await in_thread(sysctls.has_ipv6):
                filled[key] = "none"
                continue
            taken = await self._taken()
            free = addresses.free_ipv4(taken) if family == "ipv4" else addresses.free_ipv6(taken)
            filled[key] = str(free)
            filled.setdefault(f"{family}.nat", "true")
        return filled

    async def _taken(self) -> set[addresses.Subnet]:
        found = await self._wiring.facts.netlink.subnets()
        for each in self._wiring.networks.values():
            found |= Bridge(each.name, each.config).subnets
        return found

    def _check_overlap(self, network: Network) -> None:
        """Raise BadRequest when a subnet overlaps with one of another network of ours."""
        own = Bridge(network.name, network.config).subnets
        for other in self._wiring.networks.values():
            if other.name == network.name:
                continue
            for theirs in Bridge(other.name, other.config).subnets:
                if any(each.version == theirs.version and each.overlaps(theirs) for each in own):
                    raise BadRequest(
                        f'Network "{network.name}" overlaps with subnet {theirs} of network '
                        f'"{other.name}": choose another address, or "auto"'
                    )

    def _managed(self, name: str) -> Network:
        try:
            return self._wiring.networks[name]
        except KeyError:
            raise NotFound("Failed loading network: Network not found") from None

    async def _profiles(self) -> Sequence[ProfileRow]:
        async with self._db.read() as session:
            return await profile_queries.everything(session)

    def _used_by(self, name: str, profiles: Sequence[ProfileRow]) -> builtins.list[str]:
        return nics.used_by(name, self._store.listed(), profiles)

    async def _check_unused(self, name: str) -> None:
        if self._used_by(name, await self._profiles()):
            raise BadRequest("The network is currently in use")

    def _view(self, network: Network, profiles: Sequence[ProfileRow]) -> api.Network:
        return api.Network(
            config=dict(network.config),
            description=network.description,
            name=network.name,
            type=network.type,
            used_by=self._used_by(network.name, profiles),
            managed=True,
            status="Unavailable" if network.name in self._wiring.failed else "Created",
            locations=["none"],
        )

    async def _insert(self, network: Network) -> None:
        async with self._db.write() as session:
            session.add(
                NetworkRow(
                    project=DEFAULT_PROJECT,
                    name=network.name,
                    type=network.type,
                    description=network.description,
                    config=dict(network.config),
                )
            )
        self._wiring.networks[network.name] = network

    async def _move(self, name: str, network: Network) -> None:
        """Give a row another name."""
        async with self._db.write() as session:
            row = await queries.find(session, DEFAULT_PROJECT, name)
            if row is not None:
                row.name = network.name
        del self._wiring.networks[name]
        self._wiring.drop(name)
        self._wiring.networks[network.name] = network

    async def _remove(self, name: str) -> None:
        """Delete a row."""
        async with self._db.write() as session:
            row = await queries.find(session, DEFAULT_PROJECT, name)
            if row is not None:
                await session.delete(row)
        self._wiring.networks.pop(name, None)
        self._wiring.drop(name)

    def _tell(self, action: str, name: str, context: Mapping[str, str] | None = None) -> None:
        self._lifecycle.emit(action, f"/1.0/networks/{name}", DEFAULT_PROJECT, context)
