"""Memory on its way: the state of a stopped instance is sent to another server, or taken from one.

It travels as a tar archive of CRIU's files, beside the disk, which goes as an export.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import stat
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lxpy.backups import programs
from lxpy.errors import BadRequest, Failed
from lxpy.instances import idmaps
from lxpy.instances.model import Instance
from lxpy.runtime import chains, criu, twin
from lxpy.services.instances.power import Power
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.memory import ahead
from lxpy.services.memory.checkpoints import Checkpoints
from lxpy.threads import in_thread

#: headers of an archive of memory: its token, that of what it is built on, and how many percent of
#: its pages that had already
TOKEN, BEYOND, KNOWN = "X-LXPY-Token", "X-LXPY-Beyond", "X-LXPY-Known"
_BLOCK = 1 << 18
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")


@dataclass(frozen=True, slots=True)
class Sending:
    """An archive of memory, and the headers it goes with."""

    chunks: AsyncIterator[bytes]
    headers: Mapping[str, str]


class Memory:
    """The saved states of instances, as streams."""

    def __init__(
        self, store: InstanceStore, locks: Locks, checkpoints: Checkpoints, power: Power
    ) -> None:
        self._store = store
        self._locks = locks
        self._checkpoints = checkpoints
        self._power = power

    @asynccontextmanager
    async def sent(self, project: str, name: str, beyond: str) -> AsyncIterator[Sending]:
        """Give the archive of an instance's state, to be read while the block lasts.

        Pages of what was sent ahead are left out if the state is built on the part with the token
        `beyond`. Raises NotFound, BadRequest when there is no state.
        """
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            if not instance.stateful:
                raise BadRequest(f'Instance "{name}" has no state: stop it with its state first')
            place = self._checkpoints.place(instance.unique_name)
            known = await in_thread(ahead.token, place / chains.PARENT)
            beyond = beyond if beyond == known else ""
            async with _archive(place, whole=not beyond) as chunks:
                yield Sending(chunks, {BEYOND: beyond})

    @asynccontextmanager
    async def sent_ahead(self, project: str, name: str) -> AsyncIterator[Sending]:
        """Save the memory of a running instance, and give it as an archive; it runs on.

        Raises NotFound, NotSupported, BadRequest, Failed.
        """
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            part = await self._checkpoints.save_ahead(instance)
            place = ahead.place(self._checkpoints.states(instance.unique_name))
            headers = {TOKEN: part.token, BEYOND: part.beyond, KNOWN: str(part.known_percent)}
            async with _archive(place, whole=False) as chunks:
                yield Sending(chunks, headers)

    async def take(
        self, project: str, name: str, chunks: AsyncIterable[bytes], *, is_ahead: bool, beyond: str
    ) -> None:
        """Give a stopped instance the state that comes as an archive: it starts from that.

        If it `is_ahead`, the archive has pages that the state will build on; so does what comes
        `beyond` such a part. Raises NotFound, BadRequest, Failed; nothing of it is left then.
        """
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            if self._power.is_running(instance) or instance.stateful:
                raise BadRequest(f'Instance "{name}" runs or has a state: it can be given none')
            await self.arrive(instance, chunks, is_ahead=is_ahead, beyond=beyond)

    async def arrive(
        self,
        instance: Instance,
        chunks: AsyncIterable[bytes],
        *,
        is_ahead: bool = False,
        beyond: str = "",
    ) -> None:
        """Do what `take` does, with the lock of the instance held. Raises BadRequest, Failed."""
        states = self._checkpoints.states(instance.unique_name)
        new = states / f".arriving-{secrets.token_hex(4)}"
        try:
            await in_thread(_make, new)
            await _unpacked(new, chunks)
            if is_ahead:
                await in_thread(_receive, new, states, beyond)
                return
            await in_thread(_settle, new, instance)
            await in_thread(ahead.build, new, states, beyond)
            await in_thread(_put, new, self._checkpoints.place(instance.unique_name))
            await in_thread(ahead.drop, states)
        except BaseException:
            await in_thread(_remove, new)
            raise
        await self._store.save(replace(instance, stateful=True))

    async def forget_ahead(self, project: str, name: str) -> None:
        """Remove what was sent ahead. Raises NotFound."""
        async with self._locks.hold("instance", project, name):
            instance = self._store.get(project, name)
            await in_thread(ahead.drop, self._checkpoints.states(instance.unique_name))


@asynccontextmanager
async def _archive(place: Path, *, whole: bool) -> AsyncIterator[AsyncIterator[bytes]]:
    without = () if whole else (f"--exclude=./{chains.PARENT}",)
    command = (
        "tar",
        "--create",
        "--format=posix",
        "--sparse",
        f"--directory={place}",
        *without,
        ".",
    )
    process = await programs.start(command, stdin=DEVNULL, stdout=PIPE)
    try:
        yield _output(process)
    finally:
        await programs.end(process)


def _receive(new: Path, states: Path, beyond: str) -> None:
    _check(new)
    ahead.keep_pages(new)
    ahead.receive(new, states, beyond)


def _make(new: Path) -> None:
    new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new.mkdir(mode=0o711)


def _put(new: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    os.rename(new, place)


def _remove(new: Path) -> None:
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.parent.rmdir()
    except OSError:
        pass  # there are others


async def _output(process: asyncio.subprocess.Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None and process.stderr is not None
    while data := await process.stdout.read(_BLOCK):
        yield data
    text = await process.stderr.read()
    if await process.wait() != 0:
        raise programs.failure("send the state", programs.complaint(text, process.returncode))


async def _unpacked(directory: Path, chunks: AsyncIterable[bytes]) -> None:
    command = ("tar", "--extract", "--no-same-owner", f"--directory={directory}")
    process = await programs.start(command, stdin=PIPE, stdout=DEVNULL)
    assert process.stdin is not None and process.stderr is not None
    try:
        try:
            async for chunk in chunks:
                process.stdin.write(chunk)
                await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it tells why
        process.stdin.close()
        text = await process.stderr.read()
        if await process.wait() != 0:
            raise programs.failure("take the state", programs.complaint(text, process.returncode))
    finally:
        await programs.end(process)


def _check(directory: Path) -> None:
    """Raise BadRequest for what is not of files, but for the pages that a dump is built on."""
    for entry in directory.iterdir():
        mode = entry.lstat().st_mode
        if entry.name == chains.PARENT and stat.S_ISDIR(mode):
            _check(entry)
            entry.chmod(chains.PARENT_MODE)
            ahead.keep_pages(entry)
        elif not _NAME.fullmatch(entry.name) or not stat.S_ISREG(mode):
            raise BadRequest(f'The archive is no state of an instance: it has "{entry.name[:80]}"')


def _settle(directory: Path, instance: Instance) -> None:
    """Make what has come the state of this instance. Raises BadRequest, Failed."""
    _check(directory)
    if not (directory / criu.MANIFEST).exists():
        raise BadRequest("The archive is no state of an instance, or not all of it has come")
    try:
        mapped = twin.ids(str(directory))
        own = idmaps.from_json(instance.config.get("volatile.idmap.next", "[]"))
        size = sum(each.size for each in own if each.kind == "u")
        if mapped is None or (not own and instance.privileged):
            shift = 0
        elif mapped[1] != size:
            raise BadRequest(
                f'The state is of an instance with {mapped[1]} ids, "{instance.name}" has {size}'
            )
        else:
            shift = int(instance.config.get("volatile.idmap.base", "0")) - mapped[0]
        twin.adapt(str(directory), name=instance.unique_name, hostname="", shift=shift, hwaddrs={})
    except (OSError, ValueError) as error:
        raise Failed(f"The state cannot be read: {error}") from error
