"""Device types that LXD has and this version has not: known, so that they are refused by name."""

from __future__ import annotations

from lxpy.errors import NotSupported
from lxpy.instances.devices.base import Options

TYPES = frozenset(("gpu", "infiniband", "pci", "tpm", "unix-hotplug", "usb"))


def validate(given: Options) -> None:
    """Refuse."""
    raise NotSupported(
        f'Unsupported device type "{given["type"]}": this version of lxpy does not have it yet'
    )
