"""Named locks: one for each instance, volume, network; gone when nobody holds or wants them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Locks:
    """Locks by key, such as ("instance", "default", "c1"). Waiters are served in order."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, ...], tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def hold(self, *key: str) -> AsyncIterator[None]:
        """Hold the lock of that name for the length of a block."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)

    def is_wanted(self, *key: str) -> bool:
        """Tell whether somebody waits for a lock that is held."""
        return key in self._locks and self._locks[key][1] > 1

    def is_held(self, *key: str) -> bool:
        """Tell whether somebody holds the lock now."""
        return key in self._locks and self._locks[key][0].locked()
