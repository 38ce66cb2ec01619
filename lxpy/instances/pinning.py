"""Which cpus an instance gets that asks for a number of them: the least used ones."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from lxpy.errors import InvalidConfig
from lxpy.keys import parse_cpus


def format_cpus(cpus: Iterable[int]) -> str:
    """Return cpus as a set: "0-2,5"."""
    parts: list[str] = []
    numbers = sorted(set(cpus))
    start = 0
    for index, number in enumerate(numbers):
        if index + 1 == len(numbers) or numbers[index + 1] != number + 1:
            first = numbers[start]
            parts.append(str(first) if first == number else f"{first}-{number}")
            start = index + 1
    return ",".join(parts)


def pinned(limit: str, cpus: Sequence[int]) -> list[int]:
    """Return the host's cpus of a set such as "0-3"; those the host lacks are left out.

    Raises InvalidConfig when it has none of them.
    """
    known = frozenset(cpus)
    found = [cpu for cpu in parse_cpus(limit) if cpu in known]
    if not found:
        raise InvalidConfig(
            f'Invalid CPU limit: the host has none of the cpus "{limit}" (key "limits.cpu"): it '
            f"has {format_cpus(cpus)}"
        )
    return found


def pick(load: Mapping[int, int], count: int) -> list[int]:
    """Return the `count` least used cpus, the lowest first; all when there are not as many."""
    return sorted(heapq.nsmallest(count, load, key=lambda cpu: (load[cpu], cpu)))


def balance(limits: Iterable[tuple[str, str]], cpus: Sequence[int]) -> dict[str, str]:
    """Return the cpu set of each running instance by its `limits.cpu`, given as (name, limit).

    Sets are taken as they are; who asks for a number gets the least used cpus, in the order
    given, so that a newcomer at the end moves nobody. Sets of which the host has nothing, and
    empty limits, are left out.
    """
    load = dict.fromkeys(cpus, 0)
    chosen: dict[str, str] = {}
    counts: list[tuple[str, int]] = []
    for name, limit in limits:
        if limit.isdigit():
            counts.append((name, int(limit)))
        elif limit:
            try:
                found = pinned(limit, cpus)
            except InvalidConfig:
                continue
            _add(load, found)
            chosen[name] = format_cpus(found)
    for name, count in counts:
        found = pick(load, count)
        _add(load, found)
        chosen[name] = format_cpus(found)
    return chosen


def _add(load: dict[int, int], cpus: Iterable[int]) -> None:
    for cpu in cpus:
        load[cpu] += 1
