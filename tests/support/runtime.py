"""The runtime without a daemon: a supervisor of its own, the tiny rootfs, commands."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxpy.runtime.cgroups import Layout
from lxpy.runtime.container import Exit, Process, Runtime
from lxpy.runtime.spec import ExecSpec, IdMapEntry, Overlay, Spec
from tests.images import busybox
from tests.support.processes import alive, end

PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
#: An init that writes something every now and then and ends when it is told to.
TICKER = ("/bin/sh", "-c", 'trap "exit 9" TERM; while :; do echo tick; sleep 0.1; done')
FIRST_ID = 1_879_048_192  # far from what any daemon hands out


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def unpack(directory: Path) -> Path:
    """Make the tiny rootfs a directory: the layer below all instances."""
    image = busybox.build(directory / "tiny.tar.gz")
    subprocess.run(["tar", "-C", directory, "-xzf", image, "rootfs"], check=True)
    return directory / "rootfs"


def idmap(number: int) -> tuple[IdMapEntry, ...]:
    """Ids of one instance."""
    outside = FIRST_ID + number * 65536
    return IdMapEntry("u", 0, outside, 65536), IdMapEntry("g", 0, outside, 65536)


async def no_network(pid: int) -> None:
    """Leave the network namespace empty."""


class Host:
    """One installation below `directory`, with its cgroup `cgroup`."""

    def __init__(self, directory: Path, image: Path, cgroup: str) -> None:
        self.directory = directory
        self.image = image
        self.cgroup = cgroup
        self.ends: list[Exit] = []
        self.ready: list[str] = []
        self.runtime = self.new_runtime()
        self._count = 0

    def new_runtime(self) -> Runtime:
        """Make the handle that a new daemon would make."""
        run = self.directory / "run"
        runtime = Runtime(run, cgroup=self.cgroup, log_dir=self.directory / "log")
        runtime.on_exit = lambda exit: self._note(runtime, exit)
        runtime.on_ready = self.ready.append
        return runtime

    def _note(self, runtime: Runtime, exit: Exit) -> None:
        self.ends.append(exit)
        runtime.acknowledge(exit)

    def overlay(self, name: str) -> Overlay:
        """Return a fresh rootfs of the image."""
        root = self.directory / "instances" / name
        for part in ("upper", "work"):
            (root / part).mkdir(parents=True)
        return Overlay((str(self.image),), str(root))

    def upper(self, name: str) -> Path:
        """Where an instance's own files are."""
        return self.directory / "instances" / name / "upper"

    def spec(self, name: str, **values: Any) -> Spec:
        """Return a spec that starts; `values` are its other fields."""
        self._count += 1
        values.setdefault("idmap", idmap(self._count))
        values.setdefault("init", ("/bin/sleep", "1000000"))
        if "rootfs" not in values:
            values["rootfs"] = self.overlay(name)
        console = str(self.directory / f"{name}.console")
        log = str(self.directory / f"{name}.log")
        return Spec(name=name, hostname=name, console_log=console, log=log, **values)

    async def start(self, name: str, **values: Any) -> int:
        """Start an instance; its init's pid."""
        return (await self.runtime.start(self.spec(name, **values), no_network)).pid

    async def run(self, name: str, *command: str, stdin: bytes = b"", **values: Any) -> Result:
        """Execute a command to its end."""
        environment = values.pop("environment", PATH)
        process = await self.runtime.exec(ExecSpec(name, command, environment, **values), None)
        try:
            os.write(process.fds["stdin"], stdin)
            process.close("stdin")
            out, err = await asyncio.gather(
                *(asyncio.to_thread(read_all, process.fds[key]) for key in ("stdout", "stderr"))
            )
            code = await asyncio.wait_for(process.wait(), 10)
        finally:
            process.close()
        return Result(code, out.decode(), err.decode())

    async def sh(self, name: str, script: str) -> Result:
        """Execute a script."""
        return await self.run(name, "sh", "-c", script)

    @property
    def supervisor(self) -> int:
        """The supervisor's pid."""
        sock: socket.socket = self.runtime.link._sock
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("3i", raw)[0])

    async def kill_supervisor(self) -> None:
        """Kill it, and wait until another has taken over."""
        old = self.supervisor
        end(old, 9)
        await until(lambda: self._replaced(old), "another supervisor")

    def _replaced(self, old: int) -> bool:
        link = self.runtime._link
        return (
            link is not None
            and not link.closed
            and self.runtime._reconnecting is None
            and self.supervisor != old
        )

    def groups(self) -> list[Path]:
        """What is left of our control groups below our own one."""
        layout = Layout.detect()
        roots = [Path(mount) / self.cgroup for mount in (layout.v2, *layout.mounts_v1())]
        return [each for root in roots if root.exists() for each in root.iterdir() if each.is_dir()]

    def descriptors(self) -> int:
        """How many descriptors the supervisor holds, but one for each map of ids."""
        entries = Path(f"/proc/{self.supervisor}/fd").iterdir()
        return sum(not os.readlink(entry).startswith("user:") for entry in entries)

    async def close(self) -> None:
        """End everything. Fails when something is left."""
        for held in list(self.runtime._running):
            await self.runtime.kill(held)
        pid = self.supervisor
        left = self.groups()
        await self.runtime.shutdown()
        await until(lambda: not alive(pid), "the supervisor's end")
        assert (left, os.listdir(self.directory / "run/journal")) == ([], [])
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(self.directory) not in mounts


def read_all(fd: int) -> bytes:
    """Read to the end."""
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


async def until(true: Callable[[], object], what: str, timeout_s: float = 10) -> None:
    """Poll without blocking the loop."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.01)


async def read_until(process: Process, text: bytes, which: str = "pty") -> bytes:
    """Read from a terminal until it has shown `text`."""
    seen = b""

    def more() -> bool:
        nonlocal seen
        try:
            seen += os.read(process.fds[which], 65536)
        except BlockingIOError:
            pass
        return text in seen

    await until(more, f"{text!r} in the terminal")
    return seen
