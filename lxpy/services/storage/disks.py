"""Custom volumes in use by instances: held, and shown as a directory or as a device.

A volume of files is bound into each instance that shows it, with that instance's ids mapped: on the
disk there are always the ids that instances see, so that any number of them share it whatever ids
each has on the host ("security.shifted" makes no difference, "security.unmapped" turns it off).
A block volume that is a file becomes a loop device for as long as running instances have it: one to
write to that all of them share, and one that is read only.
Source: LXD docs, "Storage volumes", "Disk device"; mount_setattr(2), loop(4).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from lxpy.db import volumes as queries
from lxpy.db.engine import Database
from lxpy.db.rows import VolumeRow
from lxpy.errors import BadRequest, Failed, LxpyError, NotFound, NotSupported
from lxpy.instances.devices import disk
from lxpy.instances.devices.disk import VolumeSource
from lxpy.instances.devices.unix import HostNode
from lxpy.programs import run
from lxpy.services.locks import Locks
from lxpy.services.projects.scopes import Feature, Scopes
from lxpy.services.storage.blockmounts import BlockMounts, is_block
from lxpy.services.storage.places import Place, custom, place_of, stored
from lxpy.services.storage.pools import Pools
from lxpy.storage import ContentType, Plain, Pool, Volume, loops
from lxpy.threads import in_thread
from lxpy.units import is_true

#: how names of instances among the holders of a volume begin
HOLDER = "instance/"
_ISO_OPTIONS = "loop,ro,nosuid,nodev,mode=0555,dmode=0555"

Options = Mapping[str, str]
_Key = tuple[str, ...]

_log = structlog.get_logger()


@dataclass(slots=True)
class _Held:
    """A volume that an instance holds, and whether it writes to it as a disk."""

    pool: Pool
    volume: Volume
    writes: bool = False


class Disks:
    """Holds custom volumes for instances; `mounts` is where file systems of ISOs are mounted.

    `holder` is always the name by which a running instance holds volumes; its lock is held.
    """

    def __init__(
        self, db: Database, scopes: Scopes, pools: Pools, locks: Locks, mounts: Path
    ) -> None:
        self._db = db
        self._scopes = scopes
        self._pools = pools
        self._locks = locks
        self._mounts = mounts
        self._held: dict[str, dict[_Key, _Held]] = {}
        self._paths: dict[str, dict[str, str]] = {}
        self._blocks = BlockMounts(mounts.with_name(f"{mounts.name}-blocks"))

    async def hold(
        self, holder: str, project: str, devices: Mapping[str, Options]
    ) -> dict[str, VolumeSource]:
        """Have the volumes that devices show at hand; return where, by device.

        What does not exist is left out. Raises LxpyError: what is held by then stays so until
        `settle` or `release`.
        """
        found: dict[str, VolumeSource] = {}
        for name, given in devices.items():
            named = disk.volume(given)
            if named is None:
                source = disk.host_source(given)
                is_device = await in_thread(is_block, source) if source else False
                if is_device:
                    path = await self._blocks.hold(holder, name, source)
                    found[name] = VolumeSource(str(path), shift=False)
                continue
            place = self._place(named, project)
            async with self._locks.hold(*place.key):
                row = await self._row(place)
                if row is not None:
                    found[name] = await self._take(holder, name, given, row)
        paths = {name: each.path for name, each in found.items() if each.path}
        self._paths.setdefault(holder, {}).update(paths)
        return found

    def paths(self, holder: str) -> Mapping[str, str]:
        """Return where on the host the files lie that devices show, other than plain sources."""
        return self._paths.get(holder, {})

    def _place(self, named: tuple[str, str], project: str) -> Place:
        return custom(*named, self._scopes.owner(Feature.VOLUMES, project))

    async def settle(self, holder: str, project: str, devices: Mapping[str, Options]) -> None:
        """Let go of the volumes that none of the devices shows any more."""
        shown: dict[_Key, list[Options]] = {}
        for given in devices.values():
            if (named := disk.volume(given)) is not None:
                shown.setdefault(self._place(named, project).key, []).append(given)
        for key, held in list(self._held.get(holder, {}).items()):
            if key not in shown:
                await self._let_go(holder, key)
            elif held.writes:
                held.writes = not all(map(disk.is_readonly, shown[key]))
        await self._blocks.settle(holder, map(disk.host_source, devices.values()))
        known = self._paths.get(holder, {})
        self._paths[holder] = {name: path for name, path in known.items() if name in devices}

    async def release(self, holder: str) -> None:
        """Let go of all of them."""
        for key in list(self._held.get(holder, ())):
            await self._let_go(holder, key)
        await self._blocks.settle(holder, ())
        self._paths.pop(holder, None)

    async def check(self, project: str, devices: Mapping[str, Options]) -> None:
        """Raise when a disk shows a volume that does not exist, or not as its content can be.

        Raises Failed, InvalidConfig.
        """
        for name, given in devices.items():
            named = disk.volume(given)
            if named is None:
                continue
            row = await self._row(self._place(named, project))
            if row is not None:
                disk.check_content(name, given, row.content_type)
            elif not disk.may_be_missing(given):
                raise disk.missing_source(name, "/".join(named))

    async def flush(self, pool: Pool, volume: Volume) -> None:
        """Write out what instances have written to the devices of a block volume."""
        if volume.content is ContentType.BLOCK and self._pools.storage.holders(pool, volume):
            await in_thread(_sync, await self._pools.storage.disk(pool, volume))

    async def resized(self, pool: Pool, volume: Volume) -> None:
        """Tell the devices of a block volume that it has another size."""
        if volume.content is ContentType.BLOCK and self._pools.storage.holders(pool, volume):
            for device in await in_thread(
                loops.devices, await self._pools.storage.disk(pool, volume)
            ):
                await in_thread(loops.set_capacity, device)

    async def sweep(self) -> None:
        """Remove devices and mounts that a crash has left; running instances hold theirs by now."""
        async with self._db.read() as session:
            rows = await queries.everything(session)
        mounted = await in_thread(_mount_points) if rows else []
        for row in rows:
            try:
                await self._sweep(place_of(row), stored(row), mounted)
            except (LxpyError, OSError) as error:
                _log.warning("device of a volume stays", volume=row.name, error=str(error))
        await in_thread(_remove_empty, self._mounts)
        await self._blocks.sweep()

    async def _sweep(self, place: Place, volume: Volume, mounted: list[str]) -> None:
        pool = await self._pools.pool(place.pool)
        if self._pools.storage.holders(pool, volume):
            return
        if volume.content is ContentType.FILESYSTEM:
            directory = str(self._pools.storage.directory(pool, volume))
            if not any(f"{each}/".startswith(f"{directory}/") for each in mounted):
                return
        await self._pools.storage.hold(pool, volume, "sweep")
        try:
            await self._remove_devices(pool, volume)
        finally:
            await self._pools.storage.let_go(pool, volume, "sweep")

    async def _row(self, place: Place) -> VolumeRow | None:
        async with self._db.read() as session:
            return await queries.find(session, place.pool, place.project, place.name)

    async def _take(self, holder: str, device: str, given: Options, row: VolumeRow) -> VolumeSource:
        """Hold one volume, its lock held."""
        place, volume = place_of(row), stored(row)
        disk.check_content(device, given, row.content_type)
        pool = await self._pools.pool(place.pool)
        writes = volume.content is ContentType.BLOCK and not disk.is_readonly(given)
        if writes and not is_true(row.config.get("security.shared")):
            self._check_alone(place, holder)
        await self._pools.storage.hold(pool, volume, holder)
        held = self._held.setdefault(holder, {}).setdefault(place.key, _Held(pool, volume))
        held.writes = held.writes or writes
        if volume.content is ContentType.FILESYSTEM:
            rootfs = await self._pools.storage.rootfs(pool, volume)
            if not isinstance(rootfs, Plain):
                raise NotSupported(
                    f'Volume "{volume.name}" lies in layers, which instances cannot share'
                )
            shift = not is_true(row.config.get("security.unmapped"))
            return VolumeSource(rootfs.path, shift=shift)
        file = await self._pools.storage.disk(pool, volume)
        if disk.device_path(given) is None:
            return VolumeSource(await self._mount(pool, volume, file), shift=False)
        readonly = volume.content is ContentType.ISO or disk.is_readonly(given)
        return VolumeSource(node=await in_thread(_device, file, readonly=readonly))

    def writers(self, place: Place) -> list[str]:
        """Return the unique names of the running instances that write to a disk."""
        return [
            holder.removeprefix(HOLDER)
            for holder, held in self._held.items()
            if place.key in held and held[place.key].writes
        ]

    def _check_alone(self, place: Place, holder: str) -> None:
        for other in self.writers(place):
            if f"{HOLDER}{other}" != holder:
                raise BadRequest(
                    f'Block volume "{place.name}" is in use by {other}: two that write to one disk '
                    "destroy what is on it; detach it there, set readonly=true here, or set "
                    "security.shared=true on the volume if they know of each other"
                )

    async def _let_go(self, holder: str, key: _Key) -> None:
        """Let go of one volume; the last instance to do so takes its devices along."""
        async with self._locks.hold(*key):
            held = self._held[holder][key]
            pool, volume = held.pool, held.volume
            holders = self._pools.storage.holders(pool, volume)
            if not any(each.startswith(HOLDER) for each in holders - {holder}):
                await self._remove_devices(pool, volume)
            await self._pools.storage.let_go(pool, volume, holder)
            del self._held[holder][key]
            if not self._held[holder]:
                del self._held[holder]

    async def _remove_devices(self, pool: Pool, volume: Volume) -> None:
        if volume.content is ContentType.FILESYSTEM:
            return
        target = self._mount_point(pool, volume)
        if await in_thread(os.path.ismount, target):
            await run("umount", str(target))
            await in_thread(_remove_empty, self._mounts)
        try:
            file = await self._pools.storage.disk(pool, volume)
            for device in await in_thread(loops.devices, file):
                await in_thread(loops.detach, device)
        except (NotFound, FileNotFoundError):
            pass  # what is not there has no devices

    async def _mount(self, pool: Pool, volume: Volume, file: Path) -> str:
        """Mount the file system of an ISO; return where.

        Not every kernel can map ids there, so that its files belong to nobody in an instance; all
        of them can be read.
        """
        target = self._mount_point(pool, volume)
        if not await in_thread(os.path.ismount, target):
            await in_thread(_make_directory, target)
            try:
                await run("mount", "-t", "iso9660", "-o", _ISO_OPTIONS, str(file), str(target))
            except BaseException as error:
                await in_thread(_remove_empty, self._mounts)
                if isinstance(error, Failed):
                    raise NotSupported(
                        f'The file system of ISO volume "{volume.name}" cannot be mounted here: '
                        'set path to one below "/dev/" to show it as a device instead '
                        f"({error})"
                    ) from error
                raise
        return str(target)

    def _mount_point(self, pool: Pool, volume: Volume) -> Path:
        return self._mounts / pool.name / volume.directory_name


def _device(file: Path, *, readonly: bool) -> HostNode:
    """Return the device of a disk, which is made unless there is one. Raises OSError."""
    path = str(file)
    if readonly or not stat.S_ISBLK(os.stat(path).st_mode):
        made = [each for each in loops.devices(file) if _is_readonly(each) == readonly]
        path = made[0] if made else loops.attach(file, read_only=readonly)
    number = os.stat(path).st_rdev
    return HostNode("b", os.major(number), os.minor(number))


def _is_readonly(device: str) -> bool:
    return Path("/sys/block", Path(device).name, "ro").read_text().strip() == "1"


def _sync(file: Path) -> None:
    """Write out the page cache of every device through which the disk is written to."""
    for path in [*loops.devices(file), str(file)]:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _mount_points() -> list[str]:
    """Return where file systems are mounted (names with spaces aside, which ours have not)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split(" ")[4] for line in lines]


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o711, parents=True, exist_ok=True)


def _remove_empty(directory: Path) -> None:
    """Remove the mount points that are not used (DIRECTORY/POOL/VOLUME)."""
    if not directory.is_dir():
        return
    for pool in directory.iterdir():
        for target in pool.iterdir():
            if not os.path.ismount(target):
                target.rmdir()
        if not any(pool.iterdir()):
            pool.rmdir()
    if not any(directory.iterdir()):
        directory.rmdir()
