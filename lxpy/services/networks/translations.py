"""Proxies of nat=true: the firewall's part of an instance, there while it runs."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from lxpy.errors import LxpyError
from lxpy.instances.devices import plans
from lxpy.instances.model import Instance
from lxpy.networks import portnat
from lxpy.networks.portnat import PortNat
from lxpy.services.networks.networks import Networks

_log = structlog.get_logger()

Options = Mapping[str, str]


class Translations:
    """Keeps the firewall's tables of instances; `owner` is the installation's name on the host."""

    def __init__(self, owner: str, networks: Networks) -> None:
        self._owner = owner
        self._networks = networks
        self._active: set[str] = set()

    async def apply(self, instance: Instance) -> None:
        """Have what an instance's devices ask for, and nothing else. Raises LxpyError."""
        unique = instance.unique_name
        wanted = [
            PortNat(
                each.protocol,
                each.listen,
                each.target,
                self._near(instance.expanded_devices, each.target),
                each.ports,
            )
            for each in plans.translated(instance.expanded_devices)
        ]
        if wanted:
            await portnat.apply(self._owner, unique, wanted)
            self._active.add(unique)
        else:
            await self.remove(unique)

    def connected(self, instance: Instance) -> None:
        """Have the nics of an instance, which are there now, fit its translations."""
        if instance.unique_name in self._active:
            self._networks.turn_back(instance)

    async def remove(self, unique: str) -> None:
        """Take them away. Idempotent. Raises LxpyError."""
        if unique in self._active:
            await portnat.remove(self._owner, unique)
            self._active.discard(unique)

    async def sweep(self) -> None:
        """Take away those of instances that ended while no daemon ran. Logs what fails."""
        try:
            await portnat.sweep(self._owner, self._active)
        except LxpyError as error:
            _log.warning("translations of proxies stay", error=str(error))

    def _near(self, devices: Mapping[str, Options], target: str) -> str:
        for given in devices.values():
            if given.get("type") == "nic" and given.get("network"):
                found = self._networks.around(given["network"], target)
                if found != target:
                    return found
        return target
