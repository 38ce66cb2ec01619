"""Which instances come up with the daemon, in which order, and how they go down with the host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from lxpy.instances.keys import READY
from lxpy.instances.model import Instance
from lxpy.units import is_true

_STOP_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Batch:
    """Instances that are started or stopped at the same time; then `delay_s` passes."""

    instances: tuple[Instance, ...]
    delay_s: int = 0


def starts(instance: Instance) -> bool:
    """Whether it comes up with the daemon: boot.autostart says so, or it ran when last seen."""
    wish = instance.expanded_config.get("boot.autostart")
    if wish:
        return is_true(wish)
    return instance.config.get("volatile.last_state.power") == "RUNNING"


def start_order(instances: Iterable[Instance]) -> list[Batch]:
    """Return batches of those that come up: higher boot.autostart.priority first.

    Within a priority all start together; the longest boot.autostart.delay among them passes then.
    """
    return [
        Batch(batch, max(each.number("boot.autostart.delay") for each in batch))
        for batch in _by_priority(filter(starts, instances), "boot.autostart.priority")
    ]


def stop_order(instances: Iterable[Instance]) -> list[Batch]:
    """Return batches in the order of stopping: higher boot.stop.priority first."""
    return [Batch(batch) for batch in _by_priority(instances, "boot.stop.priority")]


def stop_timeout_s(instance: Instance) -> int:
    """Return the seconds an instance has to stop cleanly when the host goes down."""
    return instance.number("boot.host_shutdown_timeout", _STOP_TIMEOUT_S)


def _by_priority(instances: Iterable[Instance], key: str) -> list[tuple[Instance, ...]]:
    def priority(instance: Instance) -> int:
        return -instance.number(key)

    ordered = sorted(instances, key=lambda each: (priority(each), each.project, each.name))
    return [tuple(group) for _, group in groupby(ordered, priority)]


def not_ready(instance: Instance) -> dict[str, str]:
    """Return the volatile key to change when an instance starts or ends that has been ready."""
    return {READY: "false"} if instance.config.get(READY) else {}
