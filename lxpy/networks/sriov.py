"""Virtual functions of network cards (SR-IOV): which is free. Blocking.

Source: Documentation/PCI/pci-iov-howto.rst, sysfs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lxpy.errors import Failed, NotSupported

_NET = Path("/sys/class/net")


@dataclass(frozen=True, slots=True)
class Function:
    """Virtual function number `number` of a card; the host's interface for it is `name`."""

    number: int
    name: str


def free_function(parent: str, net: Path = _NET) -> Function:
    """Return a virtual function of a card whose interface is on the host and switched off.

    Raises NotSupported when the card has no such functions, Failed when all are in use.
    """
    device = net / parent / "device"
    try:
        total = int((device / "sriov_totalvfs").read_text())
    except (OSError, ValueError):
        total = 0
    if not total:
        raise NotSupported(
            f'Parent device "{parent}" doesn\'t support SR-IOV: it is no physical card, or its '
            "driver has no virtual functions; use nictype macvlan"
        )
    found = list(_functions(device))
    if not found:
        raise Failed(
            f'Parent device "{parent}" has SR-IOV disabled: write a number, {total} at most, to '
            f"{device}/sriov_numvfs"
        )
    for function in sorted(found, key=lambda each: each.number):
        if not _is_up(net / function.name):
            return function
    raise Failed(f'All virtual functions on parent device "{parent}" are already in use')


def _functions(device: Path) -> list[Function]:
    found = []
    for entry in device.glob("virtfn*"):
        number = re.fullmatch(r"virtfn([0-9]+)", entry.name)
        names = sorted(each.name for each in (entry / "net").glob("*"))
        if number and names:  # one that is in an instance has no interface here
            found.append(Function(int(number[1]), names[0]))
    return found


def _is_up(link: Path) -> bool:
    try:
        return bool(int((link / "flags").read_text(), 16) & 1)
    except (OSError, ValueError):
        return True
