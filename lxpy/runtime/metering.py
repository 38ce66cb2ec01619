"""All that a monitoring system wants to know of an instance: processors, memory, disks, interfaces.

Everything is read from the kernel's files: some ten small ones, no trip elsewhere. What this host
has no controller for is left out.

Source: the kernel's cgroup-v2.rst and cgroup-v1/{cpuacct,memory,blkio-controller}.rst; proc(5).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from lxpy.kernel.files import space
from lxpy.runtime.cgroups import Group
from lxpy.runtime.files import read

T = TypeVar("T")

_MAX_INTERFACES = 128  # an instance may make as many as it likes
#: our names of what memory.stat has: cgroup2's name, and that of version 1
_MEMORY = {
    "active_anon": ("active_anon", "total_active_anon"),
    "active_file": ("active_file", "total_active_file"),
    "cached": ("file", "total_cache"),
    "dirty": ("file_dirty", "total_dirty"),
    "inactive_anon": ("inactive_anon", "total_inactive_anon"),
    "inactive_file": ("inactive_file", "total_inactive_file"),
    "mapped": ("file_mapped", "total_mapped_file"),
    "rss": ("anon", "total_rss"),
    "shmem": ("shmem", "total_shmem"),
    "unevictable": ("unevictable", "total_unevictable"),
    "writeback": ("file_writeback", "total_writeback"),
}
#: by number, statfs(2)
_FILE_SYSTEMS = {
    0x01021994: "tmpfs", 0x01021997: "9p", 0x2FC12FC1: "zfs", 0x517B: "smb", 0x58465342: "xfs",
    0x6969: "nfs", 0x65735546: "fuse", 0x73717368: "squashfs", 0x794C7630: "overlayfs",
    0x9123683E: "btrfs", 0x9660: "iso9660", 0xCA451A4E: "bcachefs", 0xEF53: "ext4",
    0xF2F52010: "f2fs", 0xFE534D42: "smb2", 0xFF534D42: "cifs",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cpu:
    """What an instance did on one processor, in nanoseconds; all is said of 0 by cgroup2."""

    number: int
    user_ns: int
    system_ns: int


@dataclass(slots=True)
class BlockDevice:
    """What went to and from a disk of the host."""

    name: str
    read_bytes: int = 0
    reads: int = 0
    written_bytes: int = 0
    writes: int = 0


@dataclass(frozen=True, slots=True)
class Interface:
    """What went through an interface, as the instance sees it."""

    name: str
    received_bytes: int
    received_packets: int
    received_errors: int
    received_drops: int
    sent_bytes: int
    sent_packets: int
    sent_errors: int
    sent_drops: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes; `limit` is 0 where there is none, `parts` are by the names of `_MEMORY`."""

    limit: int
    usage: int
    swap: int
    parts: dict[str, int]


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a file system of the host has room for, in bytes."""

    type: str
    size: int
    free: int
    available: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One running system, as of a moment."""

    cpus: tuple[Cpu, ...]
    memory: Memory | None
    devices: tuple[BlockDevice, ...]
    interfaces: tuple[Interface, ...]
    processes: int | None


def measure(group: Group, pid: int) -> Measured:
    """Read the groups of an instance, and the interfaces of its init's namespace.

    What cannot be read, as the instance has ended meanwhile, is left out.
    """
    return Measured(
        cpus=tuple(_cpus(group)),
        memory=_quiet(lambda: _memory(group)),
        devices=tuple(_devices(group)),
        interfaces=_quiet(lambda: tuple(_interfaces(pid))) or (),
        processes=_quiet(lambda: int(read(f"{_base(group, 'pids')}/pids.current"))),
    )


def file_system(path: str) -> FileSystem:
    """Return what `df` says of a path of the host. Raises OSError."""
    magic, size, free, available = space(path)
    return FileSystem(_FILE_SYSTEMS.get(magic, f"0x{magic:x}"), size, free, available)


def _quiet(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except (OSError, ValueError, KeyError):
        return None


def _base(group: Group, controller: str) -> str:
    mount = group.layout.v1.get(controller)
    return f"{mount}/{group.path}" if mount else group.v2


def _cpus(group: Group) -> Iterator[Cpu]:
    if "cpuacct" not in group.layout.v1:
        found = _quiet(lambda: dict(_pairs(read(f"{group.v2}/cpu.stat"))))
        if found:
            yield Cpu(0, found.get("user_usec", 0) * 1000, found.get("system_usec", 0) * 1000)
        return
    text = _quiet(lambda: read(f"{_base(group, 'cpuacct')}/cpuacct.usage_all")) or ""
    present = os.cpu_count() or 1
    for line in text.splitlines()[1:]:
        number, user, system = map(int, line.split())
        if number < present or user or system:  # the kernel lists every one there might be
            yield Cpu(number, user, system)


def _memory(group: Group) -> Memory:
    limit, usage = group.memory()
    v1 = "memory" in group.layout.v1
    base = _base(group, "memory")
    stat = dict(_pairs(read(f"{base}/memory.stat")))
    parts = {name: stat.get(names[v1], 0) for name, names in _MEMORY.items()}
    if v1:
        swap = stat.get("total_swap", 0)
    else:
        swap = _quiet(lambda: int(read(f"{base}/memory.swap.current"))) or 0
    return Memory(limit, usage, swap, parts)


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        yield name, int(number)


def _devices(group: Group) -> Iterator[BlockDevice]:
    found: dict[str, BlockDevice] = {}
    if "blkio" in group.layout.v1:
        base = f"{_base(group, 'blkio')}/blkio.throttle"
        _read_v1(f"{base}.io_service_bytes", found, ("read_bytes", "written_bytes"))
        _read_v1(f"{base}.io_serviced", found, ("reads", "writes"))
    else:
        _read_v2(f"{group.v2}/io.stat", found)
    for number in sorted(found):
        if name := _device_name(number):
            found[number].name = name
            yield found[number]


def _device_name(number: str) -> str:
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    except OSError:
        return ""  # it has been taken away


def _read_v1(path: str, found: dict[str, BlockDevice], names: tuple[str, str]) -> None:
    """Read "254:0 Read 8192", "254:0 Write 0" ...; the last line has no device."""
    for line in (_quiet(lambda: read(path)) or "").splitlines():
        number, _, rest = line.partition(" ")
        what, _, value = rest.partition(" ")
        if what in ("Read", "Write"):
            device = found.setdefault(number, BlockDevice(number))
            setattr(device, names[what == "Write"], int(value))


def _read_v2(path: str, found: dict[str, BlockDevice]) -> None:
    """Read "254:0 rbytes=8192 wbytes=0 rios=2 wios=0 ..."."""
    for line in (_quiet(lambda: read(path)) or "").splitlines():
        number, *words = line.split()
        values = dict(word.partition("=")[::2] for word in words)
        if "rbytes" in values:
            found[number] = BlockDevice(
                number, int(values["rbytes"]), int(values["rios"]),
                int(values["wbytes"]), int(values["wios"]),
            )  # fmt: skip


def _interfaces(pid: int) -> Iterator[Interface]:
    with open(f"/proc/{pid}/net/dev", encoding="utf-8", errors="replace") as file:
        lines = file.read(_MAX_INTERFACES * 256).splitlines()[2 : 2 + _MAX_INTERFACES]
    for line in lines:
        name, _, rest = line.partition(":")
        numbers = [int(each) for each in rest.split()]
        if len(numbers) >= 12:
            yield Interface(name.strip(), *numbers[:4], *numbers[8:12])
