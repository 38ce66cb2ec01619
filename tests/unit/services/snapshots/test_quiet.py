"""An instance stands still for the length of a block, and goes on whatever happens."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast

import pytest

from lxpy.errors import Failed
from lxpy.instances.model import Instance
from lxpy.runtime.container import Runtime, StartFailed
from lxpy.services.instances.power import Power
from lxpy.services.snapshots.quiet import Pause

C1 = Instance(1, "default", "c1", "x86_64", {}, {}, {}, {}, (), datetime.now(UTC))


class Running:
    """The part of `Runtime` and `Power` that standing still needs."""

    def __init__(self, *, runs: bool = True, frozen: tuple[str, ...] = ()) -> None:
        self.runs = runs
        self.frozen = set(frozen)
        self.done: list[str] = []
        self.stubborn = False

    def is_running(self, _: Instance) -> bool:
        return self.runs

    async def freeze(self, name: str) -> None:
        self.done.append(f"freeze {name}")
        if not self.runs:
            raise StartFailed("find", "c1 is not running", 3)
        if self.stubborn:
            raise Failed("c1 does not freeze in time")

    async def thaw(self, name: str) -> None:
        self.done.append(f"thaw {name}")
        if not self.runs:
            raise StartFailed("find", "c1 is not running", 3)

    def pause(self) -> Pause:
        return Pause(cast(Runtime, self), cast(Power, self), C1)


async def test_a_running_one() -> None:
    running = Running()
    pause = running.pause()
    assert pause.freezes == "c1" and pause.lasted_s is None
    for _ in range(2):
        async with pause():
            assert running.done[-1] == "freeze c1"
            await asyncio.sleep(0.01)
    assert running.done == ["freeze c1", "thaw c1"] * 2
    assert pause.lasted_s is not None and pause.lasted_s > 0.015


@pytest.mark.parametrize("running", [Running(runs=False), Running(frozen=("c1",))])
async def test_one_that_stands_still_already(running: Running) -> None:
    pause = running.pause()
    async with pause():
        pass
    assert (pause.freezes, pause.lasted_s, running.done) == ("", None, [])


async def test_whatever_happens() -> None:
    running = Running()
    with pytest.raises(ZeroDivisionError):
        async with running.pause()():
            raise ZeroDivisionError
    assert running.done.pop() == "thaw c1"
    running.stubborn = True
    with pytest.raises(Failed, match="in time"):
        async with running.pause()():
            raise AssertionError("it is not frozen")
    assert running.done.pop() == "thaw c1"


async def test_a_cancelled_one() -> None:
    running = Running()

    async def work() -> None:
        async with running.pause()():
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    while not running.done:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert running.done == ["freeze c1", "thaw c1"]


async def test_one_that_ends_meanwhile() -> None:
    running = Running()
    async with running.pause()():
        running.runs = False
    assert running.done == ["freeze c1", "thaw c1"]
