"""Work that is carried through though its caller is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from lxpy.services.commit import to_the_end


async def test_a_cancellation_comes_too_late() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await go_on.wait()
        return "committed"

    task = asyncio.create_task(to_the_end(work()))
    await begun.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    go_on.set()
    assert await task == "committed"


async def test_errors_are_raised() -> None:
    async def work() -> None:
        raise ValueError("not committed")

    with pytest.raises(ValueError, match="not committed"):
        await to_the_end(work())
