"""What `netlink` is asked to make for instances."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Veth:
    """A pair to make: `name` and `hwaddr` are the guest's, in the namespace of process `pid`.

    `host_name` is "" where a name is made up; `queue_length` is in packets, None for the kernel's
    choice.
    """

    pid: int
    name: str
    hwaddr: str
    mtu: int
    host_name: str = ""
    queue_length: int | None = None


@dataclass(frozen=True, slots=True)
class Inside:
    """An interface that is in the namespace of process `pid` only, and comes from a `parent`.

    `index` is its number there. `hwaddr` is "" and `mtu` 0 for what the parent has; `mode` is an
    ipvlan's.
    """

    pid: int
    name: str
    parent: str
    index: int
    hwaddr: str = ""
    mtu: int = 0
    mode: str = "l3s"


@dataclass(frozen=True, slots=True)
class VirtualFunction:
    """What a card enforces for one of its virtual functions."""

    hwaddr: str
    vlan: int
    filtered: bool
