"""Finding hardware on a made-up /sys, /dev and /proc."""

from __future__ import annotations

from pathlib import Path

from lxpy.services.server.hardware.nodes import Scanner


def _write(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text + "\n")
    return directory


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


def _tree(root: Path) -> Scanner:
    """Make a hub with a serial adapter, and a graphics card."""
    sys = root / "sys"
    usb = _write(
        sys / "devices/pci0/usb1/1-2",
        idVendor="0403", idProduct="6001", busnum="1", devnum="4", serial="A1", dev="189:3",
    )  # fmt: skip
    _link(sys / "bus/usb/devices/1-2", usb)
    _write(sys / "bus/usb/devices/1-2:1.0", bInterfaceClass="ff")
    port = _write(
        usb / "1-2:1.0/ttyUSB0/tty/ttyUSB0", dev="188:0", uevent="MAJOR=188\nDEVNAME=ttyUSB0"
    )
    _link(port / "subsystem", _write(sys / "class/tty"))
    _link(sys / "dev/char/188:0", port)
    _link(usb / "subsystem", _write(sys / "bus/usb"))
    _link(sys / "dev/char/189:3", usb)
    card = _write(sys / "devices/pci0/0000:3b:00.0", vendor="0x10de", device="0x1eb8")
    for name, number in (("card1", "226:1"), ("renderD129", "226:129")):
        entry = _write(card / "drm" / name, dev=number)
        _link(entry / "device", card)
        _link(sys / "class/drm" / name, entry)
    _write(sys / "class/drm/card1-DP-1")
    gpus = root / "proc/driver/nvidia/gpus/0000:3B:00.0"
    _write(gpus, information="Model: Tesla\nDevice Minor: \t 0")
    (root / "dev").mkdir()
    return Scanner(sys, root / "dev", root / "proc")


def test_a_host(tmp_path: Path) -> None:
    found = {each.path: each for each in _tree(tmp_path).scan()}
    assert sorted(found) == [
        "/dev/bus/usb/001/004",
        "/dev/dri/card1",
        "/dev/dri/renderD129",
        "/dev/ttyUSB0",
    ]
    usb, port = found["/dev/bus/usb/001/004"], found["/dev/ttyUSB0"]
    assert (usb.major, usb.minor, usb.vendorid, usb.serial) == (189, 3, "0403", "A1")
    assert (port.subsystem, port.vendorid, port.kind) == ("tty", "0403", "c")
    card = found["/dev/dri/card1"]
    assert (card.card, card.pci, card.vendorid) == (1, "0000:3b:00.0", "10de")
    assert found["/dev/dri/renderD129"].card == -1


def test_an_empty_host(tmp_path: Path) -> None:
    assert Scanner(tmp_path / "sys", tmp_path / "dev", tmp_path / "proc").scan() == []
