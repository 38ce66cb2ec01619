"""The host's hardware, as /proc and /sys have it."""

from __future__ import annotations

from lxpy.api.resources import Resources
from lxpy.doctor import Host
from lxpy.services.server.hardware import cpu, devices, disks, memory, system

__all__ = ["read"]


def read(host: Host | None = None) -> Resources:
    """Return all of it; takes some milliseconds: not for the event loop."""
    seen = host or Host()
    return Resources(
        cpu=cpu.read(seen),
        memory=memory.read(seen),
        gpu=devices.gpus(seen),
        network=devices.networks(seen),
        storage=disks.read(seen),
        usb=devices.usb(seen),
        pci=devices.pci(seen),
        system=system.read(seen),
    )
