"""Processors. Source: kernel docs, ABI/testing/sysfs-devices-system-cpu."""

from __future__ import annotations

import re

from lxpy.api.resources import Cpu, CpuCache, CpuCore, CpuSocket, CpuThread
from lxpy.doctor import Host
from lxpy.instances.architectures import lxd_name
from lxpy.services.instances.host import architecture
from lxpy.services.server.hardware import sysfs

_CPUS = "/sys/devices/system/cpu"
_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def read(host: Host) -> Cpu:
    """Return the sockets with their cores and threads."""
    isolated = set(sysfs.cpu_list(host.read(f"{_CPUS}/isolated")))
    described = _described(host)
    sockets: dict[int, CpuSocket] = {}
    cores: dict[tuple[int, int, int], CpuCore] = {}
    for name in sysfs.names(host, _CPUS):
        if not re.fullmatch(r"cpu\d+", name):
            continue
        number, path = int(name[3:]), f"{_CPUS}/{name}"
        place = host.number(f"{path}/topology/physical_package_id")
        online = host.number(f"{path}/online") != 0  # the first has no such file: always on
        package = max(0, place or 0)
        socket = sockets.get(package)
        if socket is None:
            socket = sockets[package] = _socket(host, package, path, described.get(number, {}))
        die = max(0, host.number(f"{path}/topology/die_id") or 0)
        index = host.number(f"{path}/topology/core_id")
        key = package, die, number if index is None else index
        if key not in cores:
            mhz = (host.number(f"{path}/cpufreq/scaling_cur_freq") or 0) // 1000
            cores[key] = CpuCore(core=key[2], die=die, threads=[], frequency=mhz)
            socket.cores.append(cores[key])
        cores[key].threads.append(
            CpuThread(
                id=number,
                numa_node=_node(host, path),
                thread=len(cores[key].threads),
                online=online,
                isolated=number in isolated,
            )
        )
    found = [sockets[each] for each in sorted(sockets)]
    for socket in found:
        known = [core.frequency for core in socket.cores if core.frequency]
        socket.frequency = sum(known) // len(known) if known else 0
    total = sum(len(core.threads) for core in cores.values())
    return Cpu(architecture=lxd_name(architecture()), sockets=found, total=total)


def _socket(host: Host, number: int, path: str, described: dict[str, str]) -> CpuSocket:
    name = described.get("model name") or described.get("cpu") or described.get("Processor") or ""
    return CpuSocket(
        name=name,
        vendor=described.get("vendor_id", ""),
        socket=number,
        cache=_caches(host, path),
        cores=[],
        frequency_minimum=(host.number(f"{path}/cpufreq/cpuinfo_min_freq") or 0) // 1000,
        frequency_turbo=(host.number(f"{path}/cpufreq/cpuinfo_max_freq") or 0) // 1000,
    )


def _caches(host: Host, path: str) -> list[CpuCache]:
    found: list[CpuCache] = []
    for name in sysfs.names(host, f"{path}/cache"):
        base = f"{path}/cache/{name}"
        match = re.fullmatch(r"(\d+)([KMG]?)", host.read(f"{base}/size"))
        level = host.number(f"{base}/level")
        if match and level is not None:
            size = int(match[1]) * _SIZES.get(match[2], 1)
            found.append(CpuCache(level=level, type=host.read(f"{base}/type"), size=size))
    return found


def _node(host: Host, path: str) -> int:
    for name in sysfs.names(host, path):
        if re.fullmatch(r"node\d+", name):
            return int(name[4:])
    return 0


def _described(host: Host) -> dict[int, dict[str, str]]:
    """Return /proc/cpuinfo by the cpu's number."""
    found: dict[int, dict[str, str]] = {}
    for paragraph in host.read("/proc/cpuinfo").split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines())
        entry = {key.strip(): value.strip() for key, _, value in pairs}
        if entry.get("processor", "").isdigit():
            found[int(entry["processor"])] = entry
    return found
