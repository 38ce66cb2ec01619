"""What records say, decoded and checked: they may come from another host, or from an editor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from lxpy.db.base import now
from lxpy.errors import BadRequest
from lxpy.instances import devices, keys, names
from lxpy.services.recovery import records

_T = TypeVar("_T")
Devices = dict[str, dict[str, str]]


class Profile(Struct, kw_only=True):
    """A profile."""

    name: str
    project: str = "default"
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)


class Snapshot(Struct, kw_only=True):
    """A snapshot of an instance."""

    name: str
    created_at: datetime = field(default_factory=now)
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    description: str = ""
    stateful: bool = False
    ephemeral: bool = False
    config: dict[str, str] = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


class Container(Struct, kw_only=True):
    """An instance."""

    name: str
    architecture: str
    project: str = "default"
    description: str = ""
    ephemeral: bool = False
    created_at: datetime = field(default_factory=now)
    last_used_at: datetime | None = None
    config: dict[str, str] = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    volume: dict[str, Any] = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)


class InstanceRecord(Struct, kw_only=True):
    """The record of an instance."""

    container: Container
    snapshots: list[Snapshot] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)


class VolumeSnapshot(Struct, kw_only=True):
    """A snapshot of a custom volume."""

    name: str
    created_at: datetime = field(default_factory=now)
    expires_at: datetime | None = None
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)


class CustomVolume(Struct, kw_only=True):
    """A custom volume."""

    name: str
    project: str = "default"
    content_type: str = "filesystem"
    description: str = ""
    created_at: datetime = field(default_factory=now)
    config: dict[str, str] = field(default_factory=dict)


class VolumeRecord(Struct, kw_only=True):
    """The record of a custom volume."""

    volume: CustomVolume
    volume_snapshots: list[VolumeSnapshot] = field(default_factory=list)


class Pool(Struct, kw_only=True):
    """A storage pool."""

    name: str
    driver: str
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)


class Network(Struct, kw_only=True):
    """A network."""

    name: str
    project: str = "default"
    type: str = "bridge"
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)
    forwards: list[dict[str, Any]] = field(default_factory=list)


class NetworkAcl(Struct, kw_only=True):
    """Rules for the traffic of networks."""

    name: str
    project: str = "default"
    description: str = ""
    config: dict[str, str] = field(default_factory=dict)
    ingress: list[dict[str, Any]] = field(default_factory=list)
    egress: list[dict[str, Any]] = field(default_factory=list)


class Setting(Struct, kw_only=True):
    """A key of the server's config."""

    key: str
    value: str


class Alias(Struct, kw_only=True):
    """A name of an image."""

    name: str
    description: str = ""


class Image(Struct, kw_only=True):
    """An image."""

    fingerprint: str
    filename: str
    size_bytes: int
    architecture: str
    project: str = "default"
    type: str = "container"
    public: bool = False
    auto_update: bool = False
    cached: bool = False
    created_at: datetime | None = None
    expires_at: datetime | None = None
    uploaded_at: datetime = field(default_factory=now)
    last_used_at: datetime | None = None
    properties: dict[str, str] = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)
    update_source: dict[str, Any] = field(default_factory=dict)
    aliases: list[Alias] = field(default_factory=list)


def load(path: Path, kind: type[_T]) -> _T | None:
    """Read a record; None where there is none. Raises BadRequest naming what is wrong with it."""
    try:
        return msgspec.convert(records.read(path), kind, strict=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadRequest(f"Record {path} cannot be used: {error}: correct or remove it") from error


def load_all(path: Path, kind: type[_T]) -> Sequence[_T]:
    """Read a record of several objects; none where there is none. Raises BadRequest."""
    found: list[_T] | None = load(path, list[kind])  # type: ignore[valid-type]  # a value
    return found or []


def check_instance(container: Container) -> None:
    """Raise BadRequest for what an instance cannot have."""
    names.check_name(container.name)
    keys.validate(container.config)
    devices.validate(container.devices)


def by_name(found: Sequence[Snapshot]) -> Mapping[str, Snapshot]:
    """Return snapshots by name."""
    return {each.name: each for each in found}
