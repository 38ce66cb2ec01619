"""Long stacks of layers become one layer again, in the background, while their volume rests.

Every restored snapshot, and every snapshot of a volume at rest, adds a layer; each costs a look
at every name that is not found. Snapshots keep their own layers: only the volume is flattened.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import structlog

from lxpy.errors import LxpyError
from lxpy.storage import trees, view
from lxpy.storage.drivers import chains, quotas
from lxpy.storage.drivers.chains import Chains
from lxpy.storage.drivers.stacked import Stacked, layers_of
from lxpy.storage.volume import Volume, VolumeType
from lxpy.threads import in_thread

#: layers, the volume's own and the image not counted, that are not worth the work
ENOUGH = 8
_log = structlog.get_logger()


class Flattener:
    """The work of this kind under way in one pool: at most one for each volume."""

    def __init__(self, stacked: Stacked, layers: Chains) -> None:
        self._stacked = stacked
        self._chains = layers
        self._tasks: dict[Path, asyncio.Task[None]] = {}

    async def consider(self, volume: Volume) -> None:
        """Begin if a volume of an instance rests on many layers."""
        if volume.type is not VolumeType.CONTAINER or volume.snapshot:
            return
        place = self._stacked.place(volume)
        if place in self._tasks or not await in_thread(self._is_worth_it, place):
            return
        task = asyncio.get_running_loop().create_task(self._flatten(volume, place))
        self._tasks[place] = task
        task.add_done_callback(lambda _: self._tasks.pop(place, None))

    async def stop(self, volume: Volume) -> None:
        """Give up on a volume that is needed now; its files are as they were."""
        if volume.type is VolumeType.CONTAINER and not volume.snapshot:
            task = self._tasks.get(self._stacked.place(volume))
            if task is not None:
                task.cancel()
                await asyncio.wait([task])

    async def close(self) -> None:
        """Give up on all."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _is_worth_it(self, place: Path) -> bool:
        head = chains.head_of(place)
        if head is None or place in self._stacked.in_use or quotas.has_disk(head):
            return False
        return len(chains.stacked_below(head)) > ENOUGH

    async def _flatten(self, volume: Volume, place: Path) -> None:
        try:
            head = await in_thread(chains.head_of, place)
            assert head is not None
            bottom = (await in_thread(chains.stacked_below, head))[-1]
            layer = await self._stacked.writable(volume, bottom)
            try:
                await self._merge(head, layer)
                await in_thread(self._chains.point, place, layer)
            finally:
                await in_thread(self._chains.discard, layer)
        except (LxpyError, OSError) as error:
            _log.warning("volume not flattened", volume=volume.label, error=str(error))

    async def _merge(self, head: Path, layer: Path) -> None:
        """Make a layer show on its own what all those of the volume show together."""
        source = await in_thread(lambda: view.open_tree(layers_of(head)))
        try:
            target = await in_thread(lambda: view.open_tree(layers_of(layer), writable=True))
            try:
                await trees.synchronize(source, target, _is_untouched)
            finally:
                os.close(target)
        finally:
            os.close(source)


def _is_untouched(one: os.stat_result, other: os.stat_result) -> bool:
    """Tell that both views show the same file of the lowest layer."""
    return (one.st_ino, one.st_ctime_ns) == (other.st_ino, other.st_ctime_ns)
