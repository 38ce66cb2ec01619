"""Memory of instances on disk: dumped when they stop with their state, or with a snapshot.

    LXPY_DIR/states/INSTANCE/stop/         of an instance that was stopped with its state
    LXPY_DIR/states/INSTANCE/@SNAPSHOT/    of a snapshot

A directory is whole when it has a manifest. What is in memory is as secret as what is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lxpy.errors import BadRequest, LxpyError, NotSupported
from lxpy.instances import rawlxc
from lxpy.instances.devices import disk, unix
from lxpy.instances.devices.nic import NicPlan
from lxpy.instances.model import Instance
from lxpy.instances.syscalls import intercepted
from lxpy.runtime import criu, predump
from lxpy.runtime.checkpoint import Dump, Way, dismiss, without_hook
from lxpy.runtime.container import Runtime
from lxpy.services.directories import Directories
from lxpy.services.instances.logs import START
from lxpy.services.instances.store import Key
from lxpy.services.memory import ahead
from lxpy.services.memory.criu import Criu
from lxpy.services.memory.tracking import Tracking
from lxpy.threads import in_thread

_STOP = "stop"


@dataclass(frozen=True, slots=True)
class Part:
    """Memory saved ahead: its token, that of what it is built on, what was known already."""

    token: str
    beyond: str
    known_percent: int


class Checkpoints:
    """The dumps of all instances."""

    def __init__(self, directories: Directories, runtime: Runtime, program: Criu) -> None:
        #: keeps away from an instance, for the length of a block, what no dump can hold
        self.alone: Callable[[Key], AbstractAsyncContextManager[None]] = lambda _: nullcontext()
        self._root = directories.states
        self._logs = directories.logs
        self._runtime = runtime
        self._program = program
        self._tracking = Tracking()
        #: the nics of an instance that cannot be saved, with their nictypes
        self.unsaved: Callable[[Instance], Mapping[str, str]] = _none

    async def start(self) -> None:
        """Let go of what a former daemon was dumping; remove what it did not finish."""
        await in_thread(self._sweep)

    def _sweep(self) -> None:
        for directory in self._root.glob("*/*"):
            if not directory.is_dir() or (_is_whole(directory) and not _is_hidden(directory)):
                continue
            dismiss(directory)
            # One of a stop counts if its processes have ended, see `settle`.
            if not (_is_whole(directory) and directory.name.startswith(f".{_STOP}-")):
                shutil.rmtree(directory, ignore_errors=True)

    async def settle(self, unique: str, *, is_running: bool) -> None:
        """Have a dump count whose processes have ended, the daemon with them; no other one.

        Call it for each instance after `start`.
        """
        await in_thread(self._settle, unique, is_running)

    def _settle(self, unique: str, is_running: bool) -> None:
        for directory in (self._root / unique).glob(f".{_STOP}-*"):
            if is_running or not _is_whole(directory):
                shutil.rmtree(directory, ignore_errors=True)
            else:
                without_hook(directory)
                _put(directory, self.place(unique))
        if is_running:
            shutil.rmtree(self.place(unique), ignore_errors=True)

    def place(self, unique: str, snapshot: str = "") -> Path:
        """Return the directory of an instance's state, or of a snapshot's."""
        return self._root / unique / (f"@{snapshot}" if snapshot else _STOP)

    async def exists(self, unique: str, snapshot: str = "") -> bool:
        """Tell whether there is such a dump, whole."""
        return await in_thread((self.place(unique, snapshot) / criu.MANIFEST).exists)

    @asynccontextmanager
    async def dumped(
        self, instance: Instance, place: Path, *, keeps_running: bool
    ) -> AsyncIterator[Dump]:
        """Dump a running instance to a `place`; during the block its processes stand still.

        When the block raises they go on, and nothing is left. Raises Failed, NotSupported,
        BadRequest.
        """
        if calls := intercepted(instance.expanded_config):
            raise NotSupported(
                f"The memory of {instance.name} cannot be saved: calls of {', '.join(calls)} are "
                "carried out for it (security.syscalls.intercept.*)"
            )
        for reason, remedy in obstacles(instance, self.unsaved(instance)):
            raise NotSupported(
                f'The memory of "{instance.name}" cannot be saved: {reason}; {remedy}'
            )
        program, tracks = await self._program.find(), await self._program.tracks()
        held = self._runtime.held(instance.unique_name)
        base = await in_thread(self._tracking.take, held) if held and tracks else None
        new = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
        targets = frozenset(
            disk.normal(device["path"])
            for device in instance.expanded_devices.values()
            if device.get("type") == "disk" and device.get("path", "/") != "/"
        )
        targets |= {each.target for each in rawlxc.parse(_raw(instance)).disks}
        log = self._logs(instance.unique_name) / "criu.log"
        way = Way(program, log, keeps_running, tracks, base)
        dump = self._runtime.dump(instance.unique_name, new, targets, way)
        try:
            async with self.alone((instance.project, instance.name)), dump:
                yield dump
            await in_thread(_put, new, place)
        except LxpyError as error:
            await in_thread(_note, log.with_name(START), f"{error}; CRIU's own words: {log.name}")
            raise
        finally:
            await in_thread(ahead.drop, self._root / instance.unique_name)
        if held and tracks and keeps_running:
            await in_thread(self._tracking.note, held, place)

    async def save_ahead(self, instance: Instance) -> Part:
        """Save the memory of a running instance ahead of a dump. Raises NotSupported, Failed.

        If that was done before, only what has changed since.
        """
        if not await self._program.tracks():
            raise NotSupported(
                "Memory cannot be sent ahead: the kernel of this host does not track its changes"
            )
        unique = instance.unique_name
        held = self._runtime.held(unique)
        if held is None:
            raise BadRequest("The instance isn't running: its memory cannot be sent ahead")
        states = self._root / unique
        last = ahead.place(states)
        base = last if await in_thread(self._tracking.take, held) == last else None
        log = self._logs(unique) / "criu.log"
        way = Way(await self._program.find(), log, keeps_running=True, tracks=True, base=base)
        new = states / f".{ahead.NAME}-{secrets.token_hex(4)}"
        known_percent = await predump.save(new, way, name=unique, pid=held.pid)
        beyond = await in_thread(ahead.token, last) if base else ""
        token = await in_thread(ahead.put, new, states)
        await in_thread(self._tracking.note, held, last)
        return Part(token, beyond, known_percent)

    def states(self, unique: str) -> Path:
        """Return the directory of all that is saved of an instance's memory."""
        return self._root / unique

    async def prune(self, _: datetime) -> None:
        """Remove what was sent ahead of instances that have not followed."""
        await in_thread(ahead.prune, self._root)

    async def remove(self, unique: str, snapshot: str = "") -> None:
        """Remove a dump; one that does not exist is none."""
        await in_thread(shutil.rmtree, self.place(unique, snapshot), True)
        if not snapshot:
            await in_thread(ahead.drop, self._root / unique)

    async def rename_snapshot(self, unique: str, old: str, new: str) -> None:
        """Follow a snapshot to its new name; one without a dump has nothing to follow."""
        if await self.exists(unique, old):
            await in_thread(_put, self.place(unique, old), self.place(unique, new))

    async def plan(
        self, instance: Instance, nics: Sequence[NicPlan], snapshot: str
    ) -> tuple[tuple[NicPlan, ...], Mapping[str, Any]]:
        """Return the nics as a restore makes them, and what the runtime restores from.

        Raises BadRequest when there is no dump, NotSupported without a usable CRIU.
        """
        unique = instance.unique_name
        if not await self.exists(unique, snapshot):
            raise BadRequest("The instance has no existing state to restore")
        made = tuple(
            replace(each, host_name=each.host_name or f"veth{secrets.token_hex(4)}", made=True)
            for each in nics
        )
        dump = {
            "program": await self._program.find(),
            "images": str(self.place(unique, snapshot)),
            "veths": [[each.name, each.host_name] for each in made],
        }
        return made, dump


