"""Running systems as the daemon knows them, and their ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from lxpy.runtime.spec import Node
from lxpy.runtime.usage import Meter

Reason = Literal["reboot", "poweroff", "exit", "crash"]


@dataclass(frozen=True, slots=True)
class Held:
    """A running system, as the supervisor reports it."""

    name: str
    pid: int
    start_time: int
    cgroup_id: int
    started_at: float
    ready: bool
    frozen: bool
    restart_count: int


@dataclass(frozen=True, slots=True)
class Exit:
    """A system ended: why, with which status, and a sentence for people."""

    name: str
    pid: int
    reason: Reason
    status: int
    text: str


class Running:
    """A held system and our copies of its descriptors."""

    __slots__ = ("ended", "fds", "held", "log", "meter", "nodes", "ready")

    def __init__(self, held: Held, fds: list[int], meter: Meter, log: str) -> None:
        self.held = held
        self.fds = fds
        self.meter = meter
        self.log = log
        self.ready = held.ready
        self.nodes: list[Node] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()


def read_held(message: dict[str, Any]) -> Held:
    """Take a running system out of the supervisor's message."""
    return Held(**{key: message[key] for key in Held.__slots__})
