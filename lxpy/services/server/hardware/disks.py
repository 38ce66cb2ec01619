"""Disks. Source: kernel docs, ABI/stable/sysfs-block."""

from __future__ import annotations

import os

from lxpy.api.resources import Disk, DiskPartition, Storage
from lxpy.doctor import Host
from lxpy.services.server.hardware import sysfs

_BLOCK = "/sys/class/block"
_SECTOR_BYTES = 512  # of /sys/block/*/size, whatever the disk's own are
_BY_ID = "/dev/disk/by-id"
#: subsystem of what the disk hangs on -> LXD's word
_TYPES = ("nvme", "virtio", "usb", "sata", "mmc", "scsi")


def read(host: Host) -> Storage:
    """Return the disks that are devices of their own: no loops, no mappings."""
    found = [
        _disk(host, name)
        for name in sysfs.names(host, _BLOCK)
        if sysfs.exists(host, f"{_BLOCK}/{name}/device")
        and not sysfs.exists(host, f"{_BLOCK}/{name}/partition")
    ]
    return Storage(disks=found, total=len(found))


def _disk(host: Host, name: str) -> Disk:
    path = f"{_BLOCK}/{name}"
    return Disk(
        id=name,
        device=host.read(f"{path}/dev"),
        model=host.read(f"{path}/device/model").strip(),
        serial=(host.read(f"{path}/device/serial") or host.read(f"{path}/serial")).strip(),
        firmware_version=(
            host.read(f"{path}/device/firmware_rev") or host.read(f"{path}/device/rev")
        ).strip(),
        device_id=_id(host, name),
        type=_type(host, name),
        read_only=host.number(f"{path}/ro") == 1,
        removable=host.number(f"{path}/removable") == 1,
        rpm=host.number(f"{path}/queue/rotational") or 0,
        size=(host.number(f"{path}/size") or 0) * _SECTOR_BYTES,
        block_size=host.number(f"{path}/queue/physical_block_size") or 0,
        numa_node=sysfs.numa_node(host, f"{path}/device"),
        pci_address=sysfs.pci_address(host, path),
        usb_address=sysfs.usb_address(host, path),
        partitions=[
            _partition(host, each)
            for each in sysfs.names(host, path)
            if sysfs.exists(host, f"{_BLOCK}/{each}/partition")
        ],
    )


def _partition(host: Host, name: str) -> DiskPartition:
    path = f"{_BLOCK}/{name}"
    return DiskPartition(
        id=name,
        device=host.read(f"{path}/dev"),
        partition=host.number(f"{path}/partition") or 0,
        read_only=host.number(f"{path}/ro") == 1,
        size=(host.number(f"{path}/size") or 0) * _SECTOR_BYTES,
    )


def _type(host: Host, name: str) -> str:
    """Return the bus: of the device itself, or, for what SCSI speaks to, of the one above."""
    subsystem = sysfs.target(host, f"{_BLOCK}/{name}/device/subsystem")
    if subsystem != "scsi":
        return subsystem if subsystem in _TYPES else subsystem or "unknown"
    path = os.path.realpath(host.file(f"{_BLOCK}/{name}"))
    if "/usb" in path:
        return "usb"
    return "sata" if "/ata" in path else "scsi"


def _id(host: Host, name: str) -> str:
    for each in sysfs.names(host, _BY_ID):
        if sysfs.target(host, f"{_BY_ID}/{each}") == name:
            return each
    return ""
