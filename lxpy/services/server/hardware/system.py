"""The machine itself. Source: kernel docs, ABI/testing/sysfs-class-dmi; systemd-detect-virt(1)."""

from __future__ import annotations

from lxpy.api.resources import Firmware, Part, System
from lxpy.doctor import Host
from lxpy.services.server.hardware import sysfs

_DMI = "/sys/class/dmi/id"


def read(host: Host) -> System:
    """Return what DMI tells; the parts are None where the machine has no DMI."""

    def dmi(name: str) -> str:
        return host.read(f"{_DMI}/{name}")

    known = sysfs.exists(host, _DMI)
    return System(
        uuid=dmi("product_uuid"),
        vendor=dmi("sys_vendor"),
        product=dmi("product_name"),
        family=dmi("product_family"),
        version=dmi("product_version"),
        sku=dmi("product_sku"),
        serial=dmi("product_serial"),
        type=_type(host),
        firmware=Firmware(
            vendor=dmi("bios_vendor"), date=dmi("bios_date"), version=dmi("bios_version")
        ) if known else None,
        chassis=Part(
            vendor=dmi("chassis_vendor"), serial=dmi("chassis_serial"),
            version=dmi("chassis_version"), type=dmi("chassis_type"),
        ) if known else None,
        motherboard=Part(
            vendor=dmi("board_vendor"), serial=dmi("board_serial"),
            version=dmi("board_version"), product=dmi("board_name"),
        ) if known else None,
    )  # fmt: skip


def _type(host: Host) -> str:
    """Return container, virtual-machine or physical."""
    environment = host.read("/proc/1/environ").split("\0")
    if any(each.startswith("container=") for each in environment):
        return "container"
    flags = next(
        (line for line in host.read("/proc/cpuinfo").splitlines() if line.startswith("flags")), ""
    )
    is_guest = "hypervisor" in flags.split() or sysfs.exists(host, "/sys/hypervisor/type")
    return "virtual-machine" if is_guest else "physical"
