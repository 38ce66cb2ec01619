"""The point of no return of an operation: what is committed there is not undone any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


async def to_the_end(work: Coroutine[Any, Any, _T]) -> _T:
    """Await `work` and return its result, however often the caller is cancelled meanwhile.

    For a commit: were its caller cancelled during that, nobody would know whether the database has
    it, and the files that it is about would be removed. A cancellation comes too late then.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
        except Exception:
            break  # it is raised below
    return task.result()
