"""Records: what the database holds, once more beside the files it is about.

Each pool has records/ with the pool, its instances and its custom volumes, and the installation
records/ with what belongs to no pool. From them `lxpy recover` rebuilds a database that was lost.
They are written in the background, soon after a change was committed.

The files have the shape of LXD's backup.yaml; JSON is YAML, and is written in no time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog
import yaml

from lxpy.db import records as source
from lxpy.db.records import INSTANCES, TABLES, VOLUMES, Key
from lxpy.errors import LxpyError
from lxpy.instances.devices import disk
from lxpy.instances.expand import expand_devices
from lxpy.instances.model import DEFAULT_PROJECT, unique_name
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume, VolumeType
from lxpy.threads import in_thread

DIRECTORY = "records"
POOL_FILE = "pool.yaml"
CONTAINERS = "containers"
CUSTOM = "custom"

_HEAD = "# lxpy record "
_WAIT_S = 2.0
_RETRY_S = 60.0
_BATCH = 16
_PAUSE_S = 0.02
_WATCHED = frozenset(
    (*TABLES, INSTANCES, VOLUMES, "image_aliases", "instance_profiles", "instance_snapshots",
     "volume_snapshots")
)  # fmt: skip
#: drivers whose volumes are directories of the pool's own
_LIE_THERE = ("btrfs", "dir")
#: belongs to one database only
_IDS = ("id", "instance_id", "volume_id", "pool_id")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Written:
    """A record as it lies on disk; `digest` is of what it was made from."""

    path: Path
    digest: str


class Records:
    """Keeps the records of everything up to date."""

    def __init__(self, database: Path, directory: Path, pools: Pools) -> None:
        self._database = database
        self._directory = directory
        self._pools = pools
        self._written: dict[Key, Written] = {}
        self._began = False
        self._due = asyncio.Event()
        self._lock = asyncio.Lock()

    def committed(self, tables: frozenset[str]) -> None:
        """Hear of a transaction."""
        if tables & _WATCHED:
            self._due.set()

    async def keep(self) -> None:
        """Write records for ever, a moment after each change."""
        async with self._lock:
            await in_thread(self._find)
        self._began = True
        self._due.set()
        while True:
            await self._due.wait()
            await asyncio.sleep(_WAIT_S)
            self._due.clear()
            if not await self.write():
                await asyncio.sleep(_RETRY_S)
                self._due.set()

    async def close(self) -> None:
        """Write what is still due."""
        if self._began:
            await self.write()

    async def write(self) -> bool:
        """Write what has changed; tell whether all of it could be."""
        async with self._lock:
            try:
                places = await in_thread(_present, self._pools.usable())
                found = await in_thread(self._digests)
                gone = [key for key in self._written if key not in found]
                changed = [key for key, each in found.items() if self._differs(key, each)]
                done = await in_thread(self._remove, await self._deleted(gone, places))
                for begin in range(0, len(changed), _BATCH):
                    batch = changed[begin : begin + _BATCH]
                    done &= await in_thread(self._write, batch, found, places)
                    await asyncio.sleep(_PAUSE_S)
            except (LxpyError, OSError, sqlite3.Error) as error:
                _log.warning("records not written", error=str(error))
                return False
        return done

    async def _deleted(self, gone: Iterable[Key], places: Mapping[str, Pool]) -> list[Key]:
        """Return which of the objects that have no row any more are not on their pool, either.

        The records of the others are what they can be recovered from.
        """
        found = {key: self._written[key].path for key in gone}
        there: set[Path] = set()
        for pool in places.values():
            if any(path.is_relative_to(pool.path / DIRECTORY) for path in found.values()):
                for volume in await self._pools.storage.volumes(pool):
                    there |= _records_of(pool, volume)
        return [key for key, path in found.items() if path not in there]

    @asynccontextmanager
    async def without(self, pool: Pool) -> AsyncIterator[None]:
        """Remove a pool's records for a block that deletes it; if it fails, they come back."""
        async with self._lock:
            top = pool.path / DIRECTORY
            try:
                await in_thread(shutil.rmtree, top, True)
                for key in [key for key, each in self._written.items() if _within(each, top)]:
                    del self._written[key]
                self._written.pop(Key("storage_pools"), None)
                yield
            finally:
                self._due.set()

    # In a thread

    def _digests(self) -> dict[Key, str]:
        with source.opened(self._database) as connection:
            return source.digests(connection)

    def _differs(self, key: Key, digest: str) -> bool:
        known = self._written.get(key)
        return known is None or known.digest != digest

    def _find(self) -> None:
        """Read the digests of the records that are there."""
        for table in TABLES:
            path = self._directory / f"{table}.yaml"
            if digest := _digest_of(path):
                self._written[Key(table)] = Written(path, digest)
        for pool in self._pools.usable().values():
            for key, path in listed(pool).items():
                self._written[key] = Written(path, _digest_of(path))

    def _write(
        self, keys: Sequence[Key], digests: Mapping[Key, str], places: Mapping[str, Pool]
    ) -> bool:
        done = True
        with source.opened(self._database) as connection:
            for key in keys:
                try:
                    self._write_one(connection, key, digests[key], places)
                except OSError as error:
                    _log.warning("record not written", of=key.name or key.kind, error=str(error))
                    done = False
        return done

    def _write_one(
        self, connection: sqlite3.Connection, key: Key, digest: str, places: Mapping[str, Pool]
    ) -> None:
        if key.kind in TABLES:
            path = self._directory / f"{key.kind}.yaml"
            found: Any = [_plain(each) for each in source.rows(connection, key.kind)]
            if key.kind == "storage_pools":
                _write_pools(found, digest, places)
        else:
            reading = source.instance if key.kind == INSTANCES else source.volume
            found = reading(connection, key)
            if found is None:
                return  # gone meanwhile
            found = {name: _plain(each) for name, each in found.items()}
            pool = places.get(_pool_of(key, found))
            if pool is None:
                return  # it is written when the pool is there again
            found["pool"] = _describe(pool)
            path = _path(pool, key)
        write(path, digest, found)
        old = self._written.get(key)
        if old is not None and old.path != path:
            old.path.unlink(missing_ok=True)
        self._written[key] = Written(path, digest)

    def _remove(self, keys: Iterable[Key]) -> bool:
        done = True
        for key in keys:
            path = self._written[key].path
            try:
                path.unlink(missing_ok=True)
                del self._written[key]
            except OSError as error:
                _log.warning("record not removed", record=str(path), error=str(error))
                done = False
        return done


