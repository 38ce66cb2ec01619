"""Starting the short programs that pack and unpack, and compressors beside them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lxpy.errors import Failed, MissingTool
from lxpy.images.compression import BY_NAME

# -I -S: no site-packages, no user settings; the program needs this package's directory alone.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from {} import main; main()"
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_F_SETPIPE_SZ = 1031
_PIPE_BYTES = 1 << 20
LINE_BYTES = 32 << 20


def ours(module: str) -> tuple[str, ...]:
    """Return the command that runs a module of this package by itself."""
    return sys.executable, "-I", "-S", "-c", _PROGRAM.format(module), _PACKAGE_ROOT


async def start(command: Sequence[str], *, limit: int = LINE_BYTES, **options: Any) -> Process:
    """Start a program; its complaints come on a pipe. Raises MissingTool.

    Up to twice `limit` bytes of its output are kept in memory.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return await asyncio.create_subprocess_exec(
            *command, stderr=PIPE, env=environment, limit=limit, **options
        )
    except FileNotFoundError as error:
        package = next((c.package for c in BY_NAME.values() if command[0] in c.compress), "")
        name = package or command[0]
        raise MissingTool(command[0], name, "this compression") from error


async def end(*processes: Process) -> None:
    """Kill what still runs, and wait for it."""
    for process in processes:
        if process.returncode is None:
            process.kill()
    for process in processes:
        await process.wait()


def wide_pipe() -> tuple[int, int]:
    """Return both ends of a pipe that holds a megabyte where that is allowed."""
    reading, writing = os.pipe()
    enlarge(reading)
    return reading, writing


def enlarge(pipe: int) -> None:
    """Let a pipe hold a megabyte; one over the user's quota stays as it is."""
    try:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        return


def complaint(text: bytes, status: int | None) -> str:
    """Return the first line a program said, or its status."""
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[0] if lines else f"status {status}"


def failure(what: str, reason: str) -> Failed:
    """Return the error for work on an archive that failed."""
    if os.strerror(errno.ENOSPC) in reason or os.strerror(errno.EDQUOT) in reason:
        return Failed(f"Failed to {what}: no space left on the device")
    return Failed(f"Failed to {what}: {reason}")
