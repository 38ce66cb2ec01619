"""The datasets of a zfs pool, below its root dataset ROOT.

    ROOT/images/FINGERPRINT@readonly            an unpacked image
    ROOT/containers/NAME                        the volume of an instance
    ROOT/containers/NAME@snapshot-SNAPSHOT      one of its snapshots
    ROOT/containers/NAME@copy-HEX               what a copy of it stands on
    ROOT/custom/NAME                            a custom volume; a block volume is a zvol
    ROOT/snapshots/AREA/NAME/SNAPSHOT           a snapshot that came from elsewhere
    ROOT/deleted/NAME                           deleted, but clones of its snapshots are not yet
    ROOT/new_HEX                                what is being made

Source: zfsconcepts(7), zfsprops(7), zfs-list(8), zfs-clone(8); names as LXD has them.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path

from lxpy.errors import Failed
from lxpy.programs import Completed, run_to_end
from lxpy.storage.volume import ContentType, Pool, Volume, VolumeType, check_fingerprint

POOL_NAME = "zfs.pool_name"
NEW, SNAPSHOT, COPY, DELETED, IMAGE = "new_", "snapshot-", "copy-", "deleted-", "readonly"
CONTENT = "lxpy:content"
_AREAS = {
    VolumeType.CONTAINER: "containers",
    VolumeType.CUSTOM: "custom",
    VolumeType.IMAGE: "images",
}
STRUCTURE = (
    "images", "containers", "custom", "deleted",
    "snapshots", "snapshots/containers", "snapshots/custom",
)  # fmt: skip
_FIELDS = ("name", "type", "origin", "clones", CONTENT, "createtxg", "referenced", "refquota",
           "quota", "volsize")  # fmt: skip
_BUSY_ATTEMPTS, _BUSY_S = 20, 0.25


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file system, zvol or snapshot; `limit_bytes` is the quota or size, 0 for none."""

    name: str
    kind: str  # filesystem, volume, snapshot
    origin: str
    clones: tuple[str, ...]
    content: ContentType
    created: int
    used_bytes: int
    limit_bytes: int

    @property
    def short(self) -> str:
        """The part of the name after "@", or after the last "/"."""
        return self.name.rpartition("@" if self.kind == "snapshot" else "/")[2]


def root(pool: Pool) -> str:
    """Return the root dataset of a storage pool."""
    return pool.config.get(POOL_NAME) or pool.name


def encode(pool: Pool, volume: Volume) -> str:
    """Return the dataset of a volume, or of the volume a snapshot is of. Raises BadRequest."""
    if volume.type is VolumeType.IMAGE:
        return f"{root(pool)}/images/{check_fingerprint(volume.name)}"
    return f"{root(pool)}/{_AREAS[volume.type]}/{volume.directory_name}"


def encode_snapshot(pool: Pool, snapshot: Volume) -> str:
    """Return the name of a snapshot that was taken of its volume. Raises BadRequest."""
    return f"{encode(pool, snapshot)}@{SNAPSHOT}{snapshot.snapshot_name}"


def foreign(pool: Pool, volume: Volume) -> str:
    """Return the dataset below which a volume's snapshots from elsewhere are, or one of them."""
    place = f"{root(pool)}/snapshots/{_AREAS[volume.type]}/{volume.directory_name}"
    return f"{place}/{volume.snapshot_name}" if volume.snapshot else place


def new_name(pool: Pool) -> str:
    """Return a name for what is being made."""
    return f"{root(pool)}/{NEW}{secrets.token_hex(6)}"


def device(dataset: str) -> Path:
    """Return the device of a zvol or of its snapshot, which udev makes."""
    return Path("/dev/zvol", dataset)


async def zfs(*words: str, check: bool = True) -> Completed:
    """Run zfs to its end. Raises Failed, MissingTool."""
    return await run_to_end("zfs", *words, check=check)


async def listing(pool: Pool) -> dict[str, Dataset]:
    """Return all datasets and snapshots below the pool's root, by name. Raises Failed."""
    what = ("-t", "filesystem,volume,snapshot", "-o", ",".join(_FIELDS), root(pool))
    return parse((await zfs("list", "-H", "-p", "-r", *what)).stdout.decode())


