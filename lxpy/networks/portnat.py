"""Proxies that the firewall does (nat=true): packets to an address of the host go to an instance.

One table for each instance, replaced and removed as a whole. The host itself and the instance's
neighbours reach the address, too; then the source is the host, for the answers to come back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from lxpy.networks.render import render
from lxpy.programs import run

_PREFIX = "lxpy_nat"


@dataclass(frozen=True, slots=True)
class PortNat:
    """Packets of a protocol ("tcp", "udp") to `listen` go to `target`, port by port.

    `near` is the subnet whose answers would not come back through the host.
    """

    protocol: str
    listen: str
    target: str
    near: str
    ports: tuple[tuple[int, int], ...]

    @property
    def family(self) -> str:
        """How nft calls the family of the addresses."""
        return "ip6" if ":" in self.listen else "ip"

    @property
    def match(self) -> str:
        """What of nft selects the packets by their destination."""
        ports = ", ".join(str(port) for port, _ in self.ports)
        return f"{self.family} daddr {self.listen} {self.protocol} dport {{ {ports} }}"

    @property
    def destination(self) -> str:
        """Where nft sends them."""
        changed = [(one, other) for one, other in self.ports if one != other]
        if not changed:
            return f"{self.family} to {self.target}"
        pairs = ", ".join(f"{one} : {other}" for one, other in self.ports)
        return f"{self.family} to {self.target} : {self.protocol} dport map {{ {pairs} }}"

    @property
    def hairpin(self) -> str:
        """What selects the packets that the target, or a neighbour, sends that way."""
        ports = ", ".join(dict.fromkeys(str(port) for _, port in self.ports))
        found = f"{self.family} saddr {self.near} {self.family} daddr {self.target}"
        return f"ct status dnat {found} {self.protocol} dport {{ {ports} }}"


def table(owner: str, instance: str) -> str:
    """Return the name of an instance's table."""
    safe = "".join(c if c.isalnum() and c.isascii() else f"_{ord(c):x}_" for c in instance)
    return f"{_prefix(owner)}{safe}"


def _prefix(owner: str) -> str:
    return f"{_PREFIX}_{owner.replace('-', '_').replace('/', '_')}_"


async def apply(owner: str, instance: str, wanted: Iterable[PortNat]) -> None:
    """Have an instance's translations be these. Raises MissingTool, Failed."""
    name = table(owner, instance)
    rules = render("portnat.nft.j2", table=name, translations=list(wanted))
    await run("nft", "-f", "-", input=rules.encode())


async def remove(owner: str, instance: str) -> None:
    """Remove an instance's translations. Idempotent. Raises MissingTool, Failed."""
    name = table(owner, instance)
    await run("nft", "-f", "-", input=f"add table inet {name}\ndelete table inet {name}\n".encode())


async def sweep(owner: str, running: Iterable[str]) -> None:
    """Remove what instances have left that do not run any more. Raises MissingTool, Failed."""
    done = await run("nft", "-j", "list", "tables", "inet")
    found = [
        each["table"]["name"] for each in json.loads(done.stdout)["nftables"] if "table" in each
    ]
    kept = {table(owner, each) for each in running}
    left = [name for name in found if name.startswith(_prefix(owner)) and name not in kept]
    if left:
        lines = "".join(f"delete table inet {name}\n" for name in left)
        await run("nft", "-f", "-", input=lines.encode())
