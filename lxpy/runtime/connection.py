"""Reaching the supervisor: connect to the one that runs, or start one that outlives us."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from lxpy.errors import Failed, Unavailable
from lxpy.runtime import supervisor

_SPAWN_TIMEOUT_S = 10.0


async def reach(run_dir: Path, cgroup: str, log_dir: Path, *, spawn: bool) -> socket.socket:
    """Return a connection; with `spawn`, start a supervisor where none answers.

    Raises Unavailable when none answers, Failed when it cannot start.
    """
    path = str(run_dir / "supervisor.sock")
    sock = _try(path)
    if sock is None and spawn:
        await _spawn(run_dir, cgroup, log_dir)
        sock = _try(path)
    if sock is None:
        raise Unavailable(f"No supervisor answers at {path}: is its service running?")
    return sock


async def _spawn(run_dir: Path, cgroup: str, log_dir: Path) -> None:
    """Start a supervisor, and wait until it listens."""
    run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = log_dir / "supervisor.log"
    argv = supervisor.command(
        "--run-dir", str(run_dir), "--cgroup", cgroup, "--log", str(log), "--detach"
    )
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_SPAWN_TIMEOUT_S):
            status = await process.wait()
    except TimeoutError:
        process.kill()
        raise Unavailable(
            f"The supervisor does not come up within {_SPAWN_TIMEOUT_S:g} s: see {log}"
        ) from None
    if status not in (0, 3):  # 3: another one was quicker
        assert process.stderr is not None
        text = (await process.stderr.read()).decode(errors="replace").strip()
        raise Failed(f"The supervisor cannot start: {text or f'exit status {status}, see {log}'}")


def _try(path: str) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        return None
    return sock
