"""A volume group with a thin pool, and the logical volumes of ours in it.

    images_FINGERPRINT_ext4         an unpacked image, read-only
    containers_NAME                 the volume of an instance
    containers_NAME-SNAPSHOT        one of its snapshots, read-only
    custom_NAME, custom_NAME-SNAPSHOT
    new_HEX                         what is being made
    old_LV                          what LV was, until what replaces it has its name

"-" within a name is doubled. All of ours have the tag `lxpy`; further tags say what is in one.
Source: lvmthin(7), lvcreate(8), lvs(8); names as LXD has them.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from lxpy.errors import BadRequest, Failed
from lxpy.programs import Completed, run, run_to_end
from lxpy.storage.volume import ContentType, Pool, Volume, VolumeType

VG_NAME = "lvm.vg_name"
THIN_POOL_NAME = "lvm.thinpool_name"
DEFAULT_THIN_POOL = "LXDThinPool"
EXTENT_BYTES = 4 << 20
NEW, OLD = "new_", "old_"
_TAG = "lxpy"
#: on thin pools that lxpy has made, and removes with the storage pool
POOL_TAG = "lxpy.pool"
_FILESYSTEM_TAG = "lxpy.fs="
_CONTENT_TAG = "lxpy.content="
_AREAS = {
    VolumeType.CONTAINER: "containers_",
    VolumeType.CUSTOM: "custom_",
    VolumeType.IMAGE: "images_",
}
_IMAGE = re.compile(r"images_([0-9a-f]{64})_\w+")
# dm_ioctl has 128 bytes for "VG-LV", where "-" is doubled once more.
_NAME_BYTES = 127
_FIELDS = "lv_name,lv_size,data_percent,lv_tags,pool_lv"


@dataclass(frozen=True, slots=True)
class Group:
    """Where a storage pool's logical volumes are."""

    name: str
    thin_pool: str

    @classmethod
    def of(cls, pool: Pool) -> Group:
        """Return the volume group and thin pool of a storage pool."""
        name = pool.config.get(VG_NAME) or pool.name
        return cls(name, pool.config.get(THIN_POOL_NAME) or DEFAULT_THIN_POOL)

    def device(self, name: str) -> Path:
        """Return the device of a logical volume that is active."""
        return Path("/dev", self.name, name)


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """One of ours; `filesystem` is "" for a block volume, `used_bytes` what it has allocated."""

    name: str
    size_bytes: int
    used_bytes: int
    filesystem: str
    content: ContentType

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that say what is in it."""
        return tags(self.content, self.filesystem)


def tags(content: ContentType, filesystem: str = "") -> tuple[str, ...]:
    """Return the tags of a logical volume of ours."""
    what = f"{_CONTENT_TAG}{content}"
    return (_TAG, what, f"{_FILESYSTEM_TAG}{filesystem}") if filesystem else (_TAG, what)


def rounded(size_bytes: int) -> int:
    """Return a size as a logical volume can have it."""
    return -(-size_bytes // EXTENT_BYTES) * EXTENT_BYTES


# Names


def encode(group: Group, volume: Volume) -> str:
    """Return the logical volume's name of a volume or snapshot. Raises BadRequest."""
    name = _AREAS[volume.type] + _doubled(volume.directory_name)
    if volume.snapshot:
        name += "-" + _doubled(volume.snapshot_name)
    if len(_doubled(group.name)) + 1 + len(_doubled(name)) > _NAME_BYTES - len(OLD):
        raise BadRequest(
            f'The name "{volume.label}" is too long for the device of a logical volume '
            f'("{group.name}-{name}"): use a shorter one'
        )
    return name


def encode_image(fingerprint: str, filesystem: str) -> str:
    """Return the name of an image's logical volume."""
    return f"{_AREAS[VolumeType.IMAGE]}{fingerprint}_{filesystem}"


def decode_image(name: str) -> str | None:
    """Return the fingerprint of the image that a logical volume holds, None for others."""
    found = _IMAGE.fullmatch(name)
    return found.group(1) if found else None


def decode(found: LogicalVolume) -> Volume | None:
    """Return the volume or snapshot that a logical volume is, None for others."""
    for kind in (VolumeType.CONTAINER, VolumeType.CUSTOM):
        if found.name.startswith(_AREAS[kind]):
            own = found.name.removeprefix(_AREAS[kind])
            name, _, snapshot = own.replace("--", "\0").partition("-")
            return Volume(
                name.replace("\0", "-"),
                kind,
                content=found.content,
                snapshot=snapshot.replace("\0", "-"),
            )
    return None


def new_name() -> str:
    """Return a name for what is being made."""
    return f"{NEW}{secrets.token_hex(6)}"


def _doubled(name: str) -> str:
    return name.replace("-", "--")


# Programs


async def lvm(*argv: str, check: bool = True) -> Completed:
    """Run one of LVM's programs to its end, whether the caller is cancelled or not.

    One that is killed halfway would leave devices suspended. Raises Failed, MissingTool.
    """
    done = await run_to_end(*argv, env={"LVM_SUPPRESS_FD_WARNINGS": "1"}, check=False)
    if check and done.returncode:
        # Every change of an overcommitted thin pool comes with warnings about that.
        lines = (line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines())
        told = "; ".join(line for line in lines if line and not line.startswith("WARNING:"))
        raise Failed(f"Failed to run: {shlex.join(argv)}: {told}")
    return done


