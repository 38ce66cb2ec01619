"""Small questions to /sys that all kinds of devices have in common."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from lxpy.doctor import Host

_PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]")


def names(host: Host, directory: str) -> list[str]:
    """Return what is in a directory, numbers in order; nothing when it is not there."""
    try:
        found = os.listdir(host.file(directory))
    except OSError:
        return []
    return sorted(found, key=natural)


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which cpu10 comes after cpu9."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def exists(host: Host, path: str) -> bool:
    """Whether there is such a file."""
    return host.file(path).exists()


def target(host: Host, link: str) -> str:
    """Return the last part of what a link leads to, "" when there is none."""
    try:
        return os.path.basename(os.readlink(host.file(link)))
    except OSError:
        return ""


def driver(host: Host, device: str) -> tuple[str, str]:
    """Return the name and version of a device's driver; one of the kernel has its version."""
    name = target(host, f"{device}/driver")
    if not name:
        return "", ""
    version = host.read(f"{device}/driver/module/version")
    return name, version or host.read("/proc/sys/kernel/osrelease")


def numa_node(host: Host, device: str) -> int:
    """Return the NUMA node of a device; one that has none is on the first."""
    return max(0, host.number(f"{device}/numa_node") or 0)


def pci_address(host: Host, device: str) -> str:
    """Return the PCI address of a device or of what it hangs on, "" when it is no PCI device."""
    path = os.path.realpath(host.file(device))
    found = [part for part in path.split("/") if _PCI.fullmatch(part)]
    return found[-1] if found else ""


def usb_device(host: Host, device: str) -> str:
    """Return the directory of the USB device that a device is a part of, "" when there is none."""
    top = os.path.realpath(host.file("/"))
    path = os.path.realpath(host.file(device))
    while path != top and path != "/":
        inside = f"/{os.path.relpath(path, top)}"
        if exists(host, f"{inside}/busnum") and exists(host, f"{inside}/devnum"):
            return inside
        path = os.path.dirname(path)
    return ""


def usb_address(host: Host, device: str) -> str:
    """Return "BUS:DEVICE" of the USB device that a device is a part of, "" when there is none."""
    found = usb_device(host, device)
    return f"{host.number(f'{found}/busnum')}:{host.number(f'{found}/devnum')}" if found else ""


def hexadecimal(text: str) -> str:
    """Return "1af4" for "0x1af4"."""
    return text.removeprefix("0x")


def cpu_list(text: str) -> Iterator[int]:
    """Yield the numbers of "0-3,8"."""
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            yield from range(int(first), int(last or first) + 1)
