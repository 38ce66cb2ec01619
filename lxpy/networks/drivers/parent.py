"""Networks that are an interface of the host: nics are macvlans of it, or the thing itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from lxpy.errors import NotSupported
from lxpy.networks.drivers.base import Facts
from lxpy.networks.leases import Lease
from lxpy.networks.nic import Nic
from lxpy.networks.policy import Policy
from lxpy.networks.ports import Found
from lxpy.networks.vlans import NoParent

_OF_THE_NETWORK = ("vlan", "gvrp")


class ParentDriver:
    """A network of one kind of nics; nothing of it is on the host but what its nics have."""

    kind = "macvlan"

    def __init__(self, name: str, facts: Facts) -> None:
        self.name = name
        self._facts = facts
        self._config: Mapping[str, str] = {}
        self._up = False

    @property
    def is_up(self) -> bool:
        """Whether its parent was there when that was last looked at."""
        return self._up

    async def up(self, config: Mapping[str, str], policy: Policy) -> None:
        """Look whether the parent is there. Raises NoParent."""
        self._config, self._up = config, False
        if self._facts.interfaces.find(config["parent"]) is None:
            raise NoParent(config["parent"])
        self._up = True

    async def guard(self, policy: Policy) -> None:
        """Do nothing: such a network has neither forwards nor ACLs."""

    async def down(self) -> None:
        """Do nothing."""
        self._up = False

    async def delete(self) -> None:
        """Do nothing."""
        self._up = False

    async def close(self) -> None:
        """Do nothing."""

    async def attach(self, nic: Nic, pid: int) -> dict[str, str]:
        """Give a namespace a nic on the parent."""
        return await self._facts.links.attach(self._nic(nic), pid)

    def _nic(self, nic: Nic) -> Nic:
        """Return a nic with what the network says of it."""
        own = {key: self._config[key] for key in _OF_THE_NETWORK if self._config.get(key)}
        mtu = self._config.get("mtu")
        return replace(
            nic, kind=self.kind, parent=self._config["parent"],
            mtu=int(mtu) if mtu else None, options={**nic.options, **own},
        )  # fmt: skip

    async def change(self, nic: Nic) -> None:
        """Do nothing: no option of such nics changes in place."""

    async def adopt(self, found: Found, nic: Nic) -> None:
        """Do nothing: such nics have no end on the host."""

    async def reserve(self, nics: Iterable[Nic]) -> None:
        """Do nothing: addresses are not ours to give."""

    async def announce(self, instance: str, nics: Iterable[Nic]) -> None:
        """Do nothing, as `reserve`."""

    async def forget(self, instance: str) -> None:
        """Do nothing."""

    async def leases(self) -> list[Lease]:
        """Raise NotSupported: whoever is behind the parent lends addresses, if anybody does."""
        raise NotSupported("not implemented")


class MacvlanDriver(ParentDriver):
    """Nics are macvlans of the parent."""


class PhysicalDriver(ParentDriver):
    """The parent itself moves into one instance."""

    kind = "physical"


class SriovDriver(ParentDriver):
    """Nics are virtual functions of the parent."""

    kind = "sriov"
