"""Config keys of storage pools and their volumes, by driver.

Source: LXD docs, "Storage drivers"; "Storage volume options".
"""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Mapping

from lxpy.errors import InvalidConfig
from lxpy.keys import (
    BOOL,
    CRON,
    EXPIRY,
    KEEP,
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
from lxpy.units import parse_bool

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


def _path_or_uuid(value: str) -> None:
    """Accept a path, or what stands for a block device: the UUID of its file system."""
    try:
        uuid.UUID(value)
    except ValueError:
        _path(value)


_LVM_NAME = matching(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]*", "a name such as LVM has them")


def _path_or_group(value: str) -> None:
    """Accept a path, or the name of a volume group."""
    if value.startswith("/"):
        _path(value)
    else:
        _LVM_NAME.check(value)


def _only_thin(value: str) -> None:
    if not parse_bool(value):
        raise InvalidConfig(
            "snapshots of volumes that are not thin slow down every write to them: leave it out"
        )


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
_VOLUME_KEYS = (
    ConfigKey("security.shared", BOOL, "false", description="Several instances write to this disk"),
    ConfigKey(
        "security.shifted",
        BOOL,
        "false",
        description="Instances share it (all volumes are: their ids are those of instances)",
    ),
    ConfigKey("security.unmapped", BOOL, "false", description="Ids are the host's"),
    ConfigKey("size", SIZE, description="Quota"),
    ConfigKey("snapshots.expiry", EXPIRY, description="When snapshots are deleted"),
    ConfigKey(
        "snapshots.keep", KEEP, description="How many scheduled snapshots stay: 7 or daily=7"
    ),
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
)
_VOLUME_TABLE = table(_VOLUME_KEYS, _TEXTS)

_BTRFS_POOL = table(
    (
        ConfigKey(
            "btrfs.mount_options",
            matching(r"[\w.,=:/@%+-]+", 'options such as "noatime,compress=zstd"'),
            "user_subvol_rm_allowed,discard=async",
            description="How its file system is mounted",
        ),
        ConfigKey("rsync.bwlimit", SIZE, description="Upper limit of a transfer to other hosts"),
        ConfigKey("rsync.compression", BOOL, "true", description="Compress transfers"),
        ConfigKey("size", SIZE, description="Size of its own file; it can grow"),
        ConfigKey(
            "source", Type("string", _path_or_uuid), description="A directory or a block device"
        ),
        ConfigKey("user.*", STRING, description="Free"),
        ConfigKey("volatile.initial_source", STRING, description="The source it was made with"),
        ConfigKey("volume.*", STRING, description="Default of an option of its volumes"),
    ),
    _TEXTS,
)

_MOUNT_OPTIONS = matching(r"[\w.,=:/@%+-]+", 'options such as "noatime,discard"')
_LVM_POOL = table(
    (
        ConfigKey("lvm.thinpool_metadata_size", SIZE, description="Metadata of a new thin pool"),
        ConfigKey("lvm.thinpool_name", _LVM_NAME, "LXDThinPool", description="Its thin pool"),
        ConfigKey(
            "lvm.use_thinpool",
            Type("bool", _only_thin),
            "true",
            description="Thin volumes are the only kind there is",
        ),
        ConfigKey("lvm.vg.force_reuse", BOOL, "false", description="Share a volume group in use"),
        ConfigKey("lvm.vg_name", _LVM_NAME, description="Its volume group"),
        ConfigKey("rsync.bwlimit", SIZE, description="Upper limit of a transfer to other hosts"),
        ConfigKey("rsync.compression", BOOL, "true", description="Compress transfers"),
        ConfigKey("size", SIZE, description="Size of its own file; it can grow"),
        ConfigKey(
            "source",
            Type("string", _path_or_group),
            description="A volume group or a block device",
        ),
        ConfigKey("user.*", STRING, description="Free"),
        ConfigKey("volatile.initial_source", STRING, description="The source it was made with"),
        ConfigKey("volume.*", STRING, description="Default of an option of its volumes"),
    ),
    _TEXTS,
)
_LVM_VOLUME = table(
    (
        *_VOLUME_KEYS,
        ConfigKey("block.filesystem", choice("ext4", "xfs"), "ext4", description="Its file system"),
        ConfigKey(
            "block.mount_options", _MOUNT_OPTIONS, "discard", description="How it is mounted"
        ),
    ),
    _TEXTS,
)
_ZFS_NAME = matching(r"[A-Za-z][\w.:-]*(/[\w.:-]+)*", 'a name such as "tank" or "tank/lxpy"')


def _path_or_dataset(value: str) -> None:
    """Accept a path, or the name of a zpool or dataset."""
    if value.startswith("/"):
        _path(value)
    else:
        _ZFS_NAME.check(value)


_ZFS_POOL = table(
    (
        ConfigKey("rsync.bwlimit", SIZE, description="Upper limit of a transfer to other hosts"),
        ConfigKey("rsync.compression", BOOL, "true", description="Compress transfers"),
        ConfigKey("size", SIZE, description="Size of its own file; it can grow"),
        ConfigKey(
            "source",
            Type("string", _path_or_dataset),
            description="A zpool, a dataset or a block device",
        ),
        ConfigKey("user.*", STRING, description="Free"),
        ConfigKey("volatile.initial_source", STRING, description="The source it was made with"),
        ConfigKey("volume.*", STRING, description="Default of an option of its volumes"),
        ConfigKey("zfs.export", BOOL, "true", description="Export its zpool at shutdown"),
        ConfigKey("zfs.pool_name", _ZFS_NAME, description="Its zpool or dataset"),
    ),
    _TEXTS,
)
_ZFS_VOLUME = table(
    (
        *_VOLUME_KEYS,
        ConfigKey("zfs.blocksize", SIZE, description="recordsize, or volblocksize of a disk"),
        ConfigKey(
            "zfs.reserve_space", BOOL, "false", description="Take the space of its size at once"
        ),
        ConfigKey("zfs.use_refquota", BOOL, "true", description="Do not count its snapshots"),
    ),
    _TEXTS,
)

POOL_KEYS: Mapping[str, Keys] = {
    "dir": _DIR_POOL,
    "btrfs": _BTRFS_POOL,
    "lvm": _LVM_POOL,
    "zfs": _ZFS_POOL,
}
VOLUME_KEYS: Mapping[str, Keys] = {
    "dir": _VOLUME_TABLE,
    "btrfs": _VOLUME_TABLE,
    "lvm": _LVM_VOLUME,
    "zfs": _ZFS_VOLUME,
}


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