async def report(program: str, fields: str, *words: str) -> list[dict[str, str]]:
    """Return what `lvs` or `vgs` tells: a dict of fields for each line. Raises Failed."""
    options = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields)
    return parse_report((await lvm(program, *options, *words)).stdout)


def parse_report(text: bytes) -> list[dict[str, str]]:
    """Return the lines of a report in JSON. Source: lvmreport(7)."""
    (section,) = json.loads(text)["report"][:1]
    (lines,) = section.values()
    return [dict(line) for line in lines]


async def volumes(group: Group) -> dict[str, LogicalVolume]:
    """Return our logical volumes in the group's thin pool, by name. Raises Failed."""
    lines = await report("lvs", _FIELDS, group.name)
    ours = (line for line in lines if line["pool_lv"] == group.thin_pool)
    return {line["lv_name"]: parse(line) for line in ours if _TAG in line["lv_tags"].split(",")}


async def thin_pool_usage(group: Group) -> tuple[int, int]:
    """Return the bytes that are taken of the thin pool, and those it has. Raises Failed."""
    (line,) = await report("lvs", "lv_size,data_percent", f"{group.name}/{group.thin_pool}")
    size = int(line["lv_size"])
    return _share(line, size), size


def parse(line: dict[str, str]) -> LogicalVolume:
    """Return what a line of `lvs` tells of one of ours."""
    marks = dict(tag.split("=", 1) for tag in line["lv_tags"].split(",") if "=" in tag)
    size = int(line["lv_size"])
    return LogicalVolume(
        name=line["lv_name"],
        size_bytes=size,
        used_bytes=_share(line, size),
        filesystem=marks.get(_FILESYSTEM_TAG.rstrip("="), ""),
        content=ContentType(marks.get(_CONTENT_TAG.rstrip("="), ContentType.FILESYSTEM)),
    )


async def create(group: Group, name: str, size_bytes: int, marks: tuple[str, ...]) -> None:
    """Make a thin volume; it reads as zeros. Raises Failed."""
    size = ("--virtualsize", f"{rounded(size_bytes)}b")
    plain = ("--wipesignatures", "n")  # a new thin volume has no blocks
    where = ("--thinpool", group.thin_pool, group.name)
    await lvm("lvcreate", "--yes", "--name", name, *size, *plain, *_tagged(marks), *where)


async def snapshot(
    group: Group, origin: LogicalVolume, name: str, *, read_only: bool = False
) -> None:
    """Make a thin snapshot. A file system that is mounted is frozen for the moment it takes.

    Raises Failed.
    """
    sealed = ("--permission", "r" if read_only else "rw")
    options = ("--yes", "--snapshot", "--setactivationskip", "n", "--name", name, *sealed)
    await lvm("lvcreate", *options, *_tagged(origin.tags), f"{group.name}/{origin.name}")


async def rename(group: Group, old: str, new: str) -> None:
    """Rename a logical volume. Raises Failed."""
    await lvm("lvrename", "--yes", group.name, old, new)


async def remove(group: Group, *names: str) -> None:
    """Remove those of the logical volumes that exist. Raises Failed."""
    have = await volumes(group)
    doomed = [f"{group.name}/{name}" for name in names if name in have]
    if doomed:
        await lvm("lvremove", "--yes", "--force", *doomed)


async def extend(group: Group, name: str, size_bytes: int) -> None:
    """Make a logical volume larger, not what is in it. Raises Failed."""
    size = f"{rounded(size_bytes)}b"
    await lvm("lvextend", "--size", size, f"{group.name}/{name}")


async def reduce(group: Group, name: str, size_bytes: int) -> None:
    """Cut a logical volume off. Raises Failed."""
    size = f"{rounded(size_bytes)}b"
    await lvm("lvreduce", "--yes", "--force", "--size", size, f"{group.name}/{name}")


async def seal(group: Group, name: str) -> None:
    """Let a logical volume take no writes any more. Raises Failed."""
    await lvm("lvchange", "--permission", "r", f"{group.name}/{name}")


async def replace(group: Group, name: str, new: str) -> None:
    """Put `new` in the place of a logical volume that is not in use, and remove that.

    A crash in between leaves the one or the other to `settle`. Raises Failed.
    """
    try:
        if name in await volumes(group):
            await rename(group, name, f"{OLD}{name}")
        await rename(group, new, name)
    finally:
        await asyncio.shield(asyncio.ensure_future(settle(group)))


async def settle(group: Group) -> None:
    """End a replacement, or take it back if it had not come to its end. Raises Failed."""
    have = await volumes(group)
    for name in have:
        if not name.startswith(OLD):
            continue
        if name.removeprefix(OLD) in have:
            await remove(group, name)
        else:
            await rename(group, name, name.removeprefix(OLD))


async def check_tools() -> None:
    """Raise MissingTool unless the programs are there that LVM calls by itself."""
    await run("thin_check", "--version")


def _share(line: dict[str, str], size_bytes: int) -> int:
    return round(float(line["data_percent"] or 0) / 100 * size_bytes)


def _tagged(marks: tuple[str, ...]) -> list[str]:
    return [word for mark in marks for word in ("--addtag", mark)]