def listed(pool: Pool) -> dict[Key, Path]:
    """Return the records of a pool's instances and volumes; blocking."""
    found: dict[Key, Path] = {}
    for area, kind in ((CONTAINERS, INSTANCES), (CUSTOM, VOLUMES)):
        for path in (pool.path / DIRECTORY / area).glob("*.yaml"):
            project, underscore, name = path.stem.partition("_")
            if kind == INSTANCES and not underscore:
                project, name = "default", path.stem
            place = pool.name if kind == VOLUMES else ""
            found[Key(kind, place, project, name)] = path
    return found


def read(path: Path) -> Any:
    """Return what a record holds; blocking. Raises OSError, ValueError."""
    text = path.read_text()
    if text.startswith(_HEAD):
        text = text.partition("\n")[2]
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        try:
            return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError as error:
            raise ValueError(str(error).replace("\n", " ")) from error


def write(path: Path, digest: str, content: Any) -> None:
    """Write a record, which is there whole or as it was; blocking. Raises OSError."""
    for directory in (path.parent.parent, path.parent):
        directory.mkdir(mode=0o700, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(content), indent=2)
    new = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{_HEAD}{digest}\n".encode() + text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _digest_of(path: Path) -> str:
    try:
        with path.open() as file:
            first = file.readline(200)
    except (OSError, UnicodeDecodeError):
        return ""
    return first.removeprefix(_HEAD).strip() if first.startswith(_HEAD) else ""


def _path(pool: Pool, key: Key) -> Path:
    if key.kind == INSTANCES:
        area, stem = CONTAINERS, unique_name(key.project, key.name)
    else:
        area, stem = CUSTOM, f"{key.project}_{key.name}"
    return pool.path / DIRECTORY / area / f"{stem}.yaml"


def _pool_of(key: Key, found: Mapping[str, Any]) -> str:
    """Return the name of the pool that has the files."""
    if key.kind == VOLUMES:
        return key.place
    profiles = [each["devices"] for each in found["profiles"]]
    expanded = expand_devices(profiles, found["container"]["devices"])
    roots = (each for each in expanded.values() if disk.is_root(each))
    return str(next((each.get("pool", "") for each in roots), ""))


def _plain(found: Any) -> Any:
    """Return rows without what only their database knows them by."""
    if isinstance(found, list):
        return [_plain(each) for each in found]
    return {key: value for key, value in found.items() if key not in _IDS}


def _describe(pool: Pool) -> dict[str, Any]:
    return {"name": pool.name, "driver": pool.driver, "config": dict(pool.config)}


def _write_pools(
    found: Iterable[Mapping[str, Any]], digest: str, places: Mapping[str, Pool]
) -> None:
    for each in found:
        if each["name"] in places:
            write(places[each["name"]].path / DIRECTORY / POOL_FILE, digest, each)


def _present(pools: Mapping[str, Pool]) -> dict[str, Pool]:
    """Return the pools whose files are there: what is not mounted must not get any."""
    return {
        name: each
        for name, each in pools.items()
        if (each.path / CONTAINERS).is_dir()
        or (each.driver not in _LIE_THERE and each.path.is_dir())
    }


def _within(written: Written, top: Path) -> bool:
    return written.path.is_relative_to(top)


def _records_of(pool: Pool, volume: Volume) -> set[Path]:
    """Return where the record of a volume on a pool may be: a project is part of its name there."""
    top, name = pool.path / DIRECTORY, volume.directory_name
    if volume.type is VolumeType.CONTAINER:
        return {top / CONTAINERS / f"{name}.yaml"}
    return {top / CUSTOM / f"{name}.yaml", top / CUSTOM / f"{DEFAULT_PROJECT}_{name}.yaml"}
