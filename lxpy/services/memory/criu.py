"""Which CRIU this host has, and whether it works here.

CRIU before 4.2 does not know the sockets of Linux 6.16 and later. Source: criu(8), "check".
Whether one works is found out by saving a process, once for each kernel and program; whether the
kernel tells it which pages have changed since the last dump, with that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import structlog

from lxpy.errors import LxpyError, NotSupported
from lxpy.programs import run
from lxpy.runtime import criu
from lxpy.threads import in_thread

#: where packaging/criu.sh puts one beside the system's
PREFIX = "/opt/lxpy-criu"
_REMEDY = "install CRIU 4.2 or newer (packaging/criu.sh puts one beside the system's)"

_TRIAL_S = 20
_TRACKING = "mem_dirty_track"

_log = structlog.get_logger()


class Criu:
    """Finds a usable CRIU once; the file `proof` remembers which one was tried with success."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof
        self._found = ""
        self._tracks = False
        self._lock = asyncio.Lock()

    async def look(self) -> None:
        """Find out at leisure what `find` would otherwise at its first call."""
        try:
            await self.find()
        except NotSupported as error:
            _log.info("memory of instances cannot be saved", reason=str(error))

    async def find(self) -> str:
        """Return the program's path. Raises NotSupported, which says what to do."""
        async with self._lock:
            if not self._found:
                self._found = await self._look()
            return self._found

    async def tracks(self) -> bool:
        """Tell whether a dump may hold what has changed since the last one. Raises NotSupported."""
        await self.find()
        return self._tracks

    async def _look(self) -> str:
        reasons = []
        for program in await in_thread(_candidates):
            reason = await self._why_not(program)
            if not reason:
                return program
            reasons.append(f"{program}: {reason}")
        found = "; ".join(reasons) or "none is installed"
        raise NotSupported(f"No usable CRIU here: {found}: {_REMEDY}")

    async def _why_not(self, program: str) -> str:
        """Return why a CRIU is of no use here, "" if it is of use."""
        mark = await in_thread(_mark, program)
        proof = await in_thread(_read, self._proof)
        if not proof.startswith(mark):
            if reason := await _too_old(program) or await _trial(program):
                return reason
            asked = await run(program, "check", "--feature", _TRACKING, check=False)
            proof = mark + (_TRACKING if asked.returncode == 0 else "")
            await in_thread(self._proof.write_text, proof)
        self._tracks = proof.removeprefix(mark) == _TRACKING
        return ""


def _mark(program: str) -> str:
    """Return what a trial is good for: this kernel and this file."""
    status = os.stat(program)
    return f"{os.uname().release} {program} {status.st_size} {status.st_mtime_ns}\n"


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _candidates() -> list[str]:
    if chosen := os.environ.get("LXPY_CRIU"):
        return [chosen] if os.access(chosen, os.X_OK) else []
    wanted = (f"{PREFIX}/bin/criu", shutil.which("criu"))
    return [each for each in dict.fromkeys(wanted) if each and os.access(each, os.X_OK)]


async def _too_old(program: str) -> str:
    said = (await run(program, "--version", check=False)).stdout.decode("utf-8", "replace")
    match = re.search(r"Version: (\d+)\.(\d+)", said)
    if match is None:
        return "it does not tell its version"
    if (int(match[1]), int(match[2])) < (4, 2):
        return f"version {match[1]}.{match[2]} is too old for this kernel"
    return ""


async def _trial(program: str) -> str:
    """Save a process of no importance, which ends it; return why that failed, "" if it did not."""
    null = asyncio.subprocess.DEVNULL
    sleep = await asyncio.create_subprocess_exec(
        "sleep", str(2 * _TRIAL_S), stdin=null, stdout=null, stderr=null, start_new_session=True
    )
    try:
        with tempfile.TemporaryDirectory(prefix="lxpy-criu-") as directory:
            done = await run(
                program, "dump", "--tree", str(sleep.pid), "--images-dir", directory,
                "--log-file", criu.DUMP_LOG, criu.VERBOSITY[0], "--manage-cgroups=ignore",
                check=False, timeout_s=_TRIAL_S,
            )  # fmt: skip
            return criu.cause(f"{directory}/{criu.DUMP_LOG}") if done.returncode else ""
    except LxpyError as error:
        return str(error)
    finally:
        if sleep.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                sleep.kill()
        await sleep.wait()
