"""Who uses which volume: mounted for the first holder, unmounted after the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lxpy.storage.volume import Pool, Volume

_Key = tuple[str, ...]
_Step = Callable[[Pool, Volume], Awaitable[None]]


@dataclass(slots=True)
class _Use:
    """One volume in use, or about to be."""

    pool: Pool
    volume: Volume
    holders: set[str] = field(default_factory=set)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Holders:
    """The volumes in use. Holders are names such as "instance/c1"; holding twice is once."""

    def __init__(self, mount: _Step, unmount: _Step) -> None:
        self._mount = mount
        self._unmount = unmount
        self._uses: dict[_Key, _Use] = {}

    async def hold(self, pool: Pool, volume: Volume, holder: str) -> None:
        """Mount a volume for a holder, unless it is mounted. Raises what mounting raises."""
        async with self.still(pool, volume):
            use = self._uses[_key(pool, volume)]
            if not use.holders:
                await self._mount(pool, volume)
            use.holders.add(holder)

    @asynccontextmanager
    async def still(self, pool: Pool, volume: Volume) -> AsyncIterator[None]:
        """Let nobody begin or end to use a volume during the block."""
        key = _key(pool, volume)
        use = self._uses.setdefault(key, _Use(pool, volume))
        use.waiting += 1
        try:
            async with use.changing:
                yield
        finally:
            use.waiting -= 1
            self._forget(key, use)

    async def let_go(self, pool: Pool, volume: Volume, holder: str) -> None:
        """Unmount a volume when nobody else holds it."""
        async with self.still(pool, volume):
            use = self._uses[_key(pool, volume)]
            if use.holders == {holder}:
                await self._unmount(pool, volume)
            use.holders.discard(holder)

    async def release(self, holder: str) -> None:
        """Let go of everything that a holder has."""
        for use in [each for each in self._uses.values() if holder in each.holders]:
            await self.let_go(use.pool, use.volume, holder)

    def of(self, pool: Pool, volume: Volume) -> frozenset[str]:
        """Return the holders of a volume."""
        use = self._uses.get(_key(pool, volume))
        return frozenset() if use is None else frozenset(use.holders)

    def _forget(self, key: _Key, use: _Use) -> None:
        if not use.holders and not use.waiting:
            self._uses.pop(key, None)


def _key(pool: Pool, volume: Volume) -> _Key:
    return (pool.name, volume.type, volume.project, volume.name, volume.snapshot)
