"""What is different between two snapshots, or between one and the instance as it is now."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

import lxpy
from lxpy.api import snapshots as api
from lxpy.errors import Failed
from lxpy.programs import run
from lxpy.services.instances.starting import volume_of
from lxpy.services.snapshots.snapshots import Snapshots
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume, view
from lxpy.threads import in_thread

# -I -S: no site-packages, no user settings; the program needs this package's directory alone.
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from lxpy.runtime.compare import main; main()"
)  # fmt: skip
_PACKAGE_ROOT = str(Path(lxpy.__file__).resolve().parents[1])
_MOST = 100_000
_TIMEOUT_S = 1800


class Differences:
    """Compares snapshots by walking both trees; what a file holds is not read."""

    def __init__(self, snapshots: Snapshots, pools: Pools) -> None:
        self._snapshots = snapshots
        self._pools = pools

    async def compare(self, project: str, name: str, snapshot: str, to: str) -> api.Diff:
        """Return what is different in `to` from `snapshot`; "" is the instance as it is.

        Neither can be deleted meanwhile. Raises NotFound, Failed.
        """
        instance, _ = self._snapshots.find(project, name, snapshot)
        if to:
            self._snapshots.find(project, name, to)
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume = volume_of(instance)
        async with AsyncExitStack() as held:
            old = await self._tree(held, pool, volume.at(snapshot))
            new = await self._tree(held, pool, volume.at(to))
            done = await run(
                sys.executable, "-I", "-S", "-c", _PROGRAM, _PACKAGE_ROOT,
                str(old), str(new), str(_MOST),
                pass_fds=(old, new), timeout_s=_TIMEOUT_S,
            )  # fmt: skip
        found = msgspec.json.decode(done.stdout)
        if "error" in found:
            raise Failed(f'"{name}" cannot be compared with "{name}/{snapshot}": {found["error"]}')
        return msgspec.convert({"base": snapshot, "to": to, **found}, api.Diff)

    async def _tree(self, held: AsyncExitStack, pool: Pool, volume: Volume) -> int:
        """Return a descriptor of the files, which the stack closes. Raises NotFound, OSError."""
        rootfs = await held.enter_async_context(self._pools.storage.held(pool, volume))
        fd = await in_thread(view.open_tree, view.beside(rootfs))
        held.callback(os.close, fd)
        return fd
