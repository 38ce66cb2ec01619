"""Config keys of projects.

Source: LXD docs, "Project configuration".
"""

from __future__ import annotations

from collections.abc import Mapping

from lxpy.errors import InvalidConfig
from lxpy.keys import (
    BOOL,
    STRING,
    UINT,
    ConfigKey,
    Keys,
    Texts,
    Type,
    choice,
    listing,
    matching,
    table,
)
from lxpy.services.projects.scopes import Feature
from lxpy.units import is_true, parse_size

_TEXTS = Texts(unknown='Invalid project configuration key "{key}"')
_SIZE = Type("string", parse_size)
_ALLOW = choice("block", "allow")
_MANAGED = choice("block", "managed", "allow")
_PRIVILEGE = choice("unprivileged", "isolated", "allow")
_RANGES = listing(matching(r"\d+(-\d+)?", "ids or ranges of ids, such as 1000-1999"))


def _no_networks(value: str) -> None:
    if is_true(value):
        raise InvalidConfig(
            "networks of lxpy are bridges of the host, which all projects share (LXD has networks "
            "of projects with OVN only): leave features.networks off"
        )


#: what a new project has of its own unless it is told otherwise
DEFAULT_FEATURES = {Feature.IMAGES: "true", Feature.PROFILES: "true", Feature.VOLUMES: "true"}

PROJECT_KEYS: Keys = table(
    (
        ConfigKey(Feature.IMAGES, BOOL, description="Whether it has images and aliases of its own"),
        ConfigKey(Feature.PROFILES, BOOL, description="Whether it has profiles of its own"),
        ConfigKey(Feature.VOLUMES, BOOL, description="Whether it has custom volumes of its own"),
        ConfigKey(Feature.NETWORKS, Type("bool", _no_networks), "false",
                  description="Kept for LXD's clients: networks are shared by all projects"),
        *(ConfigKey(f"limits.{name}", UINT, description=f"How many {name} it may have")
          for name in ("containers", "instances", "networks", "virtual-machines")),
        ConfigKey("limits.cpu", UINT, description="Sum of limits.cpu of its instances"),
        ConfigKey("limits.disk", _SIZE, description="Sum of the sizes of its disks and volumes"),
        ConfigKey("limits.memory", _SIZE, description="Sum of limits.memory of its instances"),
        ConfigKey("limits.processes", UINT, description="Sum of limits.processes"),
        ConfigKey("restricted", BOOL, "false",
                  description="Whether what could harm others is blocked"),
        *(ConfigKey(f"restricted.{name}", _ALLOW, "block",
                    description="Whether that is allowed when the project is restricted")
          for name in (
              "backups", "snapshots", "cluster.target", "containers.interception",
              "containers.lowlevel", "containers.nesting", "virtual-machines.lowlevel",
              "devices.gpu", "devices.infiniband", "devices.pci", "devices.proxy",
              "devices.unix-block", "devices.unix-char", "devices.unix-hotplug", "devices.usb")),
        ConfigKey("restricted.containers.privilege", _PRIVILEGE, "unprivileged",
                  description="Which containers it may have when it is restricted"),
        ConfigKey("restricted.devices.disk", _MANAGED, "managed",
                  description="Which disks it may have when it is restricted"),
        ConfigKey("restricted.devices.disk.paths", STRING,
                  description="Directories of the host that its disks may show"),
        ConfigKey("restricted.devices.nic", _MANAGED, "managed",
                  description="Which nics it may have when it is restricted"),
        ConfigKey("restricted.cluster.groups", STRING, description="Kept for LXD's clients"),
        ConfigKey("restricted.idmap.uid", _RANGES, description="User ids that raw.idmap may name"),
        ConfigKey("restricted.idmap.gid", _RANGES, description="Group ids that raw.idmap may name"),
        ConfigKey("restricted.networks.access", STRING,
                  description="The only networks its nics may be on"),
        *(ConfigKey(f"restricted.networks.{name}", STRING, description="Kept for LXD's clients")
          for name in ("subnets", "uplinks", "zones")),
        ConfigKey("backups.compression_algorithm", STRING, description="Compression of backups"),
        ConfigKey("images.auto_update_cached", BOOL, description="As the server's key"),
        ConfigKey("images.auto_update_interval", UINT, description="As the server's key"),
        ConfigKey("images.compression_algorithm", STRING, description="As the server's key"),
        ConfigKey("images.default_architecture", STRING, description="As the server's key"),
        ConfigKey("images.remote_cache_expiry", UINT, description="As the server's key"),
        ConfigKey("user.*", STRING, description="Free"),
    ),
    _TEXTS,
)  # fmt: skip


def checked(config: Mapping[str, object]) -> dict[str, str]:
    """Return a project's config without what is unset. Raises InvalidConfig."""
    found: dict[str, str] = {}
    for key, value in config.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        PROJECT_KEYS.check(key, text)
        if text:
            found[key] = text
    return found
