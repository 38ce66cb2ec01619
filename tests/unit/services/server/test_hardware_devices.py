"""Disks and network cards on a made-up /sys."""

from __future__ import annotations

from pathlib import Path

from lxpy.doctor import Host
from lxpy.services.server.hardware import devices, disks


def _device(root: Path, place: str, shown: str, *, hangs_on: str) -> None:
    """Make a device at `place` in /sys/devices, its entry in a class, and its link upwards."""
    path = root / "sys/devices" / place
    path.mkdir(parents=True)
    (path / "device").symlink_to(root / "sys/devices" / hangs_on)
    entry = root / "sys/class" / shown
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.symlink_to(path)


def test_what_hangs_on_usb(tmp_path: Path) -> None:
    port = "pci0000:00/0000:00:14.0/usb3/3-5"
    usb = tmp_path / "sys/devices" / port
    usb.mkdir(parents=True)
    for name, text in (
        ("busnum", "3"), ("devnum", "7"), ("idVendor", "0bda"), ("idProduct", "8153"),
        ("manufacturer", "Realtek"), ("product", "LAN"),
    ):  # fmt: skip
        (usb / name).write_text(f"{text}\n")
    (tmp_path / "sys/devices/pci0000:00/0000:01:00.0").mkdir()
    _device(tmp_path, f"{port}/3-5:1.0/net/enx1", "net/enx1", hangs_on=f"{port}/3-5:1.0")
    _device(tmp_path, f"{port}/3-5:1.1/host9/block/sdx", "block/sdx", hangs_on=f"{port}/3-5:1.1")
    card = "pci0000:00/0000:01:00.0"
    _device(tmp_path, f"{card}/net/enp1", "net/enp1", hangs_on=card)
    host = Host(root=tmp_path)

    plain, found = devices.networks(host).cards
    assert (plain.pci_address, plain.usb_address) == ("0000:01:00.0", "")
    assert (found.pci_address, found.usb_address) == ("", "3:7")
    assert (found.vendor_id, found.product_id, found.vendor) == ("0bda", "8153", "Realtek")
    (disk,) = disks.read(host).disks
    assert (disk.usb_address, disk.pci_address) == ("3:7", "0000:00:14.0")
