"""How a network of each type is made on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lxpy.networks.drivers.base import Driver, Facts
from lxpy.networks.drivers.bridge import BridgeDriver
from lxpy.networks.drivers.parent import MacvlanDriver, PhysicalDriver, SriovDriver

__all__ = ["TYPES", "Driver", "Facts"]

#: network type -> its driver
TYPES: Mapping[str, Callable[[str, Facts], Driver]] = {
    "bridge": BridgeDriver,
    "macvlan": MacvlanDriver,
    "physical": PhysicalDriver,
    "sriov": SriovDriver,
}
