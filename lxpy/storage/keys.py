"""Config keys of storage pools and their volumes, by driver.

Source: LXD docs, "Storage drivers"; "Storage volume options".
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from lxpy.errors import InvalidConfig
from lxpy.keys import (
    BOOL,
    CRON,
    EXPIRY,
    SIZE,
    STRING,
    ConfigKey,
    Keys,
    Texts,
    Type,
    choice,
    matching,
    table,
)

_TEXTS = Texts(
    unknown='Invalid option "{key}"',
    invalid='Invalid value for option "{key}": {reason}',
)
_VOLUME = "volume."


def _path(value: str) -> None:
    if not value.startswith("/") or "\0" in value or "\n" in value:
        raise InvalidConfig(f'"{value}" is no absolute path')
    if posixpath.normpath(value) != value:
        raise InvalidConfig(f'write the path "{value}" as "{posixpath.normpath(value)}"')


_DIR_POOL = table(
    (
        ConfigKey(
            "dir.quota",
            choice("project", "loop", "none"),
            description="How sizes are held: by default as the file system can",
        ),
        ConfigKey("rsync.bwlimit", SIZE, description="Upper limit of a transfer to other hosts"),
        ConfigKey("rsync.compression", BOOL, "true", description="Compress transfers"),
        ConfigKey("source", Type("string", _path), description="The directory its files are in"),
        ConfigKey("user.*", STRING, description="Free"),
        ConfigKey("volatile.initial_source", STRING, description="The source it was made with"),
        ConfigKey("volume.*", STRING, description="Default of an option of its volumes"),
    ),
    _TEXTS,
)
_DIR_VOLUME = table(
    (
        ConfigKey("security.shifted", BOOL, "false", description="Instances share it"),
        ConfigKey("security.unmapped", BOOL, "false", description="Ids are the host's"),
        ConfigKey("size", SIZE, description="Quota"),
        ConfigKey("snapshots.expiry", EXPIRY, description="When snapshots are deleted"),
        ConfigKey(
            "snapshots.pattern",
            matching(r"[^/]*", 'a name without "/", such as "snap%d"'),
            "snap%d",
            description="Names of snapshots",
        ),
        ConfigKey("snapshots.schedule", CRON, description="When snapshots are made"),
        ConfigKey("user.*", STRING, description="Free"),
        ConfigKey("volatile.idmap.last", STRING, description="Ids of its files"),
        ConfigKey("volatile.idmap.next", STRING, description="Ids of its next use"),
    ),
    _TEXTS,
)

POOL_KEYS: Mapping[str, Keys] = {"dir": _DIR_POOL}
VOLUME_KEYS: Mapping[str, Keys] = {"dir": _DIR_VOLUME}


def validate_pool(driver: str, config: Mapping[str, str]) -> None:
    """Raise InvalidConfig at the first key or value that a pool cannot have."""
    POOL_KEYS[driver].validate(config)
    defaults = {
        key.removeprefix(_VOLUME): value for key, value in config.items() if key.startswith(_VOLUME)
    }
    try:
        validate_volume(driver, defaults)
    except InvalidConfig as error:
        raise InvalidConfig(f'Invalid default of volumes ("volume.*"): {error}') from error


def validate_volume(driver: str, config: Mapping[str, str]) -> None:
    """Raise InvalidConfig at the first key or value that a volume cannot have."""
    VOLUME_KEYS[driver].validate(config)