def parse(text: str) -> dict[str, Dataset]:
    """Return what `zfs list -H -p` tells: a line each, fields separated by tabs, "-" for none."""
    found = {}
    for line in text.splitlines():
        fields = dict(zip(_FIELDS, line.split("\t"), strict=True))
        told = {key: "" if value in ("-", "none") else value for key, value in fields.items()}
        limits = (told["volsize"], told["refquota"], told["quota"])
        found[told["name"]] = Dataset(
            name=told["name"],
            kind=told["type"],
            origin=told["origin"],
            clones=tuple(each for each in told["clones"].split(",") if each),
            content=ContentType(told[CONTENT] or ContentType.FILESYSTEM),
            created=int(told["createtxg"] or 0),
            used_bytes=int(told["referenced"] or 0),
            limit_bytes=next((int(each) for each in limits if each not in ("", "0")), 0),
        )
    return found


def snapshots_of(have: dict[str, Dataset], dataset: str) -> list[Dataset]:
    """Return the snapshots that were taken of a dataset, the oldest first."""
    found = (each for name, each in have.items() if name.startswith(f"{dataset}@"))
    return sorted(found, key=lambda each: each.created)


def children_of(have: dict[str, Dataset], dataset: str) -> list[Dataset]:
    """Return the file systems and zvols right below a dataset."""
    below = (each for each in have.values() if each.kind != "snapshot")
    return [each for each in below if each.name.rpartition("/")[0] == dataset]


async def wait_for_device(dataset: str) -> Path:
    """Return the device of a zvol once udev has made it. Raises Failed."""
    path = device(dataset)
    for _ in range(_BUSY_ATTEMPTS * 2):
        if path.exists():
            return path
        await asyncio.sleep(_BUSY_S)
    raise Failed(f"{path} did not appear: is udev running, with the rules of ZFS?")


async def destroy(pool: Pool, dataset: str, kept_as: str = "") -> None:
    """Remove a dataset with its snapshots: at once, or with the last clone of them.

    So long it is `ROOT/deleted/KEPT_AS`. What does not exist is none. Raises Failed.
    """
    have = await listing(pool)
    found = have.get(dataset)
    if found is None:
        return
    if any(each.clones for each in snapshots_of(have, dataset)):
        if not dataset.startswith(f"{root(pool)}/deleted/"):
            kept = kept_as or secrets.token_hex(6)
            await zfs("rename", dataset, f"{root(pool)}/deleted/{kept}")
        return
    await _destroy("-r", dataset)
    if found.origin:
        await _forget(pool, found.origin)


async def destroy_snapshot(pool: Pool, snapshot: str) -> None:
    """Remove a snapshot: at once, or with the last clone of it. Raises Failed."""
    found = (await listing(pool)).get(snapshot)
    if found is None:
        return
    if found.clones:
        dataset = snapshot.partition("@")[0]
        await zfs("rename", snapshot, f"{dataset}@{DELETED}{secrets.token_hex(6)}")
    else:
        await _destroy(snapshot)


async def sweep(pool: Pool) -> None:
    """Remove what a crash has left. Raises Failed."""
    have = await listing(pool)
    for name, found in have.items():
        if found.kind != "snapshot" and found.short.startswith(NEW):
            await destroy(pool, name)
        elif found.kind == "snapshot" and found.short.startswith(f"{SNAPSHOT}."):
            await destroy_snapshot(pool, name)
        elif found.short.startswith((COPY, DELETED)) and not found.clones:
            await _forget(pool, name)
    for kept in children_of(have, f"{root(pool)}/deleted"):
        await destroy(pool, kept.name)


async def _forget(pool: Pool, snapshot: str) -> None:
    """Remove a snapshot, or its deleted dataset, if nothing but a clone has needed it."""
    have = await listing(pool)
    found = have.get(snapshot)
    if found is None or found.clones:
        return
    dataset = snapshot.partition("@")[0]
    if dataset.startswith(f"{root(pool)}/deleted/"):
        await destroy(pool, dataset)
    elif found.short.startswith((COPY, DELETED)):
        await _destroy(snapshot)


async def _destroy(*words: str) -> None:
    """Destroy a dataset as soon as a guest that is ending has let go of it."""
    for attempt in range(_BUSY_ATTEMPTS):
        try:
            await zfs("destroy", *words)
            return
        except Failed as error:
            if "busy" not in str(error) or attempt == _BUSY_ATTEMPTS - 1:
                raise
        await asyncio.sleep(_BUSY_S)
