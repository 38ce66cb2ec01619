"""File systems of the host's block devices, mounted for the instances whose disks show them.

Where they are mounted nobody but root gets to: what is in them is the instances' alone. Each holder
has a mount of its own; what an instance sees is a clone of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

from lxpy.errors import Failed, LxpyError
from lxpy.programs import run
from lxpy.threads import in_thread

_log = structlog.get_logger()


class BlockMounts:
    """Keeps the mounts below `directory`, by holder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, dict[str, Path]] = {}

    async def hold(self, holder: str, device: str, source: str) -> Path:
        """Mount a block device for a holder, unless it is; return where. Raises Failed."""
        known = self._held.get(holder, {}).get(source)
        if known is not None:
            return known
        target = self._place(holder, source)
        if not await in_thread(os.path.ismount, target):
            await in_thread(self._make, target)
            try:
                # Writable even for who only reads: a file system is one or the other for all.
                await run("mount", source, str(target))
            except BaseException as error:
                await in_thread(self._remove, target)
                if isinstance(error, Failed):
                    raise Failed(
                        f'Failed to start device "{device}": the file system on {source} cannot be '
                        f"mounted: use a unix-block device to show the device itself ({error})"
                    ) from error
                raise
        self._held.setdefault(holder, {})[source] = target
        return target

    async def settle(self, holder: str, shown: Iterable[str]) -> None:
        """Unmount what a holder does not show any more. Logs what fails."""
        held = self._held.get(holder, {})
        for source in held.keys() - set(shown):
            await self._unmount(held.pop(source))
        if not held:
            self._held.pop(holder, None)

    async def sweep(self) -> None:
        """Unmount what a crash has left; running instances hold theirs by now."""
        kept = {target for held in self._held.values() for target in held.values()}
        for target in await in_thread(self._present):
            if target not in kept:
                await self._unmount(target)

    async def _unmount(self, target: Path) -> None:
        try:
            if await in_thread(os.path.ismount, target):
                await run("umount", str(target))
            await in_thread(self._remove, target)
        except LxpyError as error:
            _log.warning("a disk's file system stays mounted", path=str(target), error=str(error))

    def _place(self, holder: str, source: str) -> Path:
        text = f"{holder}\0{source}"
        return self._directory / hashlib.sha256(text.encode()).hexdigest()[:24]

    def _present(self) -> list[Path]:
        return list(self._directory.iterdir()) if self._directory.is_dir() else []

    def _make(self, target: Path) -> None:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)

    def _remove(self, target: Path) -> None:
        """Remove a mount point, and with the last one the directory."""
        with contextlib.suppress(OSError):
            target.rmdir()
            self._directory.rmdir()


def is_block(path: str) -> bool:
    """Whether a path is a block device."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False
