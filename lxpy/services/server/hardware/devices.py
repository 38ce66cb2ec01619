"""Devices on PCI and USB: everything there, and what of it are network and graphics cards."""

from __future__ import annotations

from lxpy.api.resources import (
    Gpu,
    GpuCard,
    Network,
    NetworkCard,
    NetworkPort,
    Pci,
    PciDevice,
    Usb,
    UsbDevice,
    UsbInterface,
)
from lxpy.doctor import Host
from lxpy.services.server.hardware import sysfs

_PCI = "/sys/bus/pci/devices"
_USB = "/sys/bus/usb/devices"
_NET = "/sys/class/net"
_DISPLAY = "0x03"  # the class of graphics cards
_PROTOCOLS = {1: "ethernet", 32: "infiniband"}  # of <net/if_arp.h>


def pci(host: Host) -> Pci:
    """Return the PCI devices."""
    found: list[PciDevice] = []
    for address in sysfs.names(host, _PCI):
        path = f"{_PCI}/{address}"
        driver, version = sysfs.driver(host, path)
        group = sysfs.target(host, f"{path}/iommu_group")
        found.append(
            PciDevice(
                driver=driver,
                driver_version=version,
                iommu_group=int(group) if group.isdigit() else 0,
                numa_node=sysfs.numa_node(host, path),
                pci_address=address,
                product="",
                product_id=sysfs.hexadecimal(host.read(f"{path}/device")),
                vendor="",
                vendor_id=sysfs.hexadecimal(host.read(f"{path}/vendor")),
            )
        )
    return Pci(devices=found, total=len(found))


def gpus(host: Host) -> Gpu:
    """Return the graphics cards."""
    cards: list[GpuCard] = []
    for each in pci(host).devices:
        path = f"{_PCI}/{each.pci_address}"
        if host.read(f"{path}/class").startswith(_DISPLAY):
            cards.append(
                GpuCard(
                    driver=each.driver,
                    driver_version=each.driver_version,
                    numa_node=each.numa_node,
                    pci_address=each.pci_address,
                    product=each.product,
                    product_id=each.product_id,
                    vendor=each.vendor,
                    vendor_id=each.vendor_id,
                    drm=_drm(host, path),
                )
            )
    return Gpu(cards=cards, total=len(cards))


def _drm(host: Host, path: str) -> dict[str, str | int] | None:
    found: dict[str, str | int] = {}
    for name in sysfs.names(host, f"{path}/drm"):
        device = host.read(f"{path}/drm/{name}/dev")
        if name.startswith("card"):
            found |= {"id": int(name[4:] or 0), "card_name": name, "card_device": device}
        elif name.startswith("renderD"):
            found |= {"render_name": name, "render_device": device}
    return found or None


def networks(host: Host) -> Network:
    """Return the network cards with their interfaces: those that are hardware."""
    cards: dict[str, NetworkCard] = {}
    for name in sysfs.names(host, _NET):
        path = f"{_NET}/{name}"
        if not sysfs.exists(host, f"{path}/device"):
            continue
        usb_path = sysfs.usb_device(host, f"{path}/device")
        address = "" if usb_path else sysfs.pci_address(host, f"{path}/device")
        key = address or name
        if key not in cards:
            cards[key] = _card(host, f"{path}/device", address)
            if usb_path:
                _of_usb(host, cards[key], usb_path)
        cards[key].ports.append(_port(host, name))
    return Network(cards=list(cards.values()), total=len(cards))


def _card(host: Host, device: str, address: str) -> NetworkCard:
    driver, version = sysfs.driver(host, device)
    path = f"{_PCI}/{address}" if address else device
    return NetworkCard(
        driver=driver,
        driver_version=version,
        numa_node=sysfs.numa_node(host, path),
        pci_address=address,
        product="",
        product_id=sysfs.hexadecimal(host.read(f"{path}/device")),
        vendor="",
        vendor_id=sysfs.hexadecimal(host.read(f"{path}/vendor")),
        ports=[],
    )


def _of_usb(host: Host, card: NetworkCard, path: str) -> None:
    """Say what the USB device at `path` is, of which the card is a part."""
    card.usb_address = sysfs.usb_address(host, path)
    card.product, card.product_id = host.read(f"{path}/product"), host.read(f"{path}/idProduct")
    card.vendor, card.vendor_id = host.read(f"{path}/manufacturer"), host.read(f"{path}/idVendor")


def _port(host: Host, name: str) -> NetworkPort:
    path = f"{_NET}/{name}"
    kind = host.number(f"{path}/type") or 0
    return NetworkPort(
        id=name,
        address=host.read(f"{path}/address"),
        port=host.number(f"{path}/dev_port") or 0,
        protocol=_PROTOCOLS.get(kind, "unknown"),
        auto_negotiation=False,
        link_detected=host.number(f"{path}/carrier") == 1,
        link_speed=max(0, host.number(f"{path}/speed") or 0),
        link_duplex=host.read(f"{path}/duplex"),
    )


def usb(host: Host) -> Usb:
    """Return the USB devices, root hubs left out."""
    found: list[UsbDevice] = []
    for name in sysfs.names(host, _USB):
        path = f"{_USB}/{name}"
        number = host.number(f"{path}/devnum")
        if number is None or ":" in name or name.startswith("usb"):
            continue
        speed = host.read(f"{path}/speed")
        found.append(
            UsbDevice(
                bus_address=host.number(f"{path}/busnum") or 0,
                device_address=number,
                interfaces=[
                    _interface(host, f"{path}/{each}")
                    for each in sysfs.names(host, path)
                    if each.startswith(f"{name}:")
                ],
                product=host.read(f"{path}/product"),
                product_id=host.read(f"{path}/idProduct"),
                vendor=host.read(f"{path}/manufacturer"),
                vendor_id=host.read(f"{path}/idVendor"),
                speed=float(speed) if speed.replace(".", "", 1).isdigit() else 0.0,
            )
        )
    return Usb(devices=found, total=len(found))


def _interface(host: Host, path: str) -> UsbInterface:
    driver, version = sysfs.driver(host, path)
    return UsbInterface(
        class_="",
        class_id=_hex(host, f"{path}/bInterfaceClass"),
        driver=driver,
        driver_version=version,
        number=_hex(host, f"{path}/bInterfaceNumber"),
        subclass="",
        subclass_id=_hex(host, f"{path}/bInterfaceSubClass"),
    )


def _hex(host: Host, path: str) -> int:
    try:
        return int(host.read(path), 16)
    except ValueError:
        return 0
