"""A directory whose entries are being removed: renaming into it is the deletion that counts."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

import structlog

from lxpy.errors import LxpyError
from lxpy.programs import run
from lxpy.threads import in_thread

_BATCH = 200
_log = structlog.get_logger()


class Trash:
    """Removes directory trees in batches, one `rm` at a time for each trash directory.

    A tree is gone for everyone as soon as it is renamed; `empty` frees the space. What a crash
    leaves in the directory goes with the next `empty`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = asyncio.Lock()

    def discard(self, path: Path) -> Path:
        """Move a tree into the trash and return its new path (blocking, atomic).

        Raises FileNotFoundError if there is no such tree.
        """
        target = self._directory / f"{path.name}.{secrets.token_hex(6)}"
        try:
            os.rename(path, target)
        except FileNotFoundError:
            if self._directory.is_dir() or not path.exists():
                raise
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.rename(path, target)
        return target

    async def empty(self) -> None:
        """Remove all that is in the trash now; returns when it is gone.

        What cannot be removed stays, and is logged: it is nobody's volume any more.
        """
        async with self._lock:
            stuck: set[str] = set()
            while entries := await in_thread(self._entries, stuck):
                if not await _remove(entries):
                    stuck.update(entries)

    def _entries(self, but: set[str]) -> list[str]:
        found: list[str] = []
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if entry.path not in but:
                        found.append(entry.path)
                    if len(found) == _BATCH:
                        break
        except FileNotFoundError:
            pass
        return found


async def _remove(trees: list[str]) -> bool:
    """Remove trees that guests filled: rm walks by descriptors and follows no link."""
    command = ("rm", "-rf", "--one-file-system", "--", *trees)
    if (await run(*command, timeout_s=None, check=False)).returncode == 0:
        return True
    # A privileged guest can make files immutable, which even root must undo first.
    try:
        await run("chattr", "-R", "-f", "-i", "-a", "--", *trees, timeout_s=None, check=False)
        await run(*command, timeout_s=None)
    except LxpyError as error:
        _log.warning("trash not emptied", error=str(error))
        return False
    return True
