"""The device nodes of the host's USB devices, graphics cards, and what hangs on USB. Blocking.

Source: sysfs.rst, usb(4)'s sysfs-bus-usb, drm-uapi.rst; LXD docs on gpu for NVIDIA's nodes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lxpy.instances.devices.hardware import NVIDIA, Hardware

_CARD = re.compile(r"card([0-9]+)")
_NVIDIA_COMMON = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")


@dataclass(frozen=True, slots=True)
class Scanner:
    """Looks below these directories."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    proc: Path = Path("/proc")

    def scan(self) -> list[Hardware]:
        """Return all there is now; what goes meanwhile is left out."""
        return [*self._usb(), *self._cards(), *self._nvidia(), *self._on_usb()]

    def _usb(self) -> Iterator[Hardware]:
        for entry in _entries(self.sys / "bus/usb/devices"):
            number = _number(entry / "dev")
            if number is None or not (entry / "idVendor").exists():
                continue
            bus, device = _integer(entry / "busnum"), _integer(entry / "devnum")
            yield Hardware(
                f"/dev/bus/usb/{bus:03}/{device:03}", "c", *number, subsystem="usb",
                vendorid=_text(entry / "idVendor"), productid=_text(entry / "idProduct"),
                serial=_text(entry / "serial"), busnum=bus, devnum=device,
            )  # fmt: skip

    def _cards(self) -> Iterator[Hardware]:
        for entry in _entries(self.sys / "class/drm"):
            number = _number(entry / "dev")
            if number is None:
                continue
            card = _CARD.fullmatch(entry.name)
            device = (entry / "device").resolve()
            yield Hardware(
                f"/dev/dri/{entry.name}", "c", *number, subsystem="drm",
                vendorid=_hex(device / "vendor"), productid=_hex(device / "device"),
                pci=device.name, card=int(card[1]) if card else -1,
            )  # fmt: skip

    def _nvidia(self) -> Iterator[Hardware]:
        cards = {}
        for entry in _entries(self.proc / "driver/nvidia/gpus"):
            text = _text(entry / "information")
            found = re.search(r"^Device Minor:\s*([0-9]+)", text, re.MULTILINE)
            if found:
                cards[f"nvidia{found[1]}"] = entry.name.lower()
        for name, pci in [*cards.items(), *((name, "") for name in _NVIDIA_COMMON)]:
            node = self._node(name)
            if node is not None:
                yield Hardware(f"/dev/{name}", *node, subsystem="nvidia", vendorid=NVIDIA, pci=pci)

    def _on_usb(self) -> Iterator[Hardware]:
        """Find what has a node and hangs on a USB device: serial ports, disks, keys."""
        kinds: tuple[tuple[Literal["c", "b"], str], ...] = (("c", "char"), ("b", "block"))
        for kind, name in kinds:
            for entry in _entries(self.sys / "dev" / name):
                place = entry.resolve()
                subsystem = (place / "subsystem").resolve().name
                number, path = _number(place / "dev"), _devname(place)
                above = None if subsystem == "usb" else _usb_device(place, self.sys)
                if number is not None and above is not None and path:
                    yield Hardware(
                        path, kind, *number, subsystem=subsystem,
                        vendorid=_text(above / "idVendor"), productid=_text(above / "idProduct"),
                        serial=_text(above / "serial"),
                    )  # fmt: skip

    def _node(self, name: str) -> tuple[Literal["c", "b"], int, int] | None:
        try:
            status = (self.dev / name).stat()
        except OSError:
            return None
        if not stat.S_ISCHR(status.st_mode):
            return None
        return "c", os.major(status.st_rdev), os.minor(status.st_rdev)


def _usb_device(place: Path, sys: Path) -> Path | None:
    for above in place.parents:
        if (above / "idVendor").exists():
            return above
        if above == sys:
            return None
    return None


def _devname(place: Path) -> str:
    for line in _text(place / "uevent").splitlines():
        if line.startswith("DEVNAME="):
            return f"/dev/{line[8:]}"
    return ""


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _hex(path: Path) -> str:
    return _text(path).removeprefix("0x").lower()


def _integer(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0


def _number(path: Path) -> tuple[int, int] | None:
    major, colon, minor = _text(path).partition(":")
    return (int(major), int(minor)) if colon else None
