"""What the tools share: the work they are given, and programs whose output is progress."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lxpy.errors import Failed, MissingTool
from lxpy.images.progress import Progress
from lxpy.images.recipes import Plan

_PROBE_S = 4.0
_KEPT_LINES = 40
_LINE_BYTES = 1 << 20
_GRACE_S = 5.0
_PROXIES = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@dataclass(frozen=True, slots=True)
class Work:
    """One image to bootstrap: into the directory `rootfs`, which is empty.

    `scratch` is for the tool's own files. `mirror` is the URL the administrator has set, or "".
    """

    plan: Plan
    rootfs: Path
    scratch: Path
    mirror: str
    progress: Progress

    def tell(self, text: str) -> None:
        """Tell how far the build has come."""
        self.progress("build", f"Building {self.plan.alias}: {text}")


Tool = Callable[[Work], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended: exit status and the last lines it printed."""

    status: int
    lines: tuple[str, ...]


async def follow(
    argv: tuple[str, ...],
    tell: Callable[[str], None],
    *,
    package: str,
    purpose: str,
    timeout_s: float = 1800,
    env: Mapping[str, str] | None = None,
) -> Ended:
    """Run a program and hand its lines on; it is ended with all its children on cancellation.

    Raises MissingTool (to be found in `package`), Failed after `timeout_s`.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, limit=_LINE_BYTES, cwd="/",
            env={**os.environ, "LC_ALL": "C", **(env or {})}, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise MissingTool(argv[0], package, purpose) from error
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            async for line in process.stdout:
                text = line.decode("utf-8", "replace").strip()
                if text:
                    lines.append(text)
                    tell(text)
            status = await process.wait()
    except TimeoutError as error:
        raise Failed(f"{argv[0]} did not end within {timeout_s:g} s") from error
    finally:
        await _end(process)
    return Ended(status, tuple(lines))


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    for signum, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
        try:
            os.killpg(process.pid, signum)  # its own session: the leader's pid is the group's id
        except ProcessLookupError:
            break
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
                return
        except TimeoutError:
            continue


async def probe(plan: Plan, mirror: str) -> None:
    """Raise Failed, naming the mirror, when its host does not answer within seconds."""
    parts = urlsplit(mirror)
    if parts.scheme not in ("http", "https") or any(os.environ.get(each) for each in _PROXIES):
        return
    if not parts.hostname:
        raise Failed(f'Package mirror "{mirror}" of {plan.distribution} is no URL')
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_PROBE_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError) as error:
        raise silent_mirror(plan, mirror, str(error) or f"no answer in {_PROBE_S:g} s") from error
    writer.close()


def silent_mirror(plan: Plan, mirror: str, reason: str) -> Failed:
    """Return the error for a mirror that cannot be reached."""
    return Failed(
        f"Cannot build {plan.alias}: package mirror {mirror} did not answer ({reason}); "
        f"another one is set by the server's key images.mirror.{plan.distribution}"
    )


def broken(plan: Plan, program: str, ended: Ended, reason: str = "") -> Failed:
    """Return the error for a program that failed."""
    text = reason or (ended.lines[-1] if ended.lines else f"exit status {ended.status}")
    return Failed(f"Cannot build {plan.alias}: {program} failed: {text}")
