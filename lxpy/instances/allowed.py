"""What a project allows its instances: limits on their sum, and restrictions on each.

Pure rules. Source: LXD docs, "Project configuration".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from lxpy.errors import Failed, Forbidden, InvalidConfig
from lxpy.instances import idmaps
from lxpy.instances.model import Instance
from lxpy.units import is_true, parse_size

Config = Mapping[str, str]

#: limits whose sum over all instances counts, and how one is read
_SUMS: dict[str, Callable[[str], int]] = {
    "limits.cpu": int,
    "limits.memory": parse_size,
    "limits.processes": int,
}
_LOW_LEVEL = frozenset(
    [
        "boot.host_shutdown_timeout",
        "linux.kernel_modules",
        "limits.memory.swap",
        "raw.apparmor",
        "raw.lxc",
        "raw.seccomp",
        "security.devlxd.images",
        "security.idmap.base",
        "security.idmap.size",
    ]
)
_LOW_LEVEL_FAMILIES = ("limits.kernel.", "linux.sysctl.")
_DEVICES = (
    "gpu", "infiniband", "pci", "proxy", "unix-block", "unix-char", "unix-hotplug", "usb"
)  # fmt: skip


def check(name: str, config: Config, instances: Sequence[Instance], volumes: int) -> None:
    """Raise when a project with that config could not have these instances.

    `volumes` are the bytes of its custom volumes. Raises Failed for a limit, Forbidden for a
    restriction.
    """
    _check_numbers(name, config, len(instances))
    for key in _SUMS:
        if config.get(key):
            _check_sum(name, key, config[key], instances)
    if config.get("limits.disk"):
        _check_disk(name, config["limits.disk"], instances, volumes)
    if is_true(config.get("restricted")):
        for each in instances:
            check_restrictions(config, each.name, each.expanded_config, each.expanded_devices)


def usage(key: str, instances: Iterable[Instance], volumes: int) -> int:
    """Return how much of a limit ("limits.memory") is used up; what has none is not counted."""
    if key == "limits.disk":
        return volumes + sum(filter(None, map(_root_size, instances)))
    if key in _SUMS:
        return sum(filter(None, (_amount(each, key) for each in instances)))
    return sum(1 for _ in instances)


def _check_numbers(name: str, config: Config, number: int) -> None:
    for key, what in (
        ("limits.instances", "instances"),
        ("limits.containers", 'instances of type "container"'),
    ):
        if config.get(key) and number > int(config[key]):
            raise Failed(f'Reached maximum number of {what} in project "{name}"')


def _check_sum(name: str, key: str, limit: str, instances: Iterable[Instance]) -> None:
    total = 0
    for each in instances:
        amount = _amount(each, key)
        if amount is None:
            raise Failed(
                f'Instance "{each.name}" in project "{name}" has no "{key}" config set, either '
                "directly or via a profile, or not as a number"
            )
        total += amount
    if total > _SUMS[key](limit):
        raise Failed(f'Reached maximum aggregate value "{limit}" for "{key}" in project "{name}"')


def _check_disk(name: str, limit: str, instances: Iterable[Instance], volumes: int) -> None:
    total = volumes
    for each in instances:
        size = _root_size(each)
        if size is None:
            raise Failed(
                f'Instance "{each.name}" in project "{name}" has no "size" config set on the root '
                "device either directly or via a profile"
            )
        total += size
    if total > parse_size(limit):
        raise Failed(
            f'Reached maximum aggregate value "{limit}" for "limits.disk" in project "{name}"'
        )


def _amount(instance: Instance, key: str) -> int | None:
    text = instance.expanded_config.get(key, "")
    try:
        return _SUMS[key](text) if text else None
    except (ValueError, InvalidConfig):
        return None  # a set of cpus, a share of the host's memory


def _root_size(instance: Instance) -> int | None:
    size = instance.root_device[1].get("size", "")
    return parse_size(size) if size else None


def check_restrictions(
    project: Config, name: str, config: Config, devices: Mapping[str, Config]
) -> None:
    """Raise Forbidden when a restricted project does not allow such keys or devices."""
    for key, value in config.items():
        if value and (reason := _forbidden_key(project, key, value)):
            raise Forbidden(f'Invalid value "{value}" for config "{key}" on "{name}": {reason}')
    for device, options in devices.items():
        if reason := _forbidden_device(project, options):
            raise Forbidden(f'Invalid device "{device}" on "{name}": {reason}')


def _allows(project: Config, key: str) -> bool:
    return project.get(f"restricted.{key}") == "allow"


def _forbidden_key(project: Config, key: str, value: str) -> str:
    if key == "security.nesting" and is_true(value) and not _allows(project, "containers.nesting"):
        return "Container nesting is forbidden"
    if key == "security.privileged" and is_true(value):
        allowed = _allows(project, "containers.privilege")
        return "" if allowed else "Privileged containers are forbidden"
    if key.startswith("security.syscalls.intercept."):
        allowed = not is_true(value) or _allows(project, "containers.interception")
        return "" if allowed else "Container syscall interception is forbidden"
    if key == "raw.idmap":
        return _forbidden_idmap(project, value)
    low = key in _LOW_LEVEL or key.startswith(_LOW_LEVEL_FAMILIES)
    if low and not _allows(project, "containers.lowlevel"):
        return "Use of low-level options is forbidden"
    return ""


def _forbidden_idmap(project: Config, value: str) -> str:
    for entry in idmaps.parse_raw(value):
        kind = "uid" if entry.kind == "u" else "gid"
        ranges = project.get(f"restricted.idmap.{kind}", "")
        if not _is_within(ranges, entry.outside, entry.size):
            return f"The host's {kind} {entry.outside} is not in restricted.idmap.{kind}"
    return ""


def _is_within(ranges: str, first: int, size: int) -> bool:
    for text in filter(None, (each.strip() for each in ranges.split(","))):
        low, _, high = text.partition("-")
        if int(low) <= first and first + size - 1 <= int(high or low):
            return True
    return False


def _forbidden_device(project: Config, options: Config) -> str:
    kind = options.get("type", "")
    if kind == "disk":
        return _forbidden_disk(project, options)
    if kind == "nic":
        return _forbidden_nic(project, options)
    if kind in _DEVICES and not _allows(project, f"devices.{kind}"):
        return f"{kind} devices are forbidden"
    return ""


def _forbidden_disk(project: Config, options: Config) -> str:
    if options.get("path") == "/":
        return ""
    mode = project.get("restricted.devices.disk", "managed")
    if mode == "block":
        return "Disk devices are forbidden"
    if options.get("pool"):
        return ""
    source = PurePosixPath(options.get("source", "/"))
    paths = [each.strip() for each in project.get("restricted.devices.disk.paths", "").split(",")]
    if mode != "allow":
        return "Attaching disks not backed by a pool is forbidden"
    if any(paths) and not any(each and source.is_relative_to(each) for each in paths):
        return f'Disk source path "{source}" not allowed'
    return ""


def _forbidden_nic(project: Config, options: Config) -> str:
    mode = project.get("restricted.devices.nic", "managed")
    if mode == "block":
        return "Network devices are forbidden"
    network = options.get("network", "")
    if mode == "managed" and not network:
        return "Only managed network devices are allowed"
    access = project.get("restricted.networks.access", "")
    names = [each.strip() for each in access.split(",") if each.strip()]
    used = network or options.get("parent", "")
    if names and used not in names:
        return f'Network "{used}" is not in restricted.networks.access'
    return ""
