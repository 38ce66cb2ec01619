"""Trees by rsync: a client at the source, a server at the sink, the socket of the files between.

Source: rsync(1); the options are those of LXD 5.0.2, as both sides must have the same.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lxpy.backups import programs
from lxpy.errors import Failed, MissingTool
from lxpy.migration import frames
from lxpy.migration.messages import Rsync
from lxpy.operations.channel import Channel

_BLOCK = 1 << 17
_SENDER = ("rsync", "-ar", "--filter=-x security.selinux")
# The letters after the dot are what the client has told its server of itself since rsync 3.
# Files of the same size count as the same only if their times are, to the nanosecond.
_RECEIVER = ("rsync", "--server", "-vlogDtpre.iLsfx", "--modify-window=-1")
#: what rsync calls as its remote shell: descriptors 3 and 4 lead to the other server. It ends, and
#: rsync waits for that before it closes anything, when nothing more comes from there.
_SHELL = "sh -c 'exec 5<&0; cat <&5 >&4 3<&- & exec cat <&3 4>&- 5<&-'"
_VANISHED = 24

Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Tree:
    """Files of a volume: the mount `descriptor` is shown at `below` in the directory `top`."""

    top: Path
    below: str
    descriptor: int

    @property
    def place(self) -> str:
        """The path that rsync gets."""
        return f"{self.top}/"


async def send(
    channel: Channel,
    tree: Tree,
    features: Rsync,
    tell: Tell,
    *,
    limit_kib: int = 0,
    may_vanish: bool = False,
) -> None:
    """Send a tree. `limit_kib` is KiB per second, 0 for as fast as it goes.

    Raises Failed, MissingTool; with `may_vanish`, files that are gone meanwhile are no failure.
    """
    limit = (f"--bwlimit={limit_kib}",) if limit_kib else ()
    words = (*_SENDER, *_options(features), *limit, tree.place, "localhost:/tmp/foo", "-e", _SHELL)
    status, said = await _talk(channel, tree, "send", words, tell)
    if status != 0 and not (may_vanish and status == _VANISHED):
        raise Failed(f"Sending the files failed: {said}")


async def receive(channel: Channel, tree: Tree, features: Rsync, tell: Tell) -> None:
    """Make a tree what the source's is. Raises Failed, MissingTool."""
    words = (*_RECEIVER, *_options(features), ".", tree.place)
    status, said = await _talk(channel, tree, "receive", words, tell)
    if status != 0:
        raise Failed(f"Receiving the files failed: {said}")


def _options(features: Rsync) -> tuple[str, ...]:
    found = ["--devices", "--numeric-ids", "--partial", "--sparse"]
    if features.xattrs:
        found.append("--xattrs")
    if features.delete:
        found.append("--delete")
    if features.compress:
        found += ["--compress", "--compress-level=2"]
    if features.whole:
        found += ["--hard-links", "--acls"]
    return tuple(found)


async def _talk(
    channel: Channel, tree: Tree, role: str, words: tuple[str, ...], tell: Tell
) -> tuple[int, str]:
    """Run one of the two; return its status and what it complained of."""
    if shutil.which("rsync") is None:
        raise MissingTool("rsync", "rsync", "moving files between servers")
    command = (
        *programs.ours("lxpy.migration.staged"), str(tree.top), tree.below, str(tree.descriptor),
        role, *words,
    )  # fmt: skip
    process = await programs.start(
        command, limit=_BLOCK, stdin=PIPE, stdout=PIPE, pass_fds=(tree.descriptor,),
        start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.TaskGroup() as tasks:
            said = tasks.create_task(process.stderr.read())
            tasks.create_task(_outward(process, channel, tell))
            tasks.create_task(_inward(channel, process, tell))
        status = await process.wait()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        await _end(process)
    return status, programs.complaint(said.result(), status)


async def _end(process: Process) -> None:
    """Have nothing of it left: until its last process has gone, the tree is in use."""
    assert process.stderr is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    await process.wait()
    await process.stderr.read()


async def _outward(process: Process, channel: Channel, tell: Tell) -> None:
    assert process.stdout is not None
    while data := await process.stdout.read(_BLOCK):
        tell(len(data))
        await channel.send(data)
    await frames.end(channel)


async def _inward(channel: Channel, process: Process, tell: Tell) -> None:
    """Pass on what comes; when rsync has gone the rest is read all the same, to the mark."""
    assert process.stdin is not None
    async for data in frames.stream(channel):
        tell(len(data))
        try:
            process.stdin.write(data)
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            continue
    process.stdin.close()
