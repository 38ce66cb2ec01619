"""Instance, Snapshot and Profile: frozen values, as the database holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from lxpy.errors import InvalidConfig
from lxpy.instances.expand import expand_config, expand_devices
from lxpy.units import is_true

Config = Mapping[str, str]
Device = Mapping[str, str]
Devices = Mapping[str, Device]

DEFAULT_PROJECT = "default"


def unique_name(project: str, name: str) -> str:
    """Return the instance's name on the host: "c1", outside of project "default" "project_c1".

    Neither a project nor an instance has "_" in its name.
    """
    return name if project == DEFAULT_PROJECT else f"{project}_{name}"


def split_unique_name(unique: str) -> tuple[str, str]:
    """Return project and name of what `unique_name` made."""
    project, underscore, name = unique.partition("_")
    return (project, name) if underscore else (DEFAULT_PROJECT, unique)


@dataclass(frozen=True, slots=True)
class Profile:
    """Config and devices that instances share."""

    name: str
    config: Config = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True, slots=True)
class RootVolume:
    """What is written on the volume of an instance: options `user.*`, and a description."""

    config: Config = field(default_factory=dict)
    description: str = ""

    @staticmethod
    def takes(key: str) -> bool:
        """Tell whether an option is the owner's to write."""
        return key.startswith("user.")

    @staticmethod
    def of(config: Config, description: str) -> RootVolume:
        """Return what is written on a volume that has other options, too."""
        own = {key: value for key, value in config.items() if RootVolume.takes(key)}
        return RootVolume(own, description)

    @staticmethod
    def read(stored: Mapping[str, Any]) -> RootVolume:
        """Return what `stored` has made."""
        return RootVolume(stored.get("config", {}), stored.get("description", ""))

    def stored(self) -> dict[str, Any]:
        """Return it as the database has it: {} when nothing is written."""
        found = {"config": dict(self.config), "description": self.description}
        return {key: value for key, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance: its own config and devices, and what they come to with its profiles."""

    id: int
    project: str
    name: str
    architecture: str
    config: Config
    devices: Devices
    expanded_config: Config
    expanded_devices: Devices
    profiles: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None = None
    ephemeral: bool = False
    stateful: bool = False
    description: str = ""
    volume: RootVolume = RootVolume()

    @property
    def unique_name(self) -> str:
        """The name of its cgroup, logs and runtime: "c1" or "project_c1"."""
        return unique_name(self.project, self.name)

    @property
    def privileged(self) -> bool:
        """Whether it runs without a user namespace."""
        return is_true(self.expanded_config.get("security.privileged"))

    @property
    def nesting(self) -> bool:
        """Whether containers may run inside."""
        return is_true(self.expanded_config.get("security.nesting"))

    @property
    def root_device(self) -> tuple[str, Device]:
        """The name and options of its root disk. Raises InvalidConfig when there is none."""
        return root_device(self.expanded_devices)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return the truth of an expanded config key, `default` when it is not set."""
        value = self.expanded_config.get(key)
        return is_true(value) if value else default

    def number(self, key: str, default: int = 0) -> int:
        """Return an expanded config key of type integer, `default` when it is not set."""
        value = self.expanded_config.get(key)
        return int(value) if value else default

    def changed(
        self,
        profiles: Sequence[Profile],
        *,
        config: Config | None = None,
        devices: Devices | None = None,
    ) -> Instance:
        """Return the instance with other profiles, config or devices, expanded again."""
        own_config = self.config if config is None else config
        own_devices = self.devices if devices is None else devices
        return replace(
            self,
            config=own_config,
            devices=own_devices,
            profiles=tuple(profile.name for profile in profiles),
            expanded_config=expand_config([each.config for each in profiles], own_config),
            expanded_devices=expand_devices([each.devices for each in profiles], own_devices),
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An instance as it was. `inherited_*` is what its profiles gave it then, beside its own.

    `frozen_ms` is how long it stood still for it, None when it did not run; `memory_bytes` what its
    memory takes on disk, None unless that was saved, too.
    """

    name: str
    created_at: datetime
    config: Config
    devices: Devices
    profiles: tuple[str, ...]
    inherited_config: Config = field(default_factory=dict)
    inherited_devices: Devices = field(default_factory=dict)
    id: int = 0
    instance_id: int = 0
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    ephemeral: bool = False
    stateful: bool = False
    description: str = ""
    scheduled: bool = False
    frozen_ms: float | None = None
    memory_bytes: int | None = None
    volume: RootVolume = RootVolume()

    @property
    def expanded_config(self) -> dict[str, str]:
        """Its config as it was with that of its profiles."""
        return {**self.inherited_config, **self.config}

    @property
    def expanded_devices(self) -> dict[str, Device]:
        """Its devices as they were with those of its profiles."""
        return {**self.inherited_devices, **self.devices}


def snapshot_of(instance: Instance, name: str, created_at: datetime) -> Snapshot:
    """Return a snapshot of an instance as it is."""
    config, devices = instance.expanded_config, instance.expanded_devices
    return Snapshot(
        name=name,
        created_at=created_at,
        config=instance.config,
        devices=instance.devices,
        profiles=instance.profiles,
        inherited_config={k: v for k, v in config.items() if k not in instance.config},
        inherited_devices={k: v for k, v in devices.items() if k not in instance.devices},
        instance_id=instance.id,
        last_used_at=instance.last_used_at,
        ephemeral=instance.ephemeral,
        stateful=False,
        description=instance.description,
        volume=instance.volume,
    )


def root_device(devices: Devices) -> tuple[str, Device]:
    """Return the name and options of the root disk among expanded devices.

    Raises InvalidConfig unless there is exactly one.
    """
    found = [
        (name, device)
        for name, device in devices.items()
        if device.get("path") == "/" and device.get("type") == "disk"
    ]
    if not found:
        raise InvalidConfig(
            "No root device could be found: add a disk device with path=/ and a pool to the "
            "instance or one of its profiles"
        )
    if len(found) > 1:
        names = ", ".join(f'"{name}"' for name, _ in found)
        raise InvalidConfig(f"More than one root device: {names}; remove all but one")
    return found[0]
