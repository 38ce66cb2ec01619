"""Bonds: several interfaces of the host that are one. Source: Documentation/networking/bonding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_NET = Path("/sys/class/net")


@dataclass(frozen=True, slots=True)
class Bond:
    """How a bond is set and does; delays and the frequency are in milliseconds."""

    mode: str
    transmit_policy: str
    up_delay: int
    down_delay: int
    mii_frequency: int
    mii_state: str
    lower_devices: list[str]


def read(name: str, net: Path = _NET) -> Bond:
    """Return what sysfs says of a bond; what it does not say is "" or 0. Microseconds only."""
    directory = net / name / "bonding"

    def word(key: str) -> str:
        try:
            return next(iter((directory / key).read_text().split()), "")
        except OSError:
            return ""

    def number(key: str) -> int:
        text = word(key)
        return int(text) if text.isdigit() else 0

    try:
        lower = (directory / "slaves").read_text().split()
    except OSError:
        lower = []
    return Bond(
        mode=word("mode"),
        transmit_policy=word("xmit_hash_policy"),
        up_delay=number("updelay"),
        down_delay=number("downdelay"),
        mii_frequency=number("miimon"),
        mii_state=word("mii_status"),
        lower_devices=sorted(lower),
    )
