"""Archives on their way in: decompressed and unpacked as they come. Nothing is staged."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lxpy.backups import index, programs
from lxpy.backups.index import Index
from lxpy.backups.unpack import Found, Order
from lxpy.backups.writer import Chunks
from lxpy.errors import Failed
from lxpy.images.compression import NONE, SQUASHFS, Compression, detect
from lxpy.threads import in_thread

_HEAD_BYTES = 512
_GOOD = (0, 2)  # 2 is a warning of gzip and xz

Tell = Callable[[int], None]
Receive = Callable[[str, int], Awaitable[None]]


class Incoming:
    """A backup whose index has been read. `unpack` reads the rest."""

    def __init__(self, about: Index, work: _Work) -> None:
        self.index = about
        self._work = work

    async def unpack(
        self,
        targets: Mapping[str, Path],
        tell: Tell = lambda _: None,
        *,
        roots: Mapping[str, int] | None = None,
    ) -> Found:
        """Unpack into directories, by the archive's names for them; to the archive's end.

        `roots` are descriptors of the trees that an incremental backup changes, by the same names.
        `tell` hears how many bytes have been unpacked.
        Raises Failed naming what is wrong; what was written until then stays there.
        """
        order = Order(
            targets={name: str(path) for name, path in targets.items()},
            plain=self.index.type == "custom",
            checksums=self.index.checksums,
        )
        if roots is not None:
            order.roots.update({name: number for number, name in enumerate(roots)})
            order.gone.update(
                {self.index.gone(s): n for n, s in self.index.targets().items() if n in roots}
            )
        return await self._work.unpack(order, list((roots or {}).values()), tell)

    async def pass_on(self, receive: Receive, tell: Tell = lambda _: None) -> None:
        """Hand on what the archive has in a storage driver's own form.

        `receive` is called with the archive's name for each part and a descriptor to read it from,
        one after the other. Raises Failed, and what `receive` raises.
        """
        names = list(self.index.targets())
        order = Order(targets={}, checksums=self.index.checksums)
        order.streams.update({name: number for number, name in enumerate(names)})
        with _Pipes(names) as pipes:
            streams = _Streams(receive, pipes)
            try:
                sending = list(pipes.writing.values())
                found = await self._work.unpack(order, sending, tell, streams.begin, pipes.sent)
                await streams.finish()
            finally:
                await streams.cancel()
        missing = [name for name in names if name not in found.streams]
        if missing:
            raise Failed(f"Invalid backup: it has no {missing[0]}.bin")


@asynccontextmanager
async def incoming(chunks: Chunks) -> AsyncIterator[Incoming]:
    """Read a backup of any compression up to its index; the block unpacks the rest.

    `chunks` raises LxpyError where what comes breaks off.
    Raises Failed for what is no backup, or ends early; MissingTool.
    """
    head, rest = await _head(chunks)
    compression = detect(head)
    if compression is None:
        raise Failed(
            "Invalid backup: it is no tar archive, neither plain nor compressed by gzip, bzip2, "
            "xz, lzma or zstd"
        )
    if compression is SQUASHFS:
        raise Failed(
            "Backups in a squashfs cannot be read as they come: export with another "
            "--compression, or repack it as a tar archive"
        )
    async with AsyncExitStack() as stack:
        work = await stack.enter_async_context(_started(compression, head, rest))
        about = index.parse(await work.index())
        yield Incoming(about, work)


async def _head(chunks: Chunks) -> tuple[bytes, Chunks]:
    head = b""
    async for chunk in chunks:
        head += chunk
        if len(head) >= _HEAD_BYTES:
            break
    return head, chunks


class _Work:
    """The unpacking program, the decompressor before it, and the task that feeds them."""

    def __init__(self, processes: list[Process], control: socket.socket, feeding: Feeding) -> None:
        self._processes = processes
        self._control = control
        self._feeding = feeding
        self._complaints = [asyncio.create_task(_read_stderr(each)) for each in processes]

    async def index(self) -> str:
        message = await self._message()
        if "index" not in message:
            raise await self._failure(message)
        return str(message["index"])

    async def unpack(
        self,
        order: Order,
        descriptors: list[int],
        tell: Tell,
        begin: Callable[[str], None] = lambda _: None,
        sent: Callable[[], None] = lambda: None,
    ) -> Found:
        """Have the rest unpacked; `begin` hears of each stream, `sent` when they are given."""
        line = json.dumps(asdict(order)).encode() + b"\n"
        await in_thread(_send, self._control, line, descriptors)
        sent()
        while (message := await self._message()).keys() & {"bytes", "stream"}:
            if "stream" in message:
                begin(message["stream"])
            else:
                tell(message["bytes"])
        if "done" not in message:
            raise await self._failure(message)
        await self._feeding.finish()
        for process in self._processes:
            await process.wait()
        if len(self._processes) > 1 and self._processes[0].returncode not in _GOOD:
            raise await self._failure({"error": "", "kind": "archive"})
        return Found(**message["done"])

    async def _message(self) -> dict[str, Any]:
        output = self._processes[-1].stdout
        assert output is not None
        line = await output.readline()
        found: dict[str, Any] = json.loads(line) if line else {}
        return found

    async def _failure(self, message: dict[str, Any]) -> Failed:
        """Return the error to raise: the earliest cause that is known."""
        if (lost := self._feeding.failure()) is not None:
            return Failed(f"The backup ends early: {lost}")
        if not message:
            await self._processes[-1].wait()
            text = await self._complaints[-1]
            lines = text.decode("utf-8", "replace").strip().splitlines()
            return Failed(f"The program that unpacks backups ended early: {(lines or ['?'])[-1]}")
        if message["kind"] == "host":
            return programs.failure("unpack the backup", str(message["error"]))
        reason = await self._decompression() or str(message["error"])
        return Failed(f"Invalid backup: {reason}")

    async def _decompression(self) -> str:
        """Return what the decompressor complained about, if its end is the cause."""
        if len(self._processes) == 1:
            return ""
        process, complaint = self._processes[0], self._complaints[0]
        try:
            async with asyncio.timeout(0.5):
                await process.wait()
                text = await asyncio.shield(complaint)
        except TimeoutError:
            return ""  # it goes on: the archive is wrong, not its compression
        if process.returncode in _GOOD or (process.returncode or 0) < 0:
            return ""
        reason = programs.complaint(text, process.returncode).rpartition(": ")[2]
        return f"its compression is damaged or ends early: {reason}"

    async def close(self) -> None:
        self._feeding.cancel()
        await programs.end(*self._processes)
        for task in self._complaints:
            task.cancel()
        await asyncio.gather(*self._complaints, return_exceptions=True)
        await self._feeding.gone()


class _Pipes:
    """A pipe for each stream of an archive; its ends are closed with the block."""

    def __init__(self, names: list[str]) -> None:
        self.reading: dict[str, int] = {}
        self.writing: dict[str, int] = {}
        for name in names:
            self.reading[name], self.writing[name] = programs.wide_pipe()

    def sent(self) -> None:
        """Close the ends that the unpacking program has now."""
        for descriptor in self.writing.values():
            os.close(descriptor)
        self.writing.clear()

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.sent()
        for descriptor in self.reading.values():
            os.close(descriptor)
        self.reading.clear()


class _Streams:
    """Those who take the streams of an archive, one after the other."""

    def __init__(self, receive: Receive, pipes: _Pipes) -> None:
        self._receive = receive
        self._pipes = pipes
        self._last: asyncio.Task[None] | None = None

    def begin(self, name: str) -> None:
        """A stream begins: it is taken when the one before has been."""
        self._last = asyncio.create_task(self._take(name, self._last))

    async def _take(self, name: str, before: asyncio.Task[None] | None) -> None:
        try:
            if before is not None:
                await before
            await self._receive(name, self._pipes.reading[name])
        finally:
            # Whoever still writes gets a broken pipe, and does not wait for a reader.
            os.close(self._pipes.reading.pop(name))

    async def finish(self) -> None:
        """Wait for the last one. Raises what taking it raised."""
        if self._last is not None:
            await self._last

    async def cancel(self) -> None:
        """Give up."""
        if self._last is not None:
            self._last.cancel()
            await asyncio.gather(self._last, return_exceptions=True)


class Feeding:
    """Writes what comes to the first program's standard input."""

    def __init__(self, process: Process, head: bytes, rest: Chunks) -> None:
        self._task = asyncio.create_task(_feed(process, head, rest))

    async def finish(self) -> None:
        """Wait for the end of what comes. Raises Failed when it broke off."""
        await asyncio.wait([self._task])
        if (lost := self.failure()) is not None:
            raise Failed(f"The backup ends early: {lost}")

    def failure(self) -> BaseException | None:
        """Return what ended the feeding early, None if nothing has."""
        if not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    def cancel(self) -> None:
        """Stop reading."""
        self._task.cancel()

    async def gone(self) -> None:
        """Wait until nobody reads."""
        await asyncio.gather(self._task, return_exceptions=True)


