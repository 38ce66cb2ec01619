"""What `/1.0/metrics` tells, by LXD's names, in the text format of OpenMetrics.

Source: LXD docs, "Instance metrics"; the order is that of LXD 5.0.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

COUNTER, GAUGE = "counter", "gauge"
CONTENT_TYPE = "text/plain"
END = "# EOF\n"

#: by name: the type, and what it is
FAMILIES: Mapping[str, tuple[str, str]] = {
    "lxd_cpu_seconds_total": (COUNTER, "The total number of CPU time used in seconds."),
    "lxd_disk_read_bytes_total": (COUNTER, "The total number of bytes read."),
    "lxd_disk_reads_completed_total": (COUNTER, "The total number of completed reads."),
    "lxd_disk_written_bytes_total": (COUNTER, "The total number of bytes written."),
    "lxd_disk_writes_completed_total": (COUNTER, "The total number of completed writes."),
    "lxd_filesystem_avail_bytes": (GAUGE, "The number of available space in bytes."),
    "lxd_filesystem_free_bytes": (GAUGE, "The number of free space in bytes."),
    "lxd_filesystem_size_bytes": (GAUGE, "The size of the filesystem in bytes."),
    "lxd_memory_Active_anon_bytes": (GAUGE, "The amount of anonymous memory on active LRU list."),
    "lxd_memory_Active_file_bytes": (GAUGE, "The amount of file-backed memory on active LRU list."),
    "lxd_memory_Active_bytes": (GAUGE, "The amount of memory on active LRU list."),
    "lxd_memory_Cached_bytes": (GAUGE, "The amount of cached memory."),
    "lxd_memory_Dirty_bytes": (
        GAUGE, "The amount of memory waiting to get written back to the disk."),
    "lxd_memory_Inactive_anon_bytes": (
        GAUGE, "The amount of file-backed memory on inactive LRU list."),
    "lxd_memory_Inactive_file_bytes": (
        GAUGE, "The amount of file-backed memory on inactive LRU list."),
    "lxd_memory_Inactive_bytes": (GAUGE, "The amount of memory on inactive LRU list."),
    "lxd_memory_Mapped_bytes": (GAUGE, "The amount of mapped memory."),
    "lxd_memory_MemAvailable_bytes": (GAUGE, "The amount of available memory."),
    "lxd_memory_MemFree_bytes": (GAUGE, "The amount of free memory."),
    "lxd_memory_MemTotal_bytes": (GAUGE, "The amount of used memory."),
    "lxd_memory_RSS_bytes": (GAUGE, "The amount of anonymous and swap cache memory."),
    "lxd_memory_Shmem_bytes": (
        GAUGE, "The amount of cached filesystem data that is swap-backed."),
    "lxd_memory_Swap_bytes": (GAUGE, "The amount of used swap memory."),
    "lxd_memory_Unevictable_bytes": (GAUGE, "The amount of unevictable memory."),
    "lxd_memory_Writeback_bytes": (GAUGE, "The amount of memory queued for syncing to disk."),
    "lxd_network_receive_bytes_total": (
        COUNTER, "The amount of received bytes on a given interface."),
    "lxd_network_receive_drop_total": (
        COUNTER, "The amount of received dropped bytes on a given interface."),
    "lxd_network_receive_errs_total": (
        COUNTER, "The amount of received errors on a given interface."),
    "lxd_network_receive_packets_total": (
        COUNTER, "The amount of received packets on a given interface."),
    "lxd_network_transmit_bytes_total": (
        COUNTER, "The amount of transmitted bytes on a given interface."),
    "lxd_network_transmit_drop_total": (
        COUNTER, "The amount of transmitted dropped bytes on a given interface."),
    "lxd_network_transmit_errs_total": (
        COUNTER, "The amount of transmitted errors on a given interface."),
    "lxd_network_transmit_packets_total": (
        COUNTER, "The amount of transmitted packets on a given interface."),
    "lxd_procs_total": (GAUGE, "The number of running processes."),
}  # fmt: skip


class Samples:
    """Lines of text by the name of their family; every one of them has the labels `common`."""

    def __init__(self, **common: str) -> None:
        self.lines: dict[str, list[str]] = {}
        self._common = labels(**common)

    def add(self, name: str, value: int | float, more: str = "") -> None:
        """Add a value of a family; `more` are labels besides the common ones, which come first."""
        text = f"{more},{self._common}" if more else self._common
        self.lines.setdefault(name, []).append(f"{name}{{{text}}} {value}\n")


def labels(**values: str) -> str:
    """Return labels as the text has them."""
    return ",".join(f'{key}="{_escaped(each)}"' for key, each in values.items())


def render(groups: Iterable[Samples]) -> str:
    """Return samples as a text, family by family."""
    together: dict[str, list[str]] = {}
    for group in groups:
        for name, lines in group.lines.items():
            together.setdefault(name, []).extend(lines)
    parts: list[str] = []
    for name, (kind, about) in FAMILIES.items():
        if found := together.get(name):
            parts += [f"# HELP {name} {about}\n", f"# TYPE {name} {kind}\n", *found]
    return "".join([*parts, END])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
