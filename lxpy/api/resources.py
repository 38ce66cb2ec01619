"""The host's hardware as `GET /1.0/resources` tells it. Sizes are bytes, frequencies MHz.

Source: LXD docs, "REST API", "Server", "resources".
"""

from __future__ import annotations

from msgspec import Struct, field


class CpuCache(Struct, kw_only=True):
    """A cache; type is Data, Instruction or Unified."""

    level: int
    type: str
    size: int


class CpuThread(Struct, kw_only=True):
    """What the kernel calls a cpu: `id` is its number, `thread` its place in its core."""

    id: int
    numa_node: int
    thread: int
    online: bool
    isolated: bool


class CpuCore(Struct, kw_only=True):
    """A core."""

    core: int
    die: int
    threads: list[CpuThread]
    frequency: int = 0


class CpuSocket(Struct, kw_only=True, omit_defaults=True):
    """A processor."""

    name: str
    vendor: str
    socket: int
    cache: list[CpuCache]
    cores: list[CpuCore]
    frequency: int = 0
    frequency_minimum: int = 0
    frequency_turbo: int = 0


class Cpu(Struct, kw_only=True):
    """The processors; `total` counts threads."""

    architecture: str
    sockets: list[CpuSocket]
    total: int


class MemoryNode(Struct, kw_only=True):
    """The memory of a NUMA node."""

    numa_node: int
    hugepages_used: int
    hugepages_total: int
    used: int
    total: int


class Memory(Struct, kw_only=True):
    """The memory; huge pages in bytes, too."""

    nodes: list[MemoryNode]
    hugepages_total: int
    hugepages_used: int
    hugepages_size: int
    used: int
    total: int


class GpuCard(Struct, kw_only=True):
    """A graphics card."""

    driver: str
    driver_version: str
    numa_node: int
    pci_address: str
    product: str
    product_id: str
    vendor: str
    vendor_id: str
    drm: dict[str, str | int] | None = None


class Gpu(Struct, kw_only=True):
    """The graphics cards."""

    cards: list[GpuCard]
    total: int


class NetworkPort(Struct, kw_only=True):
    """An interface of a network card; `link_speed` in Mbit/s, 0 when unknown."""

    id: str
    address: str
    port: int
    protocol: str
    auto_negotiation: bool
    link_detected: bool
    link_speed: int = 0
    link_duplex: str = ""


class NetworkCard(Struct, kw_only=True):
    """A network card."""

    driver: str
    driver_version: str
    numa_node: int
    pci_address: str
    product: str
    product_id: str
    vendor: str
    vendor_id: str
    ports: list[NetworkPort]
    usb_address: str = ""


class Network(Struct, kw_only=True):
    """The network cards."""

    cards: list[NetworkCard]
    total: int


class DiskPartition(Struct, kw_only=True):
    """A partition; `device` is major:minor."""

    id: str
    device: str
    partition: int
    read_only: bool
    size: int


class Disk(Struct, kw_only=True):
    """A disk; `rpm` is 0 for one without moving parts, `device` major:minor."""

    id: str
    device: str
    model: str
    serial: str
    firmware_version: str
    device_id: str
    type: str
    read_only: bool
    removable: bool
    rpm: int
    size: int
    block_size: int
    numa_node: int
    pci_address: str
    partitions: list[DiskPartition]
    usb_address: str = ""


class Storage(Struct, kw_only=True):
    """The disks."""

    disks: list[Disk]
    total: int


class UsbInterface(Struct, kw_only=True):
    """A function of a USB device."""

    class_: str = field(name="class")
    class_id: int
    driver: str
    driver_version: str
    number: int
    subclass: str
    subclass_id: int


class UsbDevice(Struct, kw_only=True):
    """A USB device; `speed` in Mbit/s."""

    bus_address: int
    device_address: int
    interfaces: list[UsbInterface]
    product: str
    product_id: str
    vendor: str
    vendor_id: str
    speed: float


class Usb(Struct, kw_only=True):
    """The USB devices."""

    devices: list[UsbDevice]
    total: int


class PciDevice(Struct, kw_only=True):
    """A PCI device."""

    driver: str
    driver_version: str
    iommu_group: int
    numa_node: int
    pci_address: str
    product: str
    product_id: str
    vendor: str
    vendor_id: str


class Pci(Struct, kw_only=True):
    """The PCI devices."""

    devices: list[PciDevice]
    total: int


class Firmware(Struct, kw_only=True):
    """The firmware."""

    vendor: str
    date: str
    version: str


class Part(Struct, kw_only=True):
    """The chassis (type) or the motherboard (product)."""

    vendor: str
    serial: str
    version: str
    type: str = ""
    product: str = ""


class System(Struct, kw_only=True):
    """The machine; type is physical, virtual-machine, container or unknown."""

    uuid: str
    vendor: str
    product: str
    family: str
    version: str
    sku: str
    serial: str
    type: str
    firmware: Firmware | None
    chassis: Part | None
    motherboard: Part | None


class Resources(Struct, kw_only=True):
    """Everything."""

    cpu: Cpu
    memory: Memory
    gpu: Gpu
    network: Network
    storage: Storage
    usb: Usb
    pci: Pci
    system: System
