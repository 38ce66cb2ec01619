"""Files in instances, running or not, and in their snapshots.

Source: LXD docs, "Instances: files". A running instance is entered through its PID 1's root, a
stopped one and a snapshot through a mount of their own. Of a stopped one the lock is held
meanwhile, so that nothing else mounts it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from lxpy.errors import BadRequest, Failed, NotFound, Unavailable
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.model import Instance
from lxpy.kernel.processes import start_time
from lxpy.runtime.container import Held, Runtime
from lxpy.runtime.guestfiles import Entry, GuestFiles, Wish
from lxpy.runtime.owners import Owners
from lxpy.runtime.upload import Upload
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.storage.pools import Pools
from lxpy.storage import Volume, view
from lxpy.threads import in_thread, resource

__all__ = ["STALL_S", "Entry", "Files", "Found", "Target", "Wish"]

_BLOCK = 1 << 20
#: how long a client may send nothing, or take nothing: an instance's start may wait for it
STALL_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where a file is: an instance or one of its snapshots, and the path there."""

    project: str
    instance: str
    path: str
    snapshot: str = ""

    @property
    def url(self) -> str:
        """The URL of the instance or snapshot."""
        tail = f"/snapshots/{self.snapshot}" if self.snapshot else ""
        return f"/1.0/instances/{self.instance}{tail}"


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a path: of a directory its names, of a link its target, of a file the content.

    `blocks` yields the content, and is to be read while the block that gave this lasts.
    """

    entry: Entry
    names: tuple[str, ...] = ()
    target: str = ""
    descriptor: int = -1

    def close(self) -> None:
        """Close the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield exactly `entry.size` bytes. Raises Failed when the file has become shorter."""
        offset = 0
        while offset < self.entry.size:
            count = min(_BLOCK, self.entry.size - offset)
            data = await in_thread(os.pread, self.descriptor, count, offset)
            if not data:
                raise Failed("The file became shorter while it was read")
            offset += len(data)
            yield data


class Files:
    """Reads, writes and removes files of instances."""

    def __init__(
        self,
        store: InstanceStore,
        locks: Locks,
        pools: Pools,
        runtime: Runtime,
        lifecycle: Lifecycle,
    ) -> None:
        self._store = store
        self._locks = locks
        self._pools = pools
        self._runtime = runtime
        self._lifecycle = lifecycle
        self._inside: dict[str, set[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def found(self, target: Target, *, content: bool = True) -> AsyncIterator[Found]:
        """Give what is at a path; without `content`, its attributes alone.

        Raises NotFound, BadRequest, Failed; within the block BadRequest when the instance stops.
        """
        async with (
            self.opened(target) as files,
            resource(partial(_find, files, target.path, content=content), Found.close) as found,
        ):
            if content:
                self.tell("instance-file-retrieved", target)
            yield found

    async def write(
        self, target: Target, wish: Wish, chunks: AsyncIterable[bytes], *, append: bool = False
    ) -> None:
        """Write a file, whole or to its end. Raises as `found`."""
        async with self.opened(target, writable=True) as files:
            if append:
                await _append(files, target.path, chunks)
            else:
                await _upload(files, target.path, wish, chunks)
        self.tell("instance-file-pushed", target)

    async def make_directory(self, target: Target, wish: Wish) -> None:
        """Make a directory, unless it is there. Raises as `found`."""
        async with self.opened(target, writable=True) as files:
            await in_thread(files.make_directory, target.path, wish)
        self.tell("instance-file-pushed", target)

    async def make_link(self, target: Target, to: str, wish: Wish) -> None:
        """Make a symbolic link, unless the same is there. Raises as `found`, and Conflict."""
        async with self.opened(target, writable=True) as files:
            await in_thread(files.make_link, target.path, to, wish)
        self.tell("instance-file-pushed", target)

    async def remove(self, target: Target) -> None:
        """Remove a file or an empty directory. Raises as `found`."""
        async with self.opened(target, writable=True) as files:
            await in_thread(files.remove, target.path)
        self.tell("instance-file-deleted", target)

    async def left(self, instance: Instance) -> None:
        """Wait until nobody is in the files of an instance that has stopped.

        Whoever is still there has been told to go; until then they could not be mounted anew.
        """
        if inside := self._inside.get(instance.unique_name):
            await asyncio.wait(inside)

    # Ways in

    @asynccontextmanager
    async def opened(self, target: Target, *, writable: bool = False) -> AsyncIterator[GuestFiles]:
        """Open the files of an instance or snapshot for the length of a block.

        Raises NotFound, Unavailable; BadRequest, in the block, when the instance stops.
        """
        instance = self._store.get(target.project, target.instance)
        if target.snapshot:
            volume = volume_of(instance).at(target.snapshot)
            self._check_snapshot(instance, target.snapshot)
            async with self._mounted(instance, volume, writable=False) as files:
                yield files
            return
        held = self._runtime.held(instance.unique_name)
        if held is None:
            async with self._locks.hold("instance", target.project, target.instance):
                instance = self._store.get(target.project, target.instance)
                held = self._runtime.held(instance.unique_name)
                if held is None:
                    volume = volume_of(instance)
                    async with self._mounted(instance, volume, writable=writable) as files:
                        yield files
                    return
        async with self._entered(instance, held) as files:
            yield files

    def _check_snapshot(self, instance: Instance, snapshot: str) -> None:
        if self._store.snapshots.find(instance.id, snapshot) is None:
            raise NotFound(
                f'Failed to fetch snapshot "{snapshot}" of instance "{instance.name}" in project '
                f'"{instance.project}": InstanceSnapshot not found'
            )

    @asynccontextmanager
    async def _mounted(
        self, instance: Instance, volume: Volume, *, writable: bool
    ) -> AsyncIterator[GuestFiles]:
        """Mount the files of what does not run: owners are the guest's own."""
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        async with (
            self._pools.storage.held(pool, volume) as rootfs,
            resource(partial(view.open_tree, rootfs, writable=writable), os.close) as root,
        ):
            yield GuestFiles(root)

    @asynccontextmanager
    async def _entered(self, instance: Instance, held: Held) -> AsyncIterator[GuestFiles]:
        """Enter a running instance; its end is the end of the block, too."""
        name = instance.unique_name
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inside.setdefault(name, set()).add(done)
        try:
            enter = partial(_enter, held.pid, held.start_time)
            async with resource(enter, _leave) as files, self._while_running(name):
                yield files
        except ProcessLookupError as error:
            raise _stopped(instance.name) from error
        finally:
            done.set_result(None)
            self._inside[name].discard(done)
            if not self._inside[name]:
                del self._inside[name]

    @asynccontextmanager
    async def _while_running(self, name: str) -> AsyncIterator[None]:
        """Raise ProcessLookupError in the block as soon as the instance has ended."""
        limit = asyncio.timeout(None)
        watch = asyncio.create_task(self._runtime.wait(name, None))

        def ended(task: asyncio.Task[bool]) -> None:
            if not task.cancelled():
                limit.reschedule(asyncio.get_running_loop().time())

        try:
            async with limit:
                watch.add_done_callback(ended)
                try:
                    yield
                finally:
                    watch.remove_done_callback(ended)
        except TimeoutError as error:
            if limit.expired():
                raise ProcessLookupError(name) from error
            raise
        finally:
            watch.cancel()

    def tell(self, action: str, target: Target) -> None:
        """Tell listeners what was done with a path."""
        self._lifecycle.emit(action, target.url, target.project, {"path": target.path})


