"""Nic: a network interface of an instance, as networks need to know it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lxpy.units import is_true, parse_bits


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface `name` inside, known as `device` in the instance's configuration.

    `instance` is the instance's name on the host ("c1", "project_c1"), `hostname` its DNS name.
    `kind` is its nictype, `parent` the interface of the host that it is on, "" for none.
    `host_name` is "" where we pick a name for the host's end; one that is `made` exists already,
    as after a restore; `ipv4` and `ipv6` are the reserved
    addresses ("" for none, "none" to forbid any); `options` are the device's options.
    """

    instance: str
    hostname: str
    device: str
    name: str
    hwaddr: str
    kind: str = "bridged"
    parent: str = ""
    host_name: str = ""
    mtu: int | None = None
    ipv4: str = ""
    ipv6: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    made: bool = False

    def flag(self, key: str) -> bool:
        """Return the truth of an option."""
        return is_true(self.options.get(key))

    @property
    def filters_ipv4(self) -> bool:
        """Whether only its own IPv4 addresses may leave it."""
        return self.flag("security.ipv4_filtering")

    @property
    def filters_ipv6(self) -> bool:
        """Whether only its own IPv6 addresses may leave it."""
        return self.flag("security.ipv6_filtering")

    @property
    def filters_mac(self) -> bool:
        """Whether only its own MAC address may leave it; the other filters imply this one."""
        return self.flag("security.mac_filtering") or self.filters_ipv4 or self.filters_ipv6

    @property
    def ingress_bits(self) -> int:
        """Bits each second towards the instance, 0 for no limit."""
        return parse_bits(self.options.get("limits.ingress") or self.options.get("limits.max", ""))

    @property
    def egress_bits(self) -> int:
        """Bits each second out of the instance, 0 for no limit."""
        return parse_bits(self.options.get("limits.egress") or self.options.get("limits.max", ""))

    @property
    def vlan(self) -> int:
        """The VLAN of the parent that it is on, 0 for none."""
        return int(self.options.get("vlan") or 0) if self.options.get("vlan") != "none" else 0

    @property
    def priority(self) -> int:
        """The kernel's priority of what leaves the instance, 0 for none."""
        return int(self.options.get("limits.priority") or 0)

    @property
    def queue_length(self) -> int | None:
        """Packets that its queues take, None for the kernel's choice."""
        text = self.options.get("queue.tx.length")
        return int(text) if text else None

    def addresses(self, family: str) -> tuple[str, ...]:
        """Return the addresses of one family ("ipv4", "ipv6") that it has been given."""
        text = self.ipv4 if family == "ipv4" else self.ipv6
        return tuple(each for each in words(text) if each != "none")

    @property
    def routes(self) -> tuple[str, ...]:
        """Subnets that the host routes to the instance."""
        return self.subnets("ipv4") + self.subnets("ipv6")

    def subnets(self, family: str) -> tuple[str, ...]:
        """Return the subnets of one family ("ipv4", "ipv6") routed to the instance."""
        keys = (f"{family}.routes", f"{family}.routes.external")
        return tuple(each for key in keys for each in words(self.options.get(key, "")))


def words(text: str) -> Iterable[str]:
    """Split a list of values at its commas."""
    return [each.strip() for each in text.split(",") if each.strip()]
