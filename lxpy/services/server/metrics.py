"""What instances use, for a monitoring system: read for all of them at once, and kept a while."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lxpy.api.metrics import Samples, labels, render
from lxpy.errors import LxpyError, Unavailable
from lxpy.instances.devices import disk
from lxpy.instances.model import Instance
from lxpy.runtime import metering
from lxpy.runtime.cgroups import Group
from lxpy.runtime.container import Runtime, StartFailed
from lxpy.runtime.metering import Cpu, Interface, Memory
from lxpy.services.instances.starting import holder, volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.storage.disks import Disks
from lxpy.services.storage.pools import Pools
from lxpy.storage import Layers
from lxpy.threads import in_thread

_KEPT_S = 8.0  # as LXD does
_PATIENCE_S = 10.0
_BATCH = 50

Options = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Disk:
    """A disk of an instance: source and path as in its config, and where its files lie."""

    source: str
    path: str
    place: str


@dataclass(frozen=True, slots=True)
class _Subject:
    """A running instance, and where to read what it does."""

    instance: Instance
    pid: int
    group: Group
    disks: tuple[_Disk, ...]


class Metrics:
    """Measures every running instance in one pass, at most every 8 seconds."""

    def __init__(self, store: InstanceStore, runtime: Runtime, pools: Pools, disks: Disks) -> None:
        self._store = store
        self._runtime = runtime
        self._pools = pools
        self._disks = disks
        self._pass: asyncio.Task[Sequence[tuple[str, Samples]]] | None = None
        self._begun = 0.0
        #: by unique name: the process and the devices for which they were found out, root disks
        self._roots: dict[str, tuple[int, Mapping[str, Options], str]] = {}

    async def text(self, project: str, allowed: Collection[str] | None) -> str:
        """Return the metrics of a project ("": all), of the `allowed` ones only (None: all).

        Raises Unavailable when the host's disks do not answer.
        """
        found = await self._latest()
        wanted = (
            samples
            for name, samples in found
            if project in ("", name) and (allowed is None or name in allowed)
        )
        return await in_thread(render, list(wanted))

    async def close(self) -> None:
        """End a pass that is under way."""
        if self._pass is not None:
            self._pass.cancel()
            with contextlib.suppress(asyncio.CancelledError, LxpyError):
                await self._pass

    async def _latest(self) -> Sequence[tuple[str, Samples]]:
        """Return the samples with their projects; whoever comes meanwhile waits for one pass."""
        now = time.monotonic()
        if self._pass is None or (self._pass.done() and now - self._begun > _KEPT_S):
            self._begun = now
            self._pass = asyncio.create_task(self._measure())
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await asyncio.shield(self._pass)
        except TimeoutError:
            raise Unavailable(
                "Instances are still being measured: a disk of the host does not answer, perhaps "
                "a server's that is away"
            ) from None

    async def _measure(self) -> Sequence[tuple[str, Samples]]:
        subjects = [each async for each in self._subjects()]
        mounts, total = await in_thread(lambda: (dict(_mounted()), _memory_bytes()))
        found: list[tuple[str, Samples]] = []
        for start in range(0, len(subjects), _BATCH):
            batch = subjects[start : start + _BATCH]
            found += await in_thread(_samples, batch, mounts, total)
        known = {each.instance.unique_name for each in subjects}
        self._roots = {key: value for key, value in self._roots.items() if key in known}
        return found

    async def _subjects(self) -> AsyncIterator[_Subject]:
        for instance in self._store.listed():
            name = instance.unique_name
            held = self._runtime.held(name)
            if held is None:
                continue
            disks = [each async for each in self._shown(instance, held.pid)]
            with contextlib.suppress(StartFailed):  # it has ended meanwhile
                yield _Subject(instance, held.pid, self._runtime.group(name), tuple(disks))

    async def _shown(self, instance: Instance, pid: int) -> AsyncIterator[_Disk]:
        """Yield the disks of a running instance that are file systems, in the order of devices."""
        places = self._disks.paths(holder(instance))
        for name, given in instance.expanded_devices.items():
            path = given.get("path", "")
            if disk.is_root(given):
                place = await self._root(instance, pid)
            elif given.get("type") == "disk" and disk.device_path(given) is None:
                place = places.get(name) or disk.host_source(given)
            else:
                continue
            if place.startswith("/"):
                yield _Disk(given.get("source", ""), path, place)

    async def _root(self, instance: Instance, pid: int) -> str:
        """Return where a running instance writes its files to, "" where its pool is away."""
        key, devices = instance.unique_name, instance.expanded_devices
        if (known := self._roots.get(key)) and known[:2] == (pid, devices):
            return known[2]
        try:
            pool = await self._pools.pool(instance.root_device[1]["pool"])
            rootfs = await self._pools.storage.rootfs(pool, volume_of(instance))
        except LxpyError:
            return ""
        place = (rootfs.root or "") if isinstance(rootfs, Layers) else rootfs.path
        self._roots[key] = (pid, devices, place)
        return place


def _samples(
    subjects: Iterable[_Subject], mounts: Mapping[str, str], memory_bytes: int
) -> list[tuple[str, Samples]]:
    return [
        (each.instance.project, samples)
        for each in subjects
        for samples in _of_one(each, mounts, memory_bytes)
    ]


def _of_one(subject: _Subject, mounts: Mapping[str, str], memory_bytes: int) -> Iterator[Samples]:
    instance = subject.instance
    samples = Samples(name=instance.name, project=instance.project, type="container")
    found = metering.measure(subject.group, subject.pid)
    _add_cpus(samples, found.cpus)
    for device in found.devices:
        label = labels(device=device.name)
        samples.add("lxd_disk_read_bytes_total", device.read_bytes, label)
        samples.add("lxd_disk_reads_completed_total", device.reads, label)
        samples.add("lxd_disk_written_bytes_total", device.written_bytes, label)
        samples.add("lxd_disk_writes_completed_total", device.writes, label)
    if found.memory is not None:
        _add_memory(samples, found.memory, memory_bytes)
    for interface in found.interfaces:
        _add_interface(samples, interface)
    if found.processes is not None:
        samples.add("lxd_procs_total", found.processes)
    yield samples
    # LXD has the type everywhere but here.
    samples = Samples(name=instance.name, project=instance.project)
    yield _of_disks(samples, subject.disks, mounts)


def _add_cpus(samples: Samples, cpus: Iterable[Cpu]) -> None:
    for cpu in cpus:
        for mode, spent_ns in (("system", cpu.system_ns), ("user", cpu.user_ns)):
            label = labels(cpu=str(cpu.number), mode=mode)
            samples.add("lxd_cpu_seconds_total", spent_ns / 1e9, label)


def _add_memory(samples: Samples, found: Memory, host_bytes: int) -> None:
    parts = found.parts
    total = min(found.limit or host_bytes, host_bytes)
    free = max(0, total - found.usage)
    values = {
        "Active_anon": parts["active_anon"],
        "Active_file": parts["active_file"],
        "Active": parts["active_anon"] + parts["active_file"],
        "Cached": parts["cached"],
        "Dirty": parts["dirty"],
        "Inactive_anon": parts["inactive_anon"],
        "Inactive_file": parts["inactive_file"],
        "Inactive": parts["inactive_anon"] + parts["inactive_file"],
        "Mapped": parts["mapped"],
        "MemAvailable": min(total, free + parts["cached"]),
        "MemFree": free,
        "MemTotal": total,
        "RSS": parts["rss"],
        "Shmem": parts["shmem"],
        "Swap": found.swap,
        "Unevictable": parts["unevictable"],
        "Writeback": parts["writeback"],
    }
    for name, value in values.items():
        samples.add(f"lxd_memory_{name}_bytes", value)


def _add_interface(samples: Samples, found: Interface) -> None:
    label = labels(device=found.name)
    for way, numbers in (
        ("receive", (found.received_bytes, found.received_drops, found.received_errors,
                     found.received_packets)),
        ("transmit", (found.sent_bytes, found.sent_drops, found.sent_errors, found.sent_packets)),
    ):  # fmt: skip
        for what, number in zip(("bytes", "drop", "errs", "packets"), numbers, strict=True):
            samples.add(f"lxd_network_{way}_{what}_total", number, label)


def _of_disks(samples: Samples, disks: Iterable[_Disk], mounts: Mapping[str, str]) -> Samples:
    for each in disks:
        try:
            found = metering.file_system(each.place)
        except OSError:
            continue  # it is away, or has gone
        device = mounts.get(each.place, each.source)
        label = labels(device=device, fstype=found.type, mountpoint=each.path)
        samples.add("lxd_filesystem_avail_bytes", found.available, label)
        samples.add("lxd_filesystem_free_bytes", found.free, label)
        samples.add("lxd_filesystem_size_bytes", found.size, label)
    return samples


def _mounted() -> Iterator[tuple[str, str]]:
    """Yield where something is mounted, and what (names with spaces in octal)."""
    for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
        device, place, _ = line.split(" ", 2)
        yield place, device


def _memory_bytes() -> int:
    """Return how much memory the host has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
