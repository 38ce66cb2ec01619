"""How a network of each type is made on the host."""

from __future__ import annotations

from collections.abc import Mapping

from lxpy.networks.drivers.base import Driver, Facts
from lxpy.networks.drivers.bridge import BridgeDriver

__all__ = ["TYPES", "Driver", "Facts"]

#: network type -> its driver
TYPES: Mapping[str, type[BridgeDriver]] = {"bridge": BridgeDriver}
