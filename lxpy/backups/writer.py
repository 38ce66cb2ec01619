"""Archives on their way out: trees to tar to a compressor, read as they come. Nothing is staged."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import FileIO

from lxpy.backups import programs
from lxpy.backups.pack import Job
from lxpy.images.pack import Packer

_CHUNK = 1 << 18

Chunks = AsyncIterator[bytes]


@asynccontextmanager
async def stream(job: Job, how: Packer, what: str = "write the archive") -> AsyncIterator[Chunks]:
    """Pack a job; the block reads the archive as it comes.

    Reading it to its end raises Failed where anything went wrong: then what was read is no
    archive. Leaving the block before ends the work. Raises MissingTool.
    """
    async with AsyncExitStack() as stack:
        output, writing = await _output(stack)
        with writing:
            started = _pipeline(job, how, writing.fileno(), what)
            pipeline = await stack.enter_async_context(started)
        yield _chunks(output, pipeline)


async def write(job: Job, how: Packer, output: int, what: str = "write the archive") -> None:
    """Pack a job into an open file. Raises Failed, MissingTool; what was written then stays."""
    async with _pipeline(job, how, output, what) as pipeline:
        await pipeline.check()


async def _chunks(output: asyncio.StreamReader, pipeline: _Pipeline) -> Chunks:
    while chunk := await output.read(_CHUNK):
        yield chunk
    await pipeline.check()


async def _output(stack: AsyncExitStack) -> tuple[asyncio.StreamReader, FileIO]:
    """Make the pipe that the archive comes through.

    Not a process's own: asyncio takes no process for ended before its pipes have been read.
    """
    ends = programs.wide_pipe()
    reading, writing = os.fdopen(ends[0], "rb", 0), os.fdopen(ends[1], "wb", 0)
    reader = asyncio.StreamReader(limit=_CHUNK)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), reading
    )
    stack.callback(transport.close)
    return reader, writing


class _Pipeline:
    """The packing program, and the compressor behind it if there is one."""

    def __init__(self, processes: list[Process], job: bytes, what: str) -> None:
        self._processes = processes
        self._what = what
        self._complaints = [asyncio.create_task(_read_stderr(each)) for each in processes]
        self._feeding = asyncio.create_task(_feed(processes[0], job))

    async def check(self) -> None:
        """Wait for the end. Raises Failed."""
        await self._feeding
        texts = [await each for each in self._complaints]
        for process in self._processes:
            await process.wait()
        # A full disk ends the compressor first, then the program by a broken pipe.
        for process, text in reversed(list(zip(self._processes, texts, strict=True))):
            if process.returncode != 0:
                reason = programs.complaint(text, process.returncode)
                raise programs.failure(self._what, reason)

    async def close(self) -> None:
        """End the programs."""
        await programs.end(*self._processes)
        await asyncio.gather(self._feeding, *self._complaints, return_exceptions=True)


@asynccontextmanager
async def _pipeline(job: Job, how: Packer, output: int, what: str) -> AsyncIterator[_Pipeline]:
    command = programs.ours("lxpy.backups.pack")
    inherited = job.descriptors
    processes: list[Process] = []
    async with AsyncExitStack() as undo:
        undo.push_async_callback(_end_all, processes)
        if not how.command:
            processes.append(
                await programs.start(command, stdin=PIPE, stdout=output, pass_fds=inherited)
            )
        else:
            reading, writing = programs.wide_pipe()
            try:
                processes.append(
                    await programs.start(command, stdin=PIPE, stdout=writing, pass_fds=inherited)
                )
                processes.append(await programs.start(how.command, stdin=reading, stdout=output))
            finally:
                os.close(reading)
                os.close(writing)
        pipeline = _Pipeline(processes, job.dump(), what)
        undo.push_async_callback(pipeline.close)
        yield pipeline


async def _end_all(processes: list[Process]) -> None:
    await programs.end(*processes)


async def _feed(process: Process, job: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(job)
        await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()
    except ConnectionError:
        return  # it ended early, and says why


async def _read_stderr(process: Process) -> bytes:
    assert process.stderr is not None
    return await process.stderr.read()
