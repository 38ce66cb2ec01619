"""Profiles: config and devices that instances share."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from lxpy.api.instances import Config, Devices


class ProfilePut(Struct, kw_only=True):
    """The writable part of a profile."""

    description: str = ""
    config: Config | None = None
    devices: Devices | None = None


class ProfilesPost(ProfilePut, kw_only=True):
    """A new profile."""

    name: str = ""


class ProfilePatch(Struct, kw_only=True):
    """A change: what is missing stays."""

    description: str | UnsetType = UNSET
    config: Config | UnsetType | None = UNSET
    devices: Devices | UnsetType | None = UNSET


class ProfilePost(Struct, kw_only=True):
    """A new name."""

    name: str = ""


class Profile(Struct, kw_only=True):
    """A profile; `used_by` are URLs of instances."""

    config: Config
    description: str
    devices: Devices
    name: str
    used_by: list[str]
