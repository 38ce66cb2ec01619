"""Dumps: all of a running system's processes with their memory, written to a directory.

The dump is made by CRIU, which stops every process on its way and lets them go on, or ends them,
when it is finished. What a restore needs besides is in `manifest.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import shutil
import signal
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lxpy.errors import Failed, NotSupported
from lxpy.runtime import chains, criu, criu_images, watches
from lxpy.runtime.cgroups import Group
from lxpy.runtime.criu import MANIFEST
from lxpy.runtime.fs import Confined
from lxpy.runtime.steps.devices import STANDARD

_VERSION = 1
_TIMEOUT_S = 60
_BLOCK_BYTES = 512  # of st_blocks
# How long to wait after a failure of the kind that passes.
_DELAYS_S = (0.05, 0.2, 0.5, 1.0, 2.0, 3.0)
_NULL = asyncio.subprocess.DEVNULL
_HOOK = """#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
cd "$CRTOOLS_IMAGE_DIR" && echo dumped >ask && [ "$(timeout 120 cat answer)" = go ]
"""
_NODES = frozenset(f"/dev/{name}" for name, *_ in STANDARD)
_ESCAPED = re.compile(r"\\([0-7]{3})")  # as mountinfo writes blanks
_STANDARD = frozenset(os.makedev(major, minor) for _, major, minor, _ in STANDARD)


@dataclass(frozen=True, slots=True)
class External:
    """A mount that comes from the host: CRIU's key for it, what it is, where it is to be.

    `kind` is "node", "device", "console", "lxcfs", "api" or "disk"; `place` is where it is: the
    target of a disk may lead over links.
    """

    key: str
    kind: str
    target: str
    place: str


@dataclass(frozen=True, slots=True)
class Way:
    """How to dump: by which CRIU, where to keep its log of a failure, whether the processes go on.

    If it `tracks`, the kernel notes what changes from then on; a dump with a `base` holds only what
    has changed since that one.
    """

    program: str
    log: Path
    keeps_running: bool
    tracks: bool = False
    base: Path | None = None


class Dump:
    """One dump, as a context manager: its processes are stopped for the length of the block.

    When the block raises, they go on, and the directory is removed.
    """

    def __init__(
        self, directory: Path, way: Way, *, name: str, pid: int, group: Group, disks: frozenset[str]
    ) -> None:
        #: of a finished one: how long processes stood still, what its files take on disk
        self.frozen_s, self.size_bytes = 0.0, 0
        self._directory = directory
        self._way = way
        self._base = way.base
        self._name = name
        self._pid = pid
        self._group = group
        self._disks = disks
        self._process: asyncio.subprocess.Process | None = None
        self._externals: list[External] = []
        self._manifest: dict[str, object] = {}
        self._finds_links = True

    async def __aenter__(self) -> Dump:
        try:
            for delay_s in _DELAYS_S:
                await asyncio.to_thread(self._prepare)
                await self._start(criu.VERBOSITY[0])
                if await self._dumped():
                    return self
                self._base = None  # nobody knows what has been noted as saved
                if not criu.passes(self._cause()):
                    break
                await asyncio.sleep(delay_s)
            await asyncio.to_thread(self._prepare)
            await self._start(criu.VERBOSITY[1])
            if await self._dumped():
                return self
            raise self._failure()
        except BaseException:
            await self._give_up()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            await self._give_up()
            return
        try:
            if not self._way.keeps_running:
                # Whole before its processes end: who dies in between has lost nothing.
                await asyncio.to_thread(self._complete)
            await asyncio.to_thread(self._answer, "go")
            assert self._process is not None
            status = await self._process.wait()
            if status != 0:
                raise self._failure()
            await asyncio.to_thread(self._finish)
        except BaseException:
            await self._give_up()
            raise

    def _prepare(self) -> None:
        """Make the directory with what a restore needs to know. Raises NotSupported."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A restored process, in its user namespace, reads here; nobody else gets this far.
        self._directory.mkdir(mode=0o711)
        for name in ("ask", "answer"):
            os.mkfifo(self._directory / name, 0o600)
        hook = self._directory / "hook"
        hook.write_text(_HOOK)
        hook.chmod(0o700)
        self._externals = externals(self._pid, self._name, self._disks)
        self._finds_links = watches.are_found(self._pid)
        console = os.stat(f"/proc/{self._pid}/root/dev/console")
        self._manifest = {
            "version": _VERSION,
            "name": self._name,
            "tty": f"{console.st_rdev:x}:{console.st_dev:x}",
            "externals": [[each.key, each.kind, each.target] for each in self._externals],
            "cgroups": groups(self._group),
            "kernel": os.uname().release,
        }

    async def _start(self, verbosity: str) -> None:
        options = [
            verbosity,
            "--tree", str(self._pid),
            "--images-dir", str(self._directory),
            "--log-file", criu.DUMP_LOG,
            "--timeout", str(_TIMEOUT_S),
            "--ghost-limit", criu.GHOST_LIMIT,
            "--network-lock", "nftables",
            "--action-script", str(self._directory / "hook"),
            *criu.COMMON,
            *(["--force-irmap"] if self._finds_links else []),
            *criu.cgroup_roots(f"/{self._group.path}"),
            *(["--leave-running"] if self._way.keeps_running else []),
            *(["--track-mem"] if self._way.tracks else []),
        ]  # fmt: skip
        if self._base is not None:
            options += ["--prev-images-dir", os.path.relpath(self._base, self._directory)]
        for each in self._externals:
            options += ["--external", f"mnt[{each.place}]:{each.key}"]
        options += ["--external", f"tty[{self._manifest['tty']}]"]
        # Its own log says all; a session of its own, as a daemon that ends must not take it along.
        self._process = await asyncio.create_subprocess_exec(
            self._way.program, "dump", *options, stdin=_NULL, stdout=_NULL, stderr=_NULL,
            start_new_session=True,
        )  # fmt: skip

    async def _dumped(self) -> bool:
        """Wait until all is dumped and nothing runs; False when CRIU ends before."""
        assert self._process is not None
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        ask = os.open(self._directory / "ask", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        loop.add_reader(ask, asked.set)
        waiting = [asyncio.create_task(each) for each in (_until(asked), self._ended())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(ask)
            os.close(ask)
            for each in waiting:
                each.cancel()
        return asked.is_set()

    async def _ended(self) -> None:
        assert self._process is not None
        await self._process.wait()

    def _answer(self, text: str) -> None:
        """Let the hook go on. Raises OSError when nobody waits for that."""
        _answer(self._directory, text)

    async def _give_up(self) -> None:
        """Let the processes go on, and remove what was written, but for the log."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._answer, "no")
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        await asyncio.to_thread(self._keep_log)

    def _keep_log(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.move(self._directory / criu.DUMP_LOG, self._way.log)
        shutil.rmtree(self._directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._directory.parent.rmdir()  # unless other dumps are there

    def _finish(self) -> None:
        if self._way.keeps_running:
            self._complete()
        without_hook(self._directory)
        self.frozen_s = criu_images.frozen_s(str(self._directory))
        with os.scandir(self._directory) as entries:
            self.size_bytes = sum(each.stat(follow_symlinks=False).st_blocks for each in entries)
        self.size_bytes *= _BLOCK_BYTES

    def _complete(self) -> None:
        criu_images.mend(str(self._directory))
        if self._base is not None:
            chains.link(self._directory, self._base)
        if not self._finds_links:
            self._give_paths()
        new = self._directory / f"{MANIFEST}.new"
        new.write_text(json.dumps(self._manifest))
        new.rename(self._directory / MANIFEST)

    def _give_paths(self) -> None:
        try:
            watches.give_paths(str(self._directory), self._pid)
        except OSError as error:
            text = f"The memory of {self._name} cannot be saved: {error.strerror}"
            raise Failed(text) from error

    def _failure(self) -> Failed:
        return Failed(f"The memory of {self._name} cannot be saved: {self._cause()}")

    def _cause(self) -> str:
        return criu.cause(str(self._directory / criu.DUMP_LOG))


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def _answer(directory: Path, text: str, patience_s: float = 5.0) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(directory / "answer", flags)
            break
        except OSError as error:
            # The hook tells first and opens this end then.
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
            time.sleep(0.0005)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def dismiss(directory: Path) -> None:
    """Let the processes go on that a dump without a daemon keeps still; blocking.

    If it was about to end them, it does. Returns when it has ended.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    try:
        ask = os.open(directory / "ask", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # it has not begun, or has ended
    try:
        while True:  # it may not have asked yet
            with contextlib.suppress(OSError):
                _answer(directory, "no", patience_s=0)
            if not _is_at_work(str(directory)) or time.monotonic() > deadline:
                return
            time.sleep(0.02)
    finally:
        os.close(ask)


def without_hook(directory: Path) -> None:
    """Remove what only CRIU has needed."""
    for name in ("ask", "answer", "hook"):
        (directory / name).unlink(missing_ok=True)


def _is_at_work(directory: str) -> bool:
    """Tell whether a CRIU writes its images to a directory."""
    wanted = os.fsencode(directory)
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if wanted in process.read_bytes().split(b"\0"):
                return True
    return False


def externals(pid: int, name: str, disks: frozenset[str]) -> list[External]:
    """Return the mounts of a running system that its dump must not contain.

    Raises NotSupported for one that a restore could not find again.
    """
    found = []
    targets = _places(pid, disks)
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file):
            before, _, after = line.partition(" - ")
            _, _, _, root, raw = before.split(" ")[:5]
            place = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), raw)
            if place in targets:
                found.append(External(f"m{number}", "disk", targets[place], place))
                continue
            kind = _kind(after.split(" ")[0], root, place) or _device(pid, root, place)
            if kind == "cgroup":
                raise NotSupported(
                    f"The memory of {name} cannot be saved: its init uses control groups of "
                    "version 1"
                )
            if kind:
                found.append(External(f"m{number}", kind, place, place))
    return found


