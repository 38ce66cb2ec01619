"""Disks: the root disk, host paths and volumes shown inside."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from lxpy.errors import Failed, InvalidConfig, NotSupported
from lxpy.instances.devices.base import Kind, Options, options
from lxpy.instances.devices.unix import HostNode
from lxpy.keys import BOOL, SIZE, STRING, UINT, ConfigKey, Type, choice
from lxpy.runtime.spec import Disk, IoLimit, Node
from lxpy.units import is_false, is_true, parse_size

#: what the runtime acts on, and what says what is anyway so
MOUNT_OPTIONS = frozenset(
    ("", "ro", "rw", "nosuid", "suid", "noexec", "exec", "nodev", "noatime", "relatime", "bind",
     "rbind", "defaults")
)  # fmt: skip


def _rate(value: str) -> None:
    number = value.removesuffix("iops")
    if number == value:
        parse_size(value)
    elif not number.isascii() or not number.isdigit():
        raise InvalidConfig(f'Invalid value: {value}: use a size ("10MB") or "100iops"')


def _path(value: str) -> None:
    if "\0" in value or ".." in value.split("/"):
        raise InvalidConfig(f'Invalid value: {value}: a path inside the instance, without ".."')
    if value != "/" and normal(value) == "/":
        raise InvalidConfig(f'Invalid value: {value}: write "/" for the root disk')


def _mount_options(value: str) -> None:
    for option in value.split(","):
        if option.strip() not in MOUNT_OPTIONS:
            raise InvalidConfig(
                f'Invalid value: {value}: "{option}" is none of ro, nosuid, noexec, nodev, noatime'
            )


_RATE = Type("string", _rate)
_PROPAGATION = choice(
    "private", "shared", "slave", "unbindable", "rshared", "rslave", "runbindable", "rprivate"
)

KEYS = options(
    ("boot.priority", UINT),
    ("ceph.cluster_name", STRING, "ceph"),
    ("ceph.user_name", STRING, "admin"),
    ConfigKey("initial.*", STRING),
    ("io.bus", STRING),
    ("io.cache", STRING),
    ("io.threads", UINT),
    ("limits.max", _RATE),
    ("limits.read", _RATE),
    ("limits.write", _RATE),
    ("path", Type("string", _path)),
    ("pool", STRING),
    ("propagation", _PROPAGATION, "private"),
    ("raw.mount.options", Type("string", _mount_options)),
    ("readonly", BOOL, "false"),
    ("recursive", BOOL, "false"),
    ("required", BOOL, "true"),
    ("shift", BOOL, "false"),
    ("size", SIZE),
    ("size.state", SIZE),
    ("source", STRING),
    ("source.snapshot", STRING),
    ("source.type", choice("custom"), "custom"),
)


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """Where a custom volume lies on the host, and whether its files' ids are the instance's.

    `node` is the host's device of a volume that is shown as one; then `path` says nothing.
    """

    path: str = ""
    shift: bool = True
    node: HostNode | None = None


def normal(path: str) -> str:
    """Return a path inside the instance with one leading slash and nothing superfluous."""
    return posixpath.normpath("/" + path.lstrip("/"))


def is_root(given: Options) -> bool:
    """Whether a device is a root disk."""
    return given.get("type") == "disk" and given.get("path") == "/"


def volume(given: Options) -> tuple[str, str] | None:
    """Return pool and volume of a disk that shows a custom volume; None for any other device."""
    if given.get("type") == "disk" and given.get("pool") and not is_root(given):
        return given["pool"], given.get("source", "")
    return None


def host_source(given: Options) -> str:
    """Return the path of the host that a disk shows; "" for any other device."""
    if given.get("type") == "disk" and not given.get("pool"):
        return given.get("source", "")
    return ""


def is_readonly(given: Options) -> bool:
    """Whether an instance may not write to a disk."""
    return is_true(given.get("readonly")) or "ro" in _raw_options(given)


def may_be_missing(given: Options) -> bool:
    """Whether an instance starts without a disk whose source is missing."""
    return is_false(given.get("required"))


def device_path(given: Options) -> str | None:
    """Return the path of the device that a volume is shown as, None if it is to be a directory."""
    path = normal(given.get("path", ""))
    return path if volume(given) is not None and path.startswith("/dev/") else None


def check_content(device: str, given: Options, content: str) -> None:
    """Raise InvalidConfig when a volume of this content cannot be shown as the disk wants it."""
    if content == "block" and device_path(given) is None:
        raise InvalidConfig(
            f'Device validation failed for "{device}": volume "{given["source"]}" has content type '
            '"block", containers see it as a device: set path to one below "/dev/", such as '
            f'"/dev/{given["source"]}"'
        )


def _raw_options(given: Options) -> list[str]:
    return [word.strip() for word in given.get("raw.mount.options", "").split(",")]


def _check(given: Options) -> None:
    source, pool = given.get("source", ""), given.get("pool", "")
    path = given.get("path", "")
    for key in given:
        if key.startswith("initial.") and given[key]:
            raise NotSupported(
                f'Invalid value for device option "{key}": set it on the volume once it is made'
            )
    if not source and not path:
        raise InvalidConfig('Disk entry is missing the required "source" or "path" property')
    if path == "/":
        if source:
            raise InvalidConfig(
                'Root disk entry may not have a "source" property set: its pool holds the rootfs'
            )
        if not pool:
            raise InvalidConfig('Root disk entry must have a "pool" property set')
        return
    if not path or not source:
        missing = "source" if path else "path"
        raise InvalidConfig(f'Disk entry is missing the required "{missing}" property')
    if given.get("size"):
        raise InvalidConfig("Only the root disk may have a size quota: set size on the volume")
    if given.get("size.state"):
        raise InvalidConfig("Only the root disk may have a migration size quota")
    if is_true(given.get("recursive")) and is_true(given.get("readonly")):
        raise InvalidConfig(
            "Recursive read-only bind-mounts aren't currently supported by the kernel: "
            "unset recursive or readonly"
        )
    _check_source(source, pool)


def _check_source(source: str, pool: str) -> None:
    scheme = source.partition(":")[0]
    if not pool and scheme in ("ceph", "cephfs", "cloud-init", "agent") and ":" in source:
        raise NotSupported(f'Disk source "{source}": containers of lxpy have no {scheme} disks')
    if pool and source.startswith("/"):
        raise InvalidConfig(
            f'Storage volumes cannot be specified as absolute paths: "{source}" is a volume of '
            f'pool "{pool}"; unset pool to show a directory of the host'
        )
    if not pool and not source.startswith("/"):
        raise InvalidConfig(
            f'Source path must be absolute for local sources: "{source}" is none; set pool to show '
            "a storage volume"
        )
    if "\0" in source:
        raise InvalidConfig("Invalid source path: it contains a NUL character")


DISK = Kind(
    "disk",
    KEYS,
    check=_check,
    later=("source.snapshot",),
)


def spreads(given: Options) -> bool:
    """Whether mounts below a disk come and go with the host's, which no dump can save."""
    kind = given.get("propagation", "").removeprefix("r")
    return given.get("type") == "disk" and kind not in ("", "private")


