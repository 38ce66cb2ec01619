"""A storage pool under attack: an installation with one, what lies on it, and what should."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from lxpy.storage import Pool, StoragePools, Volume, VolumeType, view
from tests.support.api import ApiError
from tests.support.daemon import Daemon, mounts_below
from tests.support.fixtures import create
from tests.support.processes import wait_until

POOL = "p"
ELSEWHERE = "default"
DATA = "root/data"
VOLUMES = f"/1.0/storage-pools/{POOL}/volumes/custom"
VOLUMES_ELSEWHERE = f"/1.0/storage-pools/{ELSEWHERE}/volumes/custom"


class Bench:
    """An instance "base" with snapshot "s0", and a volume "disk" likewise, on a pool of its own.

    `old` and `new` are the digests of what lies in s0, and now.
    """

    def __init__(self, daemon: Daemon, driver: str, config: dict[str, str]) -> None:
        self.daemon = daemon
        self.api = daemon.api
        self.driver = driver
        body = {"name": POOL, "driver": driver, "config": config}
        self.api.post("/1.0/storage-pools", body)
        self.old, self.new = "", ""

    def fill(self, size_bytes: int = 4 << 20) -> None:
        """Make what is on the pool."""
        self.create("base")
        self.api.post(VOLUMES, {"name": "disk", "type": "custom"})
        self.old = self._write(os.urandom(size_bytes))
        self.api.post("/1.0/instances/base/snapshots", {"name": "s0"})
        self.api.post(f"{VOLUMES}/disk/snapshots", {"name": "s0"})
        self.new = self._write(os.urandom(size_bytes))

    def _write(self, data: bytes) -> str:
        async def write(storage: StoragePools, pool: Pool) -> None:
            for volume, name in ((Volume("base"), DATA), (custom("disk"), "data")):
                async with storage.held(pool, volume) as rootfs:
                    with view.opened(rootfs, writable=True) as tree:
                        top = Path(f"/proc/self/fd/{tree}")
                        (top / name).write_bytes(data)
                        for number in range(50):
                            (top / name).with_name(f"small{number}").write_bytes(data[:number])
                        os.sync()

        self.on_disk(write)
        return hashlib.sha256(data).hexdigest()

    def create(self, name: str) -> None:
        """Create an instance on the pool."""
        devices = {"root": {"type": "disk", "path": "/", "pool": POOL}}
        create(self.daemon, "tiny", name, devices=devices)

    def copy(self, name: str) -> None:
        """Copy the instance with its snapshot."""
        source = {"type": "copy", "source": "base"}
        self.api.post("/1.0/instances", {"name": name, "source": source})

    def copy_volume(self, name: str) -> None:
        """Copy the volume with its snapshot."""
        source = {"type": "copy", "name": "disk", "pool": POOL}
        self.api.post(VOLUMES, {"name": name, "type": "custom", "source": source})

    # What there is

    def pool(self, name: str = POOL) -> Pool:
        """Return a pool as storage knows it."""
        found = self.api.get(f"/1.0/storage-pools/{name}")
        root = self.daemon.directory / "storage-pools"
        return StoragePools(root).pool(name, found["driver"], found["config"])

    def on_disk(self, look: Any, pool_name: str = POOL) -> Any:
        """Run `look(storage, pool)` beside the daemon."""
        pool = self.pool(pool_name)

        async def run() -> Any:
            storage = StoragePools(self.daemon.directory / "storage-pools")
            try:
                return await look(storage, pool)
            finally:
                await storage.close()

        return asyncio.run(run())

    def digest(self, volume: Volume, pool_name: str = POOL) -> str:
        """Return the digest of the data in a volume or snapshot, "" where there is none."""

        async def look(storage: StoragePools, pool: Pool) -> str:
            name = DATA if volume.type is VolumeType.CONTAINER else "data"
            async with storage.held(pool, volume) as rootfs:
                with view.opened(rootfs) as tree:
                    with contextlib.suppress(FileNotFoundError):
                        data = (Path(f"/proc/self/fd/{tree}") / name).read_bytes()
                        return hashlib.sha256(data).hexdigest()
            return ""

        return str(self.on_disk(look, pool_name))

    def is_whole(self, volume: Volume, pool_name: str = POOL) -> None:
        """Check a copy of what is on the pool, with its snapshot."""
        now, then = (self.digest(each, pool_name) for each in (volume, volume.at("s0")))
        assert now == self.new, f"{volume.label} is not what it should be"
        assert then == self.old, f"{volume.label}/s0 is not what it should be"

    def check(self) -> None:
        """Compare the database with the pool: what one has, the other has, and nothing is open."""
        # A client has the last byte of a stream a moment before the daemon has tidied up.
        wait_until(lambda: not self._intents(), 10, "no unfinished work", interval_s=0.1)
        for name in (POOL, ELSEWHERE):
            assert self._on_pool(name) == self._known(name), f"pool {name}, and the database"
            assert not list(self.pool(name).path.rglob(".new-*"))
        wait_until(lambda: not self._lost_images(), 10, f"no lost images: {self._lost_images()}")
        self.is_whole(Volume("base"))
        self.is_whole(custom("disk"))

    def _intents(self) -> list[Any]:
        path = self.daemon.directory / "lxpy.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT kind, name, data FROM intents").fetchall()

    def _on_pool(self, name: str) -> dict[str, list[str]]:
        async def look(storage: StoragePools, pool: Pool) -> dict[str, list[str]]:
            return {
                f"{each.type} {each.name}": sorted(await storage.snapshots(pool, each))
                for each in await storage.volumes(pool)
            }

        return self.on_disk(look, name)  # type: ignore[no-any-return]

    def _known(self, name: str) -> dict[str, list[str]]:
        found = {}
        for each in self.api.get("/1.0/instances?recursion=2"):
            if each["expanded_devices"]["root"]["pool"] == name:
                names = [snapshot["name"] for snapshot in each["snapshots"] or []]
                found[f"container {each['name']}"] = sorted(names)
        volumes = f"/1.0/storage-pools/{name}/volumes/custom"
        for volume in self._volumes(volumes):
            urls = self.api.get(f"{volumes}/{volume}/snapshots")
            found[f"custom {volume}"] = sorted(url.rsplit("/", 1)[1] for url in urls)
        return found

    def _volumes(self, url: str) -> list[str]:
        found = self.api.get(f"{url}?recursion=1")
        return [each["name"] for each in found if "/" not in each["name"]]

    def _lost_images(self) -> set[str]:
        """Return the fingerprints of image files and volumes that no image has."""
        found = {path.name.split(".")[0] for path in (self.daemon.directory / "images").glob("*")}
        for name in (POOL, ELSEWHERE):
            found |= set(self.on_disk(lambda storage, pool: storage.images(pool), name))
        known = {each["fingerprint"] for each in self.api.get("/1.0/images?recursion=1")}
        return {name for name in found - known if name}

    def clear(self) -> None:
        """Delete all but what `fill` has made."""
        for each in self.api.get("/1.0/instances?recursion=1"):
            if each["name"] not in ("base", "live"):
                self.daemon.delete(each["name"])
        for url in (VOLUMES, VOLUMES_ELSEWHERE):
            for name in self._volumes(url):
                if (url, name) != (VOLUMES, "disk"):
                    self.api.delete(f"{url}/{name}")
        for each in self.api.get("/1.0/storage-pools?recursion=1"):
            if each["name"] not in (POOL, ELSEWHERE):
                self.api.delete(f"/1.0/storage-pools/{each['name']}")
        for each in self.api.get("/1.0/images?recursion=1"):
            if not each["aliases"]:
                self.api.delete(f"/1.0/images/{each['fingerprint']}")
        for path in (
            "/1.0/instances/base/snapshots",
            "/1.0/instances/live/snapshots",
            "/1.0/instances/base/backups",
            f"{VOLUMES}/disk/snapshots",
            f"{VOLUMES}/disk/backups",
        ):
            for url in self._names(path):
                if not url.endswith("/s0"):
                    self.api.delete(url)

    def _names(self, path: str) -> list[str]:
        try:
            return self.api.get(path)  # type: ignore[no-any-return]
        except ApiError:
            return []

    def open_on_host(self) -> set[str]:
        """Return the mounts and loop devices of the installation."""
        return {*mounts_below(self.daemon.directory), *loops(self.daemon.directory)}


def custom(name: str) -> Volume:
    """Return a custom volume."""
    return Volume(name, VolumeType.CUSTOM)


def loops(directory: Path) -> Iterator[str]:
    """Yield the files below a directory that loop devices have open."""
    done = subprocess.run(["losetup", "-J"], capture_output=True, text=True, check=True)
    for each in json.loads(done.stdout or "{}").get("loopdevices", []):
        if str(each["back-file"]).startswith(f"{directory}/"):
            yield f"loop {each['back-file']}"