def _places(pid: int, disks: frozenset[str]) -> dict[str, str]:
    """Return the targets of disks by where they are, links followed."""
    root = Confined.at(f"/proc/{pid}/root")
    places = {}
    try:
        for disk in disks:
            with contextlib.suppress(OSError):  # one that was not there to be mounted
                places[root.real_path(disk)] = disk
    finally:
        root.close()
    return places


def _kind(file_system: str, root: str, target: str) -> str:
    if file_system == "cgroup":
        return "cgroup"
    if file_system == "fuse.lxcfs":
        return "lxcfs"
    if target == "/dev/lxd":
        return "api"
    if target == "/dev/console":
        return "console"
    return "node" if target in _NODES and root != "/" else ""


def _device(pid: int, root: str, target: str) -> str:
    """Tell whether a mount shows a device of the host's, as restores mount them."""
    if root == "/" or not target.startswith("/dev/"):
        return ""
    try:
        status = os.stat(f"/proc/{pid}/root{target}", follow_symlinks=False)
    except OSError:
        return ""
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return "device" if is_device and status.st_rdev not in _STANDARD else ""


def groups(group: Group) -> list[list[object]]:
    """Return the control groups that a system made below its own: path, owner, controllers."""
    top = f"{group.v2}/p"
    found: list[list[object]] = []
    for path, _, _ in os.walk(top):
        status = os.stat(path)
        with open(f"{path}/cgroup.subtree_control", encoding="utf-8") as file:
            handed_down = file.read().split()
        found.append([os.path.relpath(path, top), status.st_uid, status.st_gid, handed_down])
    return found
