"""Snapshots of instances, mounted read-only on directories of the host for its root to look at.

A mount lasts until it is taken away or the host goes down, and survives this daemon: a file says
what is mounted where. While it lasts its snapshot is in use.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import structlog

from lxpy.api.snapshotmounts import SnapshotMount
from lxpy.errors import BadRequest, Conflict, Failed, LxpyError, NotFound
from lxpy.instances.model import Instance
from lxpy.kernel import mounts
from lxpy.services.instances.starting import volume_of
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.storage.pools import Pools
from lxpy.storage import view
from lxpy.threads import in_thread, resource

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UMOUNT_NOFOLLOW = 8
_LOCK = "snapshot-mounts"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Record:
    """What the file keeps of one mount."""

    project: str
    instance: str
    snapshot: str
    directory: str
    boot: str

    @property
    def holder(self) -> str:
        return f"mount{self.directory}"

    def shown(self) -> SnapshotMount:
        return SnapshotMount(
            project=self.project, instance=self.instance, snapshot=self.snapshot,
            directory=self.directory,
        )  # fmt: skip


class SnapshotMounts:
    """Mounts snapshots; `file` keeps what is mounted."""

    def __init__(self, file: Path, store: InstanceStore, locks: Locks, pools: Pools) -> None:
        self._file = file
        self._store = store
        self._locks = locks
        self._pools = pools
        self._records: dict[str, _Record] = {}

    def listed(self) -> list[SnapshotMount]:
        """Return what is mounted, by directory."""
        return [self._records[each].shown() for each in sorted(self._records)]

    async def mount(self, project: str, name: str, snapshot: str, directory: str) -> SnapshotMount:
        """Mount a snapshot on an empty directory.

        Raises NotFound, BadRequest for a directory that does not fit, Failed.
        """
        async with self._locks.hold("instance", project, name), self._locks.hold(_LOCK):
            instance = self._store.get(project, name)
            if self._store.snapshots.find(instance.id, snapshot) is None:
                raise NotFound(f'Snapshot "{snapshot}" of instance "{name}" not found')
            place = await in_thread(_checked, directory)
            record = _Record(project, name, snapshot, place, await in_thread(_boot))
            self._records[place] = record
            try:
                await self._hold(record, instance)
                await self._save()
                await self._attach(record, instance)
            except BaseException:
                await self._forget(record)
                raise
            return record.shown()

    async def unmount(self, directory: str) -> None:
        """Take a mount away. Raises NotFound, Conflict while somebody uses it."""
        async with self._locks.hold(_LOCK):
            record = self._records.get(os.path.normpath(directory))
            if record is None:
                raise NotFound(f'No snapshot is mounted on "{directory}"')
            try:
                await in_thread(mounts.unmount, record.directory, _UMOUNT_NOFOLLOW)
            except OSError as error:
                if await in_thread(os.path.ismount, record.directory):
                    raise Conflict(
                        f'"{directory}" cannot be unmounted: {os.strerror(error.errno or 0)}: end '
                        "what works in it"
                    ) from error
            await self._forget(record)

    async def adopt(self) -> None:
        """Take over what a daemon before this one has mounted; it may be gone by now."""
        for record in await in_thread(self._load):
            if record.boot != await in_thread(_boot):
                continue
            if not await in_thread(os.path.ismount, record.directory):
                continue
            self._records[record.directory] = record
            try:
                await self._hold(record, self._store.get(record.project, record.instance))
            except (LxpyError, OSError) as error:
                _log.warning("snapshot mounted, not held", at=record.directory, error=str(error))
        await self._save()

    async def close(self) -> None:
        """Take all of them away, those in use as soon as they are not: nothing else stays."""
        async with self._locks.hold(_LOCK):
            for record in list(self._records.values()):
                try:
                    flags = _UMOUNT_NOFOLLOW | mounts.MNT_DETACH
                    await in_thread(mounts.unmount, record.directory, flags)
                except OSError as error:
                    _log.warning("snapshot stays mounted", at=record.directory, error=str(error))
                await self._forget(record)

    async def _hold(self, record: _Record, instance: Instance) -> None:
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        volume = volume_of(instance).at(record.snapshot)
        await self._pools.storage.hold(pool, volume, record.holder)

    async def _attach(self, record: _Record, instance: Instance) -> None:
        pool = await self._pools.pool(instance.root_device[1]["pool"])
        rootfs = await self._pools.storage.rootfs(pool, volume_of(instance).at(record.snapshot))
        async with resource(partial(view.open_tree, rootfs), os.close) as tree:
            try:
                await in_thread(_attach, tree, record.directory)
            except OSError as error:
                raise Failed(f'Cannot mount on "{record.directory}": {error}') from error

    async def _forget(self, record: _Record) -> None:
        self._records.pop(record.directory, None)
        await self._pools.storage.release(record.holder)
        await self._save()

    async def _save(self) -> None:
        await in_thread(_write, self._file, list(self._records.values()))

    def _load(self) -> list[_Record]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=list[_Record])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("mounted snapshots not known", file=str(self._file), error=str(error))
            return []


def _checked(directory: str) -> str:
    """Return the path of an empty directory without links. Raises BadRequest."""
    if not directory.startswith("/") or "\0" in directory:
        raise BadRequest(f'Invalid directory "{directory}": write an absolute path')
    place = os.path.realpath(directory)
    try:
        if os.path.ismount(place):
            raise BadRequest(f'Something is mounted on "{directory}" already')
        if os.listdir(place):
            raise BadRequest(f'Directory "{directory}" is not empty: choose another')
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise BadRequest(f'Cannot mount on "{directory}": {reason}: make it first') from error
    return place


def _attach(tree: int, directory: str) -> None:
    """Attach a tree where nothing in it can do harm: no devices, no setuid, no writing."""
    mounts.set_attributes(tree, directory, mounts.RDONLY | mounts.NODEV | mounts.NOSUID)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mounts.attach(tree, directory, dir_fd=place)
    finally:
        os.close(place)


def _boot() -> str:
    return _BOOT_ID.read_text().strip()


def _write(file: Path, records: list[_Record]) -> None:
    """Replace the file; without records there is none."""
    if not records:
        file.unlink(missing_ok=True)
        return
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(msgspec.json.encode(records))
    new.rename(file)
