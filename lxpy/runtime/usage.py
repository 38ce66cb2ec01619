"""What an instance uses, read from its cgroups: a handful of small files, no trip elsewhere."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lxpy.runtime.cgroups import Group


@dataclass(frozen=True, slots=True)
class Usage:
    """Resource use of one instance; -1 where this host has no controller for it."""

    cpu_ns: int
    memory_bytes: int
    memory_peak_bytes: int
    swap_bytes: int
    swap_peak_bytes: int
    processes: int


class Meter:
    """Reads one instance's use; the paths are worked out once."""

    def __init__(self, group: Group) -> None:
        layout, path = group.layout, group.path
        self.group = group
        self._cpu = f"{group.v2}/cpu.stat"
        self._v1 = "memory" in layout.v1
        if self._v1:
            base = f"{layout.v1['memory']}/{path}/memory"
            self._memory = (f"{base}.usage_in_bytes", f"{base}.max_usage_in_bytes")
            self._swap = (f"{base}.memsw.usage_in_bytes", f"{base}.memsw.max_usage_in_bytes")
        else:
            self._memory = (f"{group.v2}/memory.current", f"{group.v2}/memory.peak")
            self._swap = (f"{group.v2}/memory.swap.current", f"{group.v2}/memory.swap.peak")
        pids = layout.v1.get("pids")
        self._pids = f"{pids}/{path}/pids.current" if pids else f"{group.v2}/pids.current"

    def read(self) -> Usage:
        """Read. Nothing raises: an instance that ends meanwhile reads as unknown."""
        memory, peak = _number(self._memory[0]), _number(self._memory[1])
        swap, swap_peak = _number(self._swap[0]), _number(self._swap[1])
        if self._v1 and swap >= 0:
            swap, swap_peak = max(0, swap - memory), max(0, swap_peak - peak)
        return Usage(_cpu(self._cpu), memory, peak, swap, swap_peak, _number(self._pids))


def _number(path: str) -> int:
    try:
        return int(_raw(path))
    except (OSError, ValueError):
        return -1


def _cpu(path: str) -> int:
    try:
        return int(_raw(path).split(None, 2)[1]) * 1000
    except (OSError, ValueError, IndexError):
        return -1


def _raw(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