def _stopped(name: str) -> BadRequest:
    return BadRequest(f'Instance "{name}" stopped meanwhile: try again')


def _enter(pid: int, started: int) -> GuestFiles:
    """Open the root of a running guest.

    Raises ProcessLookupError when the process has ended.
    """
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    try:
        owners = Owners.of_process(pid)
        if start_time(pid) == started:
            return GuestFiles(root, owners)
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(root)
        raise
    os.close(root)
    raise ProcessLookupError(pid)


def _leave(files: GuestFiles) -> None:
    os.close(files.root)


def _find(files: GuestFiles, path: str, *, content: bool) -> Found:
    entry = files.look(path)
    if not entry.type:
        raise BadRequest(f'"{path}" is neither a file nor a directory nor a symbolic link')
    if not content:
        return Found(entry)
    if entry.type == "directory":
        return Found(entry, names=tuple(files.names(path)))
    if entry.type == "symlink":
        target = files.link(path)
        return Found(replace(entry, size=len(os.fsencode(target))), target=target)
    entry, descriptor = files.read(path)
    return Found(entry, descriptor=descriptor)


async def _upload(files: GuestFiles, path: str, wish: Wish, chunks: AsyncIterable[bytes]) -> None:
    async with resource(partial(Upload, files, path, wish), Upload.close) as upload:
        await _pour(chunks, upload.write)
        await in_thread(upload.commit)


async def _append(files: GuestFiles, path: str, chunks: AsyncIterable[bytes]) -> None:
    async with resource(partial(files.append, path), os.close) as descriptor:
        await _pour(chunks, lambda data: files.write_to(descriptor, data, path))


async def _pour(chunks: AsyncIterable[bytes], write: Callable[[bytearray], None]) -> None:
    """Write what a client sends, in large pieces. Raises Unavailable when it falls silent."""
    buffer = bytearray()
    iterator = aiter(chunks)
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                chunk = await anext(iterator, None)
        except TimeoutError as error:
            raise Unavailable(f"Nothing was sent for {STALL_S:g} s: upload it again") from error
        if chunk is None:
            break
        buffer += chunk
        if len(buffer) >= _BLOCK:
            await in_thread(write, buffer)
            buffer = bytearray()
    if buffer:
        await in_thread(write, buffer)
