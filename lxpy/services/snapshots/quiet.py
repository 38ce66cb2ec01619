"""Instances that stand still for a moment, so that what is copied of their files fits together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.errors import LxpyError
from lxpy.instances.model import Instance
from lxpy.runtime.container import Runtime, StartFailed
from lxpy.services.instances.power import Power
from lxpy.services.memory.checkpoints import Checkpoints


class Pause:
    """A storage driver's `Quiet`: called, it freezes one instance for the length of a block.

    One that does not run, or is frozen already, stays as it is. The instance's lock is held.
    `lasted_s` is how long it stood still in all, None when it was not frozen. No memory is saved.
    """

    def __init__(self, runtime: Runtime, power: Power, instance: Instance) -> None:
        self.lasted_s: float | None = None
        self.saved_bytes: int | None = None
        unique = instance.unique_name
        #: the name of what it freezes, "" when there is no need; intents keep it as "paused"
        self.freezes = unique if power.is_running(instance) and unique not in power.frozen else ""
        self._runtime = runtime
        self._power = power
        self._instance = instance

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Freeze it, then let it go on, whatever happens. Raises Failed when it does not freeze."""
        if not self.freezes:
            yield
            return
        begin = time.monotonic()
        try:
            await self._freeze()
            yield
        finally:
            # The thawing goes on when this is cancelled.
            await asyncio.shield(asyncio.ensure_future(self._thaw()))
            self.lasted_s = (self.lasted_s or 0.0) + time.monotonic() - begin

    async def _freeze(self) -> None:
        try:
            await self._runtime.freeze(self._instance.unique_name)
        except (StartFailed, OSError):
            if self._power.is_running(self._instance):
                raise
            # It has ended by itself: nobody writes.

    async def _thaw(self) -> None:
        try:
            await self._runtime.thaw(self._instance.unique_name)
        except (LxpyError, OSError):
            if self._power.is_running(self._instance):
                raise


class Saving:
    """A storage driver's `Quiet` that saves an instance's memory, once."""

    def __init__(self, checkpoints: Checkpoints, instance: Instance, place: Path) -> None:
        self.lasted_s: float | None = None
        self.saved_bytes: int | None = None
        self.freezes = ""  # CRIU lets its processes go on by itself, whatever happens to us
        self._checkpoints = checkpoints
        self._instance = instance
        self._place = place

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Stop its processes and save their memory, then let them go on. Raises Failed."""
        async with self._checkpoints.dumped(
            self._instance, self._place, keeps_running=True
        ) as dump:
            yield
        self.lasted_s, self.saved_bytes = dump.frozen_s, dump.size_bytes
