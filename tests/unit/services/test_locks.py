"""Named locks: one holder for each name, nothing kept when nobody cares."""

from __future__ import annotations

import asyncio

import pytest

from lxpy.services.locks import Locks


async def test_one_at_a_time_for_each_name() -> None:
    locks = Locks()
    order: list[str] = []

    async def work(tag: str, *key: str) -> None:
        async with locks.hold(*key):
            order.append(f"{tag} in")
            await asyncio.sleep(0)
            order.append(f"{tag} out")

    await asyncio.gather(work("a", "x"), work("b", "x"))
    assert order == ["a in", "a out", "b in", "b out"]
    order.clear()
    await asyncio.gather(work("a", "x"), work("b", "y"))
    assert order[:2] == ["a in", "b in"]


async def test_nothing_is_kept() -> None:
    locks = Locks()
    with pytest.raises(ValueError):
        async with locks.hold("instance", "c1"):
            assert locks.is_held("instance", "c1")
            raise ValueError
    assert not locks.is_held("instance", "c1")
    assert not locks._locks


async def test_a_cancelled_waiter_leaves_the_lock_in_order() -> None:
    locks = Locks()

    async def wait() -> None:
        async with locks.hold("x"):
            return

    async with locks.hold("x"):
        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        assert locks.is_held("x")
    assert not locks._locks
