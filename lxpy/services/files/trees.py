"""Whole trees of an instance's files as tar archives, each by a short program of its own."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict

from lxpy.backups import programs
from lxpy.errors import BadRequest, Conflict, Failed, LxpyError, NotFound, Unavailable
from lxpy.runtime.guestfiles import GuestFiles
from lxpy.services.files.files import STALL_S, Files, Target
from lxpy.services.files.treejob import Job

_PACK, _UNPACK = "lxpy.services.files.treepack", "lxpy.services.files.treeunpack"
_BLOCK = 1 << 18
_ERRORS: dict[str, type[LxpyError]] = {
    each.__name__: each for each in (BadRequest, Conflict, Failed, NotFound)
}


class Trees:
    """Packs and unpacks directories of instances and snapshots."""

    def __init__(self, files: Files) -> None:
        self._files = files

    @asynccontextmanager
    async def packed(self, target: Target) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give the archive of a directory, to be read while the block lasts.

        Owners are as the guest has them. Reading raises NotFound, BadRequest, Failed.
        """
        async with (
            self._files.opened(target) as files,
            _program(_PACK, files, target.path, stdin=DEVNULL, stdout=PIPE) as process,
        ):
            yield _output(process)
        self._files.tell("instance-file-retrieved", target)

    async def unpack(self, target: Target, chunks: AsyncIterable[bytes]) -> None:
        """Unpack an archive into a directory.

        What is there stays; files get the new content. Raises NotFound, BadRequest, Conflict,
        Failed: members before the one at fault are there then.
        """
        async with (
            self._files.opened(target, writable=True) as files,
            _program(_UNPACK, files, target.path, stdin=PIPE, stdout=DEVNULL) as process,
        ):
            await _feed(process, chunks)
            await _succeeded(process)
        self._files.tell("instance-file-pushed", target)


@asynccontextmanager
async def _program(
    module: str, files: GuestFiles, path: str, *, stdin: int, stdout: int
) -> AsyncIterator[Process]:
    job = Job(files.root, path, list(files.owners.uids), list(files.owners.gids))
    command = (*programs.ours(module), json.dumps(asdict(job)))
    process = await programs.start(
        command, stdin=stdin, stdout=stdout, pass_fds=(files.root,), limit=_BLOCK
    )
    try:
        yield process
    finally:
        await programs.end(process)
        if process.stdin is not None:
            process.stdin.close()
            with suppress(ConnectionError):  # else asyncio complains that nobody saw it
                await process.stdin.wait_closed()


async def _output(process: Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None
    while data := await process.stdout.read(_BLOCK):
        yield data
    await _succeeded(process)


async def _feed(process: Process, chunks: AsyncIterable[bytes]) -> None:
    """Write an archive to a program, which may end before it has read everything."""
    assert process.stdin is not None
    iterator = aiter(chunks)
    try:
        while True:
            async with asyncio.timeout(STALL_S):
                chunk = await anext(iterator, None)
            if chunk is None:
                break
            process.stdin.write(chunk)
            await process.stdin.drain()
        process.stdin.close()
    except TimeoutError as error:
        raise Unavailable(f"Nothing was sent for {STALL_S:g} s: upload it again") from error
    except ConnectionError:
        return  # it has ended, and tells why


async def _succeeded(process: Process) -> None:
    """Wait for a program's end. Raises the error that it has told."""
    assert process.stderr is not None
    text = (await process.stderr.read()).decode("utf-8", "replace").strip()
    if await process.wait() == 0:
        return
    line = text.splitlines()[-1] if text else f"status {process.returncode}"
    try:
        told = json.loads(line)
        error = _ERRORS[told["class"]](told["error"])
    except (ValueError, KeyError, TypeError):
        raise Failed(f"The program that transfers files ended early: {line}") from None
    raise error
