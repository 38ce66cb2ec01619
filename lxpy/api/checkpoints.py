"""What would keep the memory of an instance from being saved (extension lxpy_checkpoint)."""

from __future__ import annotations

from msgspec import Struct


class Blocker(Struct, kw_only=True):
    """One reason: the process inside (0: the instance as a whole), why, and what helps."""

    pid: int
    command: str
    reason: str
    remedy: str


class Check(Struct, kw_only=True):
    """Whether the memory of an instance can be saved now, as far as looking at it tells.

    `tracks_memory`: whether the kernel notes which pages change, so that they can be sent ahead.
    """

    possible: bool
    blockers: list[Blocker]
    tracks_memory: bool = False
