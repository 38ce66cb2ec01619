"""limits.* of an expanded config, as the runtime takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lxpy.instances.allowance import parse_allowance
from lxpy.instances.pinning import format_cpus, pick, pinned
from lxpy.runtime.spec import Limits
from lxpy.units import is_false, parse_share

_WEIGHT_MAX = 10_000
#: keys whose change means new Limits for a running instance
KEYS = frozenset((
    "limits.cpu", "limits.cpu.allowance", "limits.cpu.priority", "limits.memory",
    "limits.memory.enforce", "limits.memory.swap", "limits.processes",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Host:
    """What the host has: cpus that are online, bytes of memory, where lxcfs is mounted."""

    cpus: tuple[int, ...]
    memory_bytes: int
    lxcfs: str | None = None


def build_limits(config: Mapping[str, str], host: Host, cpus: str | None = None) -> Limits:
    """Return the limits of an expanded config.

    `cpus` is the set that `pinning.balance` found; without one, an instance that asks for a number
    of cpus gets the first ones. Raises InvalidConfig when the host has none of the cpus.
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
    )


def _cpus(limit: str, online: Sequence[int], assigned: str | None) -> str | None:
    if not limit:
        return None
    if not limit.isdigit():
        return format_cpus(pinned(limit, online))
    if assigned:
        return assigned
    return format_cpus(pick(dict.fromkeys(online, 0), int(limit)))
