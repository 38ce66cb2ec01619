"""What every network driver does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lxpy.networks.interfaces import Interfaces
from lxpy.networks.leases import Lease
from lxpy.networks.links import Links
from lxpy.networks.netlink import Netlink
from lxpy.networks.nic import Nic
from lxpy.networks.policy import Policy
from lxpy.networks.ports import Found, Ports


@dataclass(frozen=True, slots=True)
class Facts:
    """What drivers share: `root` has a directory for each network, `owner` names us on the host."""

    root: Path
    owner: str
    netlink: Netlink
    interfaces: Interfaces
    ports: Ports
    links: Links


class Driver(Protocol):
    """One network on the host. Its methods raise LxpyError."""

    @property
    def is_up(self) -> bool:
        """Whether `up` has succeeded and `down` was not called since."""

    async def up(self, config: Mapping[str, str], policy: Policy) -> None:
        """Make the network, or what is there of it, as its config says. Idempotent."""

    async def guard(self, policy: Policy) -> None:
        """Let other things pass a network that is up."""

    async def down(self) -> None:
        """Take everything away from the host that `up` makes. Idempotent."""

    async def delete(self) -> None:
        """Take it down and delete its files."""

    async def close(self) -> None:
        """Let go of it: it stays as it is."""

    async def attach(self, nic: Nic, pid: int) -> dict[str, str]:
        """Join the network namespace of a process to it; return the device's volatile keys."""

    async def change(self, nic: Nic) -> None:
        """Give a nic that is attached other options."""

    async def adopt(self, found: Found, nic: Nic) -> None:
        """Take over a nic that an earlier daemon attached."""

    async def reserve(self, nics: Iterable[Nic]) -> None:
        """Make the names and addresses of these, and of no other nics, known."""

    async def announce(self, instance: str, nics: Iterable[Nic]) -> None:
        """Make the names and addresses of an instance's nics known, of these and no others."""

    async def forget(self, instance: str) -> None:
        """Give free what an instance that is deleted has had."""

    async def leases(self) -> list[Lease]:
        """Return the addresses that guests have been lent."""
