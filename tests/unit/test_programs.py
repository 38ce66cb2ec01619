"""What programs.run does with a program that is given up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lxpy.errors import Failed
from lxpy.programs import run

#: starts something that keeps its output open, says who that is, and waits for it
_SCRIPT = "sleep 60 & echo $! >{0}.new; mv {0}.new {0}; wait"


async def _started(file: Path) -> int:
    while not file.exists():
        await asyncio.sleep(0.01)
    return int(file.read_text())


async def test_a_cancelled_one_takes_what_it_has_started_along(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    task = asyncio.create_task(run("sh", "-c", _SCRIPT.format(file)))
    pid = await _started(file)
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    await _gone(pid)


async def test_one_that_takes_too_long(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    async with asyncio.timeout(5):
        with pytest.raises(Failed, match=r"sh did not end within 0\.5 s"):
            await run("sh", "-c", _SCRIPT.format(file), timeout_s=0.5)
    await _gone(await _started(file))


async def _gone(pid: int) -> None:
    """Wait for its end: nobody of ours has to collect it."""
    async with asyncio.timeout(5):
        while _state(pid) not in ("", "Z"):
            await asyncio.sleep(0.01)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
