"""The values storage speaks in: pools, volumes, and how a volume becomes a rootfs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from lxpy.errors import BadRequest

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class VolumeType(StrEnum):
    """What a volume holds; the value is LXD's word in URLs."""

    CONTAINER = "container"
    CUSTOM = "custom"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Pool:
    """A storage pool as the database knows it; `config["source"]` is where its files are."""

    name: str
    driver: str
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The directory the pool's files are in."""
        return Path(self.config["source"])


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a pool. Names are unique per project and type."""

    name: str
    type: VolumeType = VolumeType.CONTAINER
    project: str = "default"
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def directory_name(self) -> str:
        """The name on disk: outside of project "default", the project's name is put before it.

        Raises BadRequest for a name that could leave the pool's directory.
        """
        if not _SAFE_NAME.fullmatch(self.name) or not _SAFE_NAME.fullmatch(self.project):
            raise BadRequest(
                f'Invalid volume name "{self.name}": use letters, digits, ".", "_", "-"'
            )
        return self.name if self.project == "default" else f"{self.project}_{self.name}"


@dataclass(frozen=True, slots=True)
class Layers:
    """A rootfs stacked by overlayfs: `lower` is topmost first; `root` has upper/ and work/."""

    lower: tuple[str, ...]
    root: str


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


def check_fingerprint(fingerprint: str) -> str:
    """Return the fingerprint; raise BadRequest unless it is 64 lower-case hexadecimal digits."""
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise BadRequest(f'Invalid image fingerprint "{fingerprint}"')
    return fingerprint
