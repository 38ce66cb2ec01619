"""Whole trees of an instance's files as tar archives, each by a short program of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lxpy.errors import BadRequest, Conflict, Failed, LxpyError, NotFound, Unavailable
from lxpy.runtime.guestfiles import GuestFiles
from lxpy.services.files import STALL_S, Files, Target

# -I -S: no site-packages, no user settings; the program needs this package's directory alone.
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from lxpy.services.treeprogram import main; main()"
)
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
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
            _program("pack", files, target.path, stdin=DEVNULL, stdout=PIPE) as process,
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
            _program("unpack", files, target.path, stdin=PIPE, stdout=DEVNULL) as process,
        ):
            await _feed(process, chunks)
            await _succeeded(process)
        self._files.tell("instance-file-pushed", target)


@asynccontextmanager
async def _program(
    verb: str, files: GuestFiles, path: str, *, stdin: int, stdout: int
) -> AsyncIterator[Process]:
    job = {
        "verb": verb, "root": files.root, "path": path,
        "uids": files.owners.uids, "gids": files.owners.gids,
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _PROGRAM, _PACKAGE_ROOT, json.dumps(job),
        stdin=stdin, stdout=stdout, stderr=PIPE, pass_fds=(files.root,), limit=_BLOCK,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


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
    except (BrokenPipeError, ConnectionResetError):
        if process.stdin.transport.is_closing():
            return  # it tells why
        raise  # the client has gone


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
