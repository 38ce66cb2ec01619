"""Twins: a running instance gets another of the same memory, which is somebody else at once.

It has its own name, disk, ids, MAC addresses, and asks for network addresses of its own.
"""

from __future__ import annotations

import asyncio
import os

import structlog

from lxpy.errors import BadRequest, LxpyError
from lxpy.instances import devices, idmaps
from lxpy.instances.model import Instance
from lxpy.programs import run
from lxpy.runtime import twin
from lxpy.runtime.container import Runtime
from lxpy.runtime.spec import ExecSpec
from lxpy.services.instances.power import Power
from lxpy.services.instances.store import InstanceStore
from lxpy.services.memory.checkpoints import Checkpoints
from lxpy.services.networks.nics import nic_devices
from lxpy.services.snapshots.quiet import Saving
from lxpy.threads import in_thread

# What a guest manages its interfaces with nobody can know: the first that is there is asked.
_RENEW = """
hostname {name}
if pidof systemd-networkd >/dev/null; then
    systemctl restart systemd-networkd
elif pidof NetworkManager >/dev/null; then
    for link in {links}; do nmcli device reapply $link || nmcli device connect $link; done
elif command -v ifdown >/dev/null && [ -e /etc/network/interfaces ]; then
    for link in {links}; do ifdown --force $link; ifup $link; done
elif pidof dhcpcd >/dev/null; then
    for link in {links}; do dhcpcd -n $link; done
else
    killall -TERM udhcpc
fi
"""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RENEW_S = 20
_INSIDE = "nsenter --net=/proc/{}/ns/net ip"

_log = structlog.get_logger()


class Twins:
    """Makes the memory of one instance that of another."""

    def __init__(
        self, store: InstanceStore, checkpoints: Checkpoints, power: Power, runtime: Runtime
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._power = power
        self._runtime = runtime

    def saving(self, source: Instance, target: Instance) -> Saving:
        """Return the `Quiet` that saves the memory of a running instance for its twin.

        Raises BadRequest when it does not run.
        """
        if not self._power.is_running(source):
            raise BadRequest(f'Instance "{source.name}" does not run: copy it without live')
        return Saving(self._checkpoints, source, self._checkpoints.place(target.unique_name))

    async def begin(self, source: Instance, project: str, name: str) -> None:
        """Start a new twin, whose row, files and memory are there. Raises LxpyError."""
        target = self._store.get(project, name)
        if source.privileged != target.privileged or _size(source) != _size(target):
            raise BadRequest(
                f'"{name}" cannot be a twin of "{source.name}": both must have as many ids '
                "(security.privileged, security.idmap.size)"
            )
        nics = devices.plan(target.config, nic_devices(target)).nics
        await in_thread(
            lambda: twin.adapt(
                str(self._checkpoints.place(target.unique_name)),
                name=target.unique_name,
                hostname=name,
                shift=_base(target) - _base(source),
                hwaddrs={each.name: each.hwaddr for each in nics},
            )
        )
        links = [each.name for each in nics]

        async def without_addresses(pid: int) -> None:
            # Routes by themselves: those that go with an address go silently, and who keeps them
            # in the guest would not notice.
            for link in links:
                for kind in (("-4", "route"), ("-6", "route"), ("address",)):
                    await run(*_INSIDE.format(pid).split(), *kind, "flush", "dev", link)

        await self._power.revive(project, name, without_addresses)
        await self._renew(target, links)

    async def forget(self, target: Instance) -> None:
        """Remove the memory of a twin that does not come to be."""
        await self._checkpoints.remove(target.unique_name)

    async def _renew(self, instance: Instance, links: list[str]) -> None:
        """Have the guest ask for addresses of its own. Logs what fails."""
        script = _RENEW.format(name=instance.name, links=" ".join(links) or "''")
        spec = ExecSpec(instance.unique_name, ("/bin/sh", "-c", script), {"PATH": _PATH})
        null = await in_thread(os.open, os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            process = await self._runtime.exec(spec, (null, null, null))
            async with asyncio.timeout(_RENEW_S):
                await process.wait()
        except (LxpyError, TimeoutError) as error:
            _log.warning("addresses not renewed", instance=instance.unique_name, error=str(error))
        finally:
            os.close(null)


def _base(instance: Instance) -> int:
    return int(instance.config.get("volatile.idmap.base", "0"))


def _size(instance: Instance) -> int:
    entries = idmaps.from_json(instance.config.get("volatile.idmap.next", "[]"))
    return sum(each.size for each in entries if each.kind == "u")