async def _feed(process: Process, head: bytes, rest: Chunks) -> None:
    """Pass everything on. A program that has had enough ends that, and says why itself."""
    assert process.stdin is not None
    try:
        process.stdin.write(head)
        async for chunk in rest:
            process.stdin.write(chunk)
            await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()
    except ConnectionError:
        return
    finally:
        process.stdin.close()


@asynccontextmanager
async def _started(compression: Compression, head: bytes, rest: Chunks) -> AsyncIterator[_Work]:
    ours, theirs = socket.socketpair()
    processes: list[Process] = []
    async with AsyncExitStack() as undo:
        undo.callback(ours.close)
        undo.push_async_callback(_end_all, processes)
        command = (*programs.ours("lxpy.backups.unpack"), str(theirs.fileno()))
        options: dict[str, Any] = {"stdout": PIPE, "pass_fds": (theirs.fileno(),)}
        with theirs:
            if compression is NONE:
                processes.append(await programs.start(command, stdin=PIPE, **options))
            else:
                reading, writing = programs.wide_pipe()
                try:
                    processes.append(
                        await programs.start(compression.decompress, stdin=PIPE, stdout=writing)
                    )
                    processes.append(await programs.start(command, stdin=reading, **options))
                finally:
                    os.close(reading)
                    os.close(writing)
        work = _Work(processes, ours, Feeding(processes[0], head, rest))
        undo.push_async_callback(work.close)
        yield work


def _send(control: socket.socket, line: bytes, descriptors: list[int]) -> None:
    try:
        socket.send_fds(control, [line[:1]], descriptors)
        control.sendall(line[1:])
    except (BrokenPipeError, ConnectionResetError):
        return  # it has ended, and what it said tells why


async def _end_all(processes: list[Process]) -> None:
    await programs.end(*processes)


async def _read_stderr(process: Process) -> bytes:
    assert process.stderr is not None
    return await process.stderr.read()