def plan(device: str, given: Options, custom: VolumeSource | None, beneath: str = "") -> Disk:
    """Return the mount of a disk that is not the root disk.

    `custom` is where the volume of a disk with a pool lies; a path of the host stays `beneath` a
    directory. Raises Failed when the volume is missing.
    """
    if volume(given) is not None and custom is None:
        raise missing_source(device, f"{given['pool']}/{given.get('source', '')}")
    return Disk(
        source=custom.path if custom else given["source"],
        target=normal(given["path"]),
        readonly=is_readonly(given),
        recursive=is_true(given.get("recursive")),
        shift=is_true(given.get("shift")) or (custom is not None and custom.shift),
        required=not may_be_missing(given),
        raw_options=given.get("raw.mount.options", ""),
        propagation=given.get("propagation", ""),
        beneath="" if custom else beneath,
    )


def plan_node(device: str, given: Options, node: HostNode) -> Node:
    """Return the device node of a volume that is shown as one: the instance's root may use it."""
    return Node(normal(given["path"]), node.kind, node.major, node.minor, device=device)


_LIMITS = ("limits.read", "limits.write", "limits.max")
#: options of a disk that change while it is mounted
LIVE = frozenset((*_LIMITS, "boot.priority", "size.state"))


def is_limited(given: Options) -> bool:
    """Whether a device is a disk with limits."""
    return given.get("type") == "disk" and any(given.get(key) for key in _LIMITS)


def io_limits(found: Iterable[tuple[tuple[int, int], Options]]) -> tuple[IoLimit, ...]:
    """Return the limits of block devices; of several disks on one device the least counts."""
    least: dict[tuple[int, int], dict[str, int]] = {}
    for device, given in found:
        limits = least.setdefault(device, {})
        for kind in ("read", "write"):
            text = given.get(f"limits.{kind}") or given.get("limits.max") or ""
            if text:
                ops = text.endswith("iops")
                name = f"{kind}_{'ops' if ops else 'bytes'}"
                value = int(text.removesuffix("iops")) if ops else parse_size(text)
                limits[name] = min(value, limits.get(name, value))
    return tuple(IoLimit(*device, **limits) for device, limits in least.items())


def missing_source(device: str, source: str) -> Failed:
    """Return the error of a disk whose source does not exist."""
    return Failed(
        f'Failed add validation for device "{device}": Missing source path "{source}" for disk '
        f'"{device}": create it, or set required=false'
    )


def check_together(disks: Iterable[tuple[str, Options]]) -> None:
    """Raise InvalidConfig when two disks of one instance have the same path."""
    seen: dict[str, str] = {}
    for device, given in disks:
        path = normal(given.get("path", ""))
        if path in seen:
            raise InvalidConfig(
                f'Device validation failed for "{device}": More than one disk device uses the '
                f'same path "{path}": "{seen[path]}" does too'
            )
        seen[path] = device