def _raw(instance: Instance) -> str:
    return instance.expanded_config.get("raw.lxc", "")


def obstacles(instance: Instance, nics: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return why the devices of an instance keep it from being saved, each with its remedy.

    `nics` are those that no dump can save, with their nictypes.
    """
    found = [
        (
            f'nic "{name}" is of type {kind}, which is tied to an interface of this host',
            "remove that device first, or use a nic of another type",
        )
        for name, kind in nics.items()
    ]
    found += [
        (
            f'what is mounted below disk "{name}" comes and goes with the host '
            f"(propagation={given['propagation']})",
            "remove that device first, or unset its propagation",
        )
        for name, given in instance.expanded_devices.items()
        if disk.spreads(given)
    ]
    found += [
        (f'the node of device "{name}" is outside of /dev', "give it a path below /dev")
        for name, given in instance.expanded_devices.items()
        if unix.is_elsewhere(given)
    ]
    return found


def _none(_: Instance) -> Mapping[str, str]:
    """Say that everything can be saved."""
    return {}


def _is_hidden(directory: Path) -> bool:
    return directory.name.startswith(".")


def _is_whole(directory: Path) -> bool:
    return (directory / criu.MANIFEST).exists()


def _note(log: Path, text: str) -> None:
    """Add a line to the log that `lxpy info --show-log` shows; a full disk is no matter here."""
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8", errors="replace") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}\n")


def _put(new: Path, place: Path) -> None:
    """Give a finished dump its name; it takes the place of an older one."""
    shutil.rmtree(place, ignore_errors=True)
    os.rename(new, place)
