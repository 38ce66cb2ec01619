"""Memory. Source: proc_meminfo(5); kernel docs, ABI/stable/sysfs-devices-node."""

from __future__ import annotations

import re

from lxpy.api.resources import Memory, MemoryNode
from lxpy.doctor import Host
from lxpy.services.server.hardware import sysfs

_NODES = "/sys/devices/system/node"
_BLOCKS = "/sys/devices/system/memory"


def read(host: Host) -> Memory:
    """Return the memory as a whole and by NUMA node; caches do not count as used."""
    found = _table(host.read("/proc/meminfo"))
    page = found.get("Hugepagesize", 0)
    huge = found.get("HugePages_Total", 0) * page
    return Memory(
        nodes=_nodes(host, page),
        hugepages_total=huge,
        hugepages_used=huge - found.get("HugePages_Free", 0) * page,
        hugepages_size=page,
        used=_used(found),
        total=_installed(host) or found.get("MemTotal", 0),
    )


def _nodes(host: Host, page: int) -> list[MemoryNode]:
    nodes: list[MemoryNode] = []
    for name in sysfs.names(host, _NODES):
        if not re.fullmatch(r"node\d+", name):
            continue
        text = re.sub(r"(?m)^Node \d+ ", "", host.read(f"{_NODES}/{name}/meminfo"))
        found = _table(text)
        huge = found.get("HugePages_Total", 0) * page
        nodes.append(
            MemoryNode(
                numa_node=int(name[4:]),
                hugepages_used=huge - found.get("HugePages_Free", 0) * page,
                hugepages_total=huge,
                used=found.get("MemUsed", 0)
                - found.get("FilePages", 0)
                - found.get("SReclaimable", 0),
                total=found.get("MemTotal", 0),
            )  # fmt: skip
        )
    return nodes


def _used(found: dict[str, int]) -> int:
    free = ("MemFree", "Buffers", "Cached", "SReclaimable")
    return max(0, found.get("MemTotal", 0) - sum(found.get(key, 0) for key in free))


def _installed(host: Host) -> int:
    """Return what is built in: the kernel keeps some for itself; 0 when it does not tell."""
    text = host.read(f"{_BLOCKS}/block_size_bytes")
    if not re.fullmatch(r"[0-9a-f]+", text):
        return 0
    blocks = (name for name in sysfs.names(host, _BLOCKS) if re.fullmatch(r"memory\d+", name))
    return int(text, 16) * sum(host.number(f"{_BLOCKS}/{each}/online") == 1 for each in blocks)


def _table(text: str) -> dict[str, int]:
    """Read "MemTotal: 16 kB" lines: bytes, or plain numbers where there is no unit."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(\S+):\s+(\d+)( kB)?\s*", line)
        if match:
            found[match[1]] = int(match[2]) * (1024 if match[3] else 1)
    return found
