"""Interfaces of VLANs on the host: found, or made and taken away with the last who needs them."""

from __future__ import annotations

from lxpy.errors import Conflict, Failed
from lxpy.networks.interfaces import Interface, Interfaces
from lxpy.networks.netlink import Netlink

_NAME_LENGTH = 15


class NoParent(Failed):
    """The interface that a nic or a network is to be on is not there."""

    def __init__(self, parent: str) -> None:
        super().__init__(
            f'Parent device "{parent}" doesn\'t exist: it is no interface of this host, or it is '
            "inside an instance"
        )


class Vlans:
    """The VLAN interfaces that we make; `owner` is noted on each."""

    def __init__(self, netlink: Netlink, interfaces: Interfaces, owner: str) -> None:
        self._netlink = netlink
        self._interfaces = interfaces
        self._note = f"{owner}/vlan"

    def find(self, parent: str, vlan: int) -> Interface | None:
        """Return the interface for a VLAN of a parent, the parent itself for VLAN 0.

        Raises NoParent.
        """
        found = self._interfaces.find(parent)
        if found is None:
            raise NoParent(parent)
        if not vlan:
            return found
        for each in self._interfaces.host(addresses=False):
            if each.kind == "vlan" and each.vlan == vlan and each.peer == found.index:
                return each
        return None

    def name(self, parent: str, vlan: int) -> str:
        """Return what the interface of a VLAN is called, or is to be called. Raises NoParent."""
        found = self.find(parent, vlan)
        if found is not None:
            return found.name
        end = f".{vlan}"
        return parent[: _NAME_LENGTH - len(end)] + end

    async def make(self, parent: str, vlan: int, *, gvrp: bool) -> None:
        """Make the interface of a VLAN. Raises NoParent, Conflict, Failed, NotSupported."""
        name = self.name(parent, vlan)
        if self._interfaces.find(name) is not None:
            raise Conflict(
                f'Network interface "{name}" already exists on this host, and is not VLAN {vlan} '
                f'of "{parent}": rename it'
            )
        await self._netlink.make_vlan(parent, vlan, name, self._note, gvrp=gvrp)

    async def remove(self, name: str) -> None:
        """Take an interface away if it is one that we made. Raises Failed."""
        found = self._interfaces.find(name)
        if found is not None and found.kind == "vlan" and found.alias == self._note:
            await self._netlink.delete_link(name)
