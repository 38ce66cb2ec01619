"""Memory saved ahead of a dump, while its processes run on: that dump holds what changes since.

Needs a kernel that tracks changes. Source: criu(8), "pre-dump".
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from lxpy.errors import Failed
from lxpy.runtime import chains, criu, criu_images
from lxpy.runtime.checkpoint import Way

_NULL = asyncio.subprocess.DEVNULL


async def save(directory: Path, way: Way, *, name: str, pid: int) -> int:
    """Save the pages of a running system to a new directory, those of `way.base` left out.

    Returns how many percent of its pages were there already. Raises Failed; nothing is left then.
    """
    await asyncio.to_thread(directory.mkdir, 0o711, parents=True)
    try:
        await _run(directory, way, name, pid)
        if way.base is not None:
            await asyncio.to_thread(chains.link, directory, way.base)
        return await asyncio.to_thread(criu_images.known_percent, str(directory))
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, directory, True)
        raise


async def _run(directory: Path, way: Way, name: str, pid: int) -> None:
    options = [
        "--tree", str(pid), "--images-dir", str(directory), "--log-file", criu.DUMP_LOG,
        criu.VERBOSITY[0], "--track-mem", "--manage-cgroups=ignore",
    ]  # fmt: skip
    if way.base is not None:
        options += ["--prev-images-dir", os.path.relpath(way.base, directory)]
    process = await asyncio.create_subprocess_exec(
        way.program, "pre-dump", *options, stdin=_NULL, stdout=_NULL, stderr=_NULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        status = await process.wait()
    except BaseException:
        # Not killed: it has processes stopped, and lets them go on.
        await asyncio.shield(process.wait())
        raise
    if status != 0:
        cause = criu.cause(str(directory / criu.DUMP_LOG))
        shutil.move(directory / criu.DUMP_LOG, way.log)
        raise Failed(f"The memory of {name} cannot be sent ahead: {cause}")
