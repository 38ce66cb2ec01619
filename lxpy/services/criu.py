"""Which CRIU this host has, and whether it works here.

CRIU before 4.2 does not know the sockets of Linux 6.16 and later. Source: criu(8), "check".
"""

from __future__ import annotations

import os
import re
import shutil

from lxpy.errors import NotSupported
from lxpy.programs import run
from lxpy.threads import in_thread

#: where packaging/criu.sh puts one beside the system's
PREFIX = "/opt/lxpy-criu"
_REMEDY = "install CRIU 4.2 or newer (packaging/criu.sh puts one beside the system's)"


class Criu:
    """Finds a usable CRIU once."""

    def __init__(self) -> None:
        self._found = ""
        self._reason = ""

    async def find(self) -> str:
        """Return the program's path. Raises NotSupported, which says what to do."""
        if not self._found:
            self._found = await self._look()
        return self._found

    async def _look(self) -> str:
        reasons = []
        for program in await in_thread(_candidates):
            reason = await _why_not(program)
            if not reason:
                return program
            reasons.append(f"{program}: {reason}")
        found = "; ".join(reasons) or "none is installed"
        raise NotSupported(f"No usable CRIU here: {found}: {_REMEDY}")


def _candidates() -> list[str]:
    wanted = (os.environ.get("LXPY_CRIU"), f"{PREFIX}/bin/criu", shutil.which("criu"))
    return [each for each in dict.fromkeys(wanted) if each and os.access(each, os.X_OK)]


async def _why_not(program: str) -> str:
    """Return why a CRIU is of no use here, "" if it is."""
    said = (await run(program, "--version", check=False)).stdout.decode("utf-8", "replace")
    match = re.search(r"Version: (\d+)\.(\d+)", said)
    if match is None:
        return "it does not tell its version"
    if (int(match[1]), int(match[2])) < (4, 2):
        return f"version {match[1]}.{match[2]} is too old for this kernel"
    checked = await run(program, "check", check=False)
    if checked.returncode != 0:
        lines = checked.stderr.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "its check fails"
    return ""
