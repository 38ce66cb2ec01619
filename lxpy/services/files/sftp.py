"""Sessions of SFTP: what mounts an instance's files elsewhere. Each is served by a program."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from lxpy.backups import programs
from lxpy.runtime.guestfiles import GuestFiles
from lxpy.services.files.files import Files, Target
from lxpy.services.files.treejob import Job
from lxpy.services.locks import Locks

_PROGRAM = "lxpy.services.files.sftpserver"
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Session:
    """An instance whose files are open."""

    target: Target
    files: GuestFiles
    locks: Locks

    async def serve(self, connection: int) -> None:
        """Serve a client on a connected socket until it goes away.

        Also until somebody wants to do something to a stopped instance, such as to start it: it
        cannot be mounted twice.
        """
        job = Job(self.files.root, "/", list(self.files.owners.uids), list(self.files.owners.gids))
        command = (*programs.ours(_PROGRAM), json.dumps(asdict(job)))
        process = await programs.start(
            command, stdin=connection, stdout=DEVNULL, pass_fds=(self.files.root,)
        )
        try:
            await self._wait(process)
        finally:
            await programs.end(process)

    async def _wait(self, process: Process) -> None:
        key = ("instance", self.target.project, self.target.instance)
        ended = asyncio.create_task(process.wait())
        try:
            while not ended.done() and not self.locks.is_wanted(*key):
                await asyncio.wait([ended], timeout=_LOOK_S)
        finally:
            ended.cancel()


class Sftp:
    """Opens sessions."""

    def __init__(self, files: Files, locks: Locks) -> None:
        self._files = files
        self._locks = locks

    @asynccontextmanager
    async def session(self, project: str, instance: str) -> AsyncIterator[Session]:
        """Open the files of an instance for the length of a block.

        Raises NotFound, Unavailable; BadRequest, in the block, when a running instance stops.
        """
        target = Target(project, instance, "/")
        async with self._files.opened(target, writable=True) as files:
            yield Session(target, files, self._locks)
