"""Blocking work in a thread, such that a cancelled caller does not leave it running behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def in_thread(call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run a short blocking call in a thread and return its result.

    Unlike `asyncio.to_thread`, a cancellation is raised only after the call has come to its end:
    whoever cleans up then (closes the descriptor, removes the directory) meets nobody.
    """
    work = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # seen: the cancellation is what the caller hears of
        raise


async def in_thread_or_undo(call: Callable[[], _T], undo: Callable[[_T], object]) -> _T:
    """Run a short blocking call in a thread; if the caller is cancelled meanwhile, undo it there.

    `undo` gets the result of a call that has succeeded.
    """
    results: list[_T] = []
    try:
        await in_thread(lambda: results.append(call()))
    except asyncio.CancelledError:
        if results:
            await in_thread(undo, results[0])
        raise
    return results[0]


@asynccontextmanager
async def resource(make: Callable[[], _T], close: Callable[[_T], object]) -> AsyncIterator[_T]:
    """Make something in a thread for the length of a block, and close it in a thread afterwards."""
    made = await in_thread_or_undo(make, close)
    try:
        yield made
    finally:
        await in_thread(close, made)
