"""lxcfs: the file system that shows instances their own limits in /proc; ours to start and watch.

It outlives the daemon, as instances do: a new daemon takes it over by its mount.

Instances get its files from bind mounts that are made once: looking a file up in lxcfs itself
takes a request to it for each, together half the time of a start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

import structlog

from lxpy.kernel import mounts
from lxpy.programs import run
from lxpy.threads import in_thread

_log = structlog.get_logger()
_CPUS = "sys/devices/system/cpu"
_READY_S = 5.0
_RETRY_S = 5.0


class Lxcfs:
    """One lxcfs, mounted at a directory of this installation."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._views = directory.with_suffix(".views")
        self._pidfile = directory.with_suffix(".pid")
        self._watch: asyncio.Task[None] | None = None
        self._working = False

    @property
    def path(self) -> Path | None:
        """Where its files are, None while there are none."""
        return self._views if self._working else None

    async def start(self) -> None:
        """Take over the lxcfs of a former daemon, or start one if it is installed."""
        if shutil.which("lxcfs") is None:
            _log.info("lxcfs is not installed: instances see the host's memory and cpus in /proc")
            return
        if await in_thread(self._answers):
            await self._ready()
        else:
            await self._launch()
        if self._working:
            self._watch = asyncio.create_task(self._watch_over())

    async def close(self) -> None:
        """Leave it alone: running instances use it."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None

    async def stop(self) -> None:
        """End it, once no instance runs."""
        await self.close()
        self._working = False
        await self._unmount()
        pid = self._pid()
        if pid:
            # By force: it has nothing to save, and would first sleep for seconds.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await in_thread(self._remove)

    async def _launch(self) -> None:
        await self._unmount()
        await in_thread(self._directory.mkdir, 0o755, True, True)
        self._pidfile.unlink(missing_ok=True)
        started = await asyncio.create_subprocess_exec(
            "lxcfs",
            "--enable-loadavg",
            "--pidfile",
            str(self._pidfile),
            str(self._directory),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        deadline = asyncio.get_running_loop().time() + _READY_S
        # It goes on in the background; where it cannot, its first process says so by its end.
        while not started.returncode and asyncio.get_running_loop().time() < deadline:
            if await in_thread(self._answers):
                await self._ready()
                return
            await asyncio.sleep(0.01)
        _log.warning("lxcfs does not come up", directory=str(self._directory))

    async def _ready(self) -> None:
        """Make the views, and let instances have them."""
        try:
            await in_thread(self._bind)
        except OSError as error:
            _log.warning("lxcfs cannot be shown to instances", error=str(error))
            return
        self._working = True

    def _bind(self) -> None:
        """Bind each of its files to a place of its own, unless that is done."""
        if is_mounted(self._views / "proc/meminfo"):
            return
        for name in sorted(os.listdir(self._directory / "proc")):
            target = self._views / "proc" / name
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            target.touch(mode=0o444)
            _bind(self._directory / "proc" / name, target)
        if (self._directory / _CPUS).is_dir():
            (self._views / _CPUS).mkdir(mode=0o755, parents=True, exist_ok=True)
            _bind(self._directory / _CPUS, self._views / _CPUS)

    async def _watch_over(self) -> None:
        """Start it again when it dies; instances that run keep the dead one's files."""
        while True:
            await self._ended()
            self._working = False
            _log.warning("lxcfs ended, starting another")
            await self._launch()
            if not self._working:
                await asyncio.sleep(_RETRY_S)

    async def _ended(self) -> None:
        """Wait until the process is gone."""
        try:
            pidfd = os.pidfd_open(self._pid())
        except (OSError, ValueError):
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(pidfd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    async def _unmount(self) -> None:
        for target in await in_thread(mounted_below, self._views, self._directory):
            await run("umount", "--lazy", target, check=False)

    def _pid(self) -> int:
        """Return the pid of our lxcfs, 0 when it is gone."""
        try:
            pid = int(self._pidfile.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        return pid if os.fsencode(self._directory) in arguments else 0

    def _answers(self) -> bool:
        try:
            return (self._directory / "proc/meminfo").stat().st_mode != 0 and self._pid() > 0
        except OSError:
            return False

    def _remove(self) -> None:
        self._pidfile.unlink(missing_ok=True)
        shutil.rmtree(self._views, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._directory.rmdir()


def _bind(source: Path, target: Path) -> None:
    mounts.mount(str(source), str(target), "", mounts.MS_BIND)


def is_mounted(path: Path) -> bool:
    """Tell whether something is mounted at a path."""
    return bool(mounted_below(path))


def mounted_below(*tops: Path) -> list[str]:
    """Return what is mounted at or below some paths, the latest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    targets = [line.split()[4].replace("\\040", " ") for line in reversed(lines)]
    return [each for each in targets if any(Path(each).is_relative_to(top) for top in tops)]
