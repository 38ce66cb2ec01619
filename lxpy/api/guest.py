"""What the guest API at /dev/lxd takes and tells. Source: LXD docs, "Communication between
instance and host".
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class GuestPatch(Struct, kw_only=True):
    """What an instance says of itself."""

    state: str = ""


class Guest(Struct, kw_only=True):
    """What it is told of itself."""

    state: Literal["Started", "Ready"]
    api_version: str = "1.0"
    instance_type: str = "container"
    location: str = "none"


class ConfigChange(Struct, kw_only=True):
    """Metadata of an event of type "config"."""

    key: str
    old_value: str
    value: str


class DeviceChange(Struct, kw_only=True):
    """Metadata of an event of type "device"."""

    action: Literal["added", "removed", "updated"]
    name: str
    config: dict[str, str]
