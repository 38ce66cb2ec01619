"""limits.* of an expanded config, as the runtime takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lxpy.instances.allowance import parse_allowance
from lxpy.instances.pinning import format_cpus, pick, pinned
from lxpy.runtime.spec import IoLimit, Limits
from lxpy.units import is_false, parse_share, parse_size

_WEIGHT_MAX = 10_000
HUGE_PAGES = ("64KB", "1MB", "2MB", "1GB")
#: keys whose change means new Limits for a running instance
KEYS = frozenset((
    "limits.cpu", "limits.cpu.allowance", "limits.cpu.priority", "limits.memory",
    "limits.memory.enforce", "limits.memory.swap", "limits.processes", "limits.disk.priority",
    "limits.memory.swap.priority", *(f"limits.hugepages.{size}" for size in HUGE_PAGES),
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Host:
    """What the host has: cpus that are online, bytes of memory, where lxcfs is mounted."""

    cpus: tuple[int, ...]
    memory_bytes: int
    lxcfs: str | None = None


def build_limits(
    config: Mapping[str, str], host: Host, cpus: str | None = None, io: Sequence[IoLimit] = ()
) -> Limits:
    """Return the limits of an expanded config.

    `cpus` is the set that `pinning.balance` found; without one, an instance that asks for a number
    of cpus gets the first ones. `io` is what disks ask for. Raises InvalidConfig when the
    host has none of the cpus.
    """
    memory = config.get("limits.memory", "")
    size = parse_share(memory, host.memory_bytes) if memory else None
    soft = config.get("limits.memory.enforce") == "soft"
    allowance = parse_allowance(config.get("limits.cpu.allowance", ""))
    priority = int(config.get("limits.cpu.priority") or 10)
    processes = config.get("limits.processes")
    return Limits(
        memory_bytes=None if soft else size,
        memory_soft_bytes=size if soft else None,
        swap=not is_false(config.get("limits.memory.swap")),
        cpus=_cpus(config.get("limits.cpu", ""), host.cpus, cpus),
        cpu_quota_us=allowance.quota_us,
        cpu_period_us=allowance.period_us,
        # LXD's rule: the share in percent, less what the priority lacks of 10.
        cpu_weight=min(max(allowance.percent + priority - 10, 1), _WEIGHT_MAX),
        pids=int(processes) if processes else None,
        io=tuple(io),
        io_weight=_io_weight(config.get("limits.disk.priority", "")),
        hugepages={
            size: parse_size(config[f"limits.hugepages.{size}"])
            for size in HUGE_PAGES
            if config.get(f"limits.hugepages.{size}")
        },
        swappiness=_swappiness(config),
    )


def _io_weight(priority: str) -> int | None:
    """Return LXD's share: ten times the priority in percent, 10 at the least."""
    return max(int(priority) * 100, 10) if priority else None


def _swappiness(config: Mapping[str, str]) -> int | None:
    """Return LXD's swappiness: that of Linux, 60, at the highest priority of 10."""
    priority = config.get("limits.memory.swap.priority", "")
    if not priority or is_false(config.get("limits.memory.swap")):
        return None
    return 70 - int(priority)


def _cpus(limit: str, online: Sequence[int], assigned: str | None) -> str | None:
    if not limit:
        return None
    if not limit.isdigit():
        return format_cpus(pinned(limit, online))
    if assigned:
        return assigned
    return format_cpus(pick(dict.fromkeys(online, 0), int(limit)))
