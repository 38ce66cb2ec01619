"""Owners of a guest's files: its own ids and what the host sees. Source: user_namespaces(7)."""

from __future__ import annotations

from dataclasses import dataclass

#: what the kernel shows for an id that has no number in a namespace
OVERFLOW = 65534

Span = tuple[int, int, int]  # inside, outside, size


class Unmapped(Exception):
    """An id that the guest does not have."""


@dataclass(frozen=True, slots=True)
class Owners:
    """Translates ids; without spans they are the same inside and outside."""

    uids: tuple[Span, ...] = ()
    gids: tuple[Span, ...] = ()

    @classmethod
    def of_process(cls, pid: int) -> Owners:
        """Return the translation that a process lives by. Raises OSError when there is none."""
        return cls(_read(pid, "uid_map"), _read(pid, "gid_map"))

    @property
    def root(self) -> tuple[int, int]:
        """The ids outside that the guest's root has."""
        return self.outside(0, 0)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return what the guest calls the owner; 65534 for an id it does not have."""
        return _inside(self.uids, uid), _inside(self.gids, gid)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return what the host calls the owner. Raises Unmapped."""
        return _outside(self.uids, uid, "user"), _outside(self.gids, gid, "group")


def _inside(spans: tuple[Span, ...], number: int) -> int:
    for inside, outside, size in spans:
        if outside <= number < outside + size:
            return number - outside + inside
    return OVERFLOW if spans else number


def _outside(spans: tuple[Span, ...], number: int, kind: str) -> int:
    for inside, outside, size in spans:
        if inside <= number < inside + size:
            return number - inside + outside
    if spans or number >= (1 << 32) - 1:
        raise Unmapped(f"the instance has no {kind} id {number}")
    return number


def _read(pid: int, name: str) -> tuple[Span, ...]:
    with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
        lines = [line.split() for line in file]
    return tuple((int(inside), int(outside), int(size)) for inside, outside, size in lines)
