"""The values storage speaks in: pools, volumes, and how a volume becomes a rootfs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from lxpy.errors import BadRequest
from lxpy.units import parse_size

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class VolumeType(StrEnum):
    """What a volume is for; the value is LXD's word in URLs."""

    CONTAINER = "container"
    CUSTOM = "custom"
    IMAGE = "image"


class ContentType(StrEnum):
    """What a volume holds: a tree of files, or a disk (an ISO is a disk that is read only)."""

    FILESYSTEM = "filesystem"
    BLOCK = "block"
    ISO = "iso"


@dataclass(frozen=True, slots=True)
class Pool:
    """A storage pool as the database knows it.

    `config["source"]` is what the user gave or the driver chose: a directory, a device, a file.
    `path` is the directory below which its files are once it is started.
    """

    name: str
    driver: str
    config: Mapping[str, str] = field(default_factory=dict)
    mount_point: Path | None = None

    @property
    def path(self) -> Path:
        """The directory the pool's files are in."""
        return self.mount_point or Path(self.config["source"])


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a pool, or one of its snapshots. Names are unique per project and type.

    `config` are the volume's own options; "size" is its quota.
    """

    name: str
    type: VolumeType = VolumeType.CONTAINER
    project: str = "default"
    config: Mapping[str, str] = field(default_factory=dict)
    content: ContentType = ContentType.FILESYSTEM
    snapshot: str = ""

    @property
    def directory_name(self) -> str:
        """The name on disk: outside of project "default", the project's name is put before it.

        Raises BadRequest for a name that could leave the pool's directory.
        """
        _check(self.name)
        _check(self.project)
        return self.name if self.project == "default" else f"{self.project}_{self.name}"

    @property
    def snapshot_name(self) -> str:
        """The snapshot's name on disk. Raises BadRequest as `directory_name`.

        One that begins with "." is for the length of an operation: it is not listed, and a
        driver's `start` removes it.
        """
        _check(self.snapshot.removeprefix("."))
        return self.snapshot

    @property
    def label(self) -> str:
        """The name as users see it: "c1" or "c1/snap0"."""
        return f"{self.name}/{self.snapshot}" if self.snapshot else self.name

    @property
    def size_bytes(self) -> int | None:
        """The quota, None for none. Raises InvalidConfig for a value that is no size."""
        size = self.config.get("size", "")
        return (parse_size(size) or None) if size else None

    @property
    def whole(self) -> Volume:
        """The volume itself, for one of its snapshots."""
        return replace(self, snapshot="")

    @property
    def without_size(self) -> Volume:
        """The volume with no quota of its own."""
        return replace(self, config={k: v for k, v in self.config.items() if k != "size"})

    def at(self, snapshot: str) -> Volume:
        """Return the volume's snapshot of that name."""
        return replace(self, snapshot=snapshot)


@dataclass(frozen=True, slots=True)
class Layers:
    """A rootfs stacked by overlayfs: `lower` is topmost first; `root` has upper/ and work/.

    A snapshot has no `root`: it takes no writes.
    """

    lower: tuple[str, ...]
    root: str | None


@dataclass(frozen=True, slots=True)
class Plain:
    """A rootfs that lies in one directory."""

    path: str


Rootfs = Layers | Plain


@dataclass(frozen=True, slots=True)
class Resources:
    """How full a pool is: bytes and inodes."""

    space_used: int
    space_total: int
    inodes_used: int
    inodes_total: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes a volume takes; `total` is its quota, 0 for none."""

    used: int
    total: int = 0


def check_fingerprint(fingerprint: str) -> str:
    """Return the fingerprint; raise BadRequest unless it is 64 lower-case hexadecimal digits."""
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise BadRequest(f'Invalid image fingerprint "{fingerprint}"')
    return fingerprint


def _check(name: str) -> str:
    if not _SAFE_NAME.fullmatch(name):
        raise BadRequest(f'Invalid volume name "{name}": use letters, digits, ".", "_", "-"')
    return name
