"""What a project allows: limits on the sum of what is in it, and restrictions on each.

Pure rules. Source: LXD docs, "Project configuration".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import normpath
from pathlib import PurePosixPath

from lxpy.errors import Failed, Forbidden, InvalidConfig, LxpyError
from lxpy.instances import idmaps
from lxpy.instances.model import Instance, Profile
from lxpy.units import format_size, is_false, is_true, parse_size

Config = Mapping[str, str]

#: limits whose sum over all instances counts, and how one is read
_SUMS: dict[str, Callable[[str], int]] = {
    "limits.cpu": int,
    "limits.memory": parse_size,
    "limits.processes": int,
}
_DISK = "limits.disk"
_NUMBERS = {
    "limits.instances": "instances",
    "limits.containers": 'instances of type "container"',
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
_SAFE_VOLATILE = (
    "volatile.apply_template", "volatile.base_image", "volatile.last_state.power"
)  # fmt: skip
_SAFE_VOLATILE_ENDS = (".apply_quota", ".hwaddr")
_INTERCEPT = "security.syscalls.intercept."
_LOW_LEVEL_FAMILIES = ("limits.kernel.", "linux.sysctl.", "security.syscalls.")
_DEVICES = {
    "gpu": "GPU devices",
    "infiniband": "Infiniband devices",
    "pci": "PCI devices",
    "proxy": "Proxy devices",
    "unix-block": "Unix block devices",
    "unix-char": "Unix character devices",
    "unix-hotplug": "Unix hotplug devices",
    "usb": "USB devices",
}


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a project; `volumes` are the sizes of its custom volumes, "" for none."""

    project: str
    instances: Sequence[Instance]
    volumes: Mapping[str, str] = field(default_factory=dict)
    profiles: Sequence[Profile] = ()

    def label(self, thing: Instance | Profile) -> str:
        """Return how LXD names one of them."""
        kind = "container" if isinstance(thing, Instance) else "profile"
        return f'{kind} "{thing.name}" of project "{self.project}"'


def check(config: Config, contents: Contents) -> None:
    """Raise when a project with that config could not have these contents.

    Raises Failed for a limit, Forbidden for a restriction.
    """
    for key, what in _NUMBERS.items():
        if config.get(key) and len(contents.instances) > int(config[key]):
            raise Failed(f'Reached maximum number of {what} in project "{contents.project}"')
    for key in (*_SUMS, _DISK):
        if config.get(key) and total(key, contents) > parsed(key, config[key]):
            raise Failed(
                f'Reached maximum aggregate value "{config[key]}" for "{key}" in project '
                f'"{contents.project}"'
            )
    check_restrictions(config, contents)


def check_change(old: Config, new: Config, contents: Contents) -> None:
    """Raise as `check`, in the words for a project whose config changes."""
    name, number = contents.project, len(contents.instances)
    for key, what in _NUMBERS.items():
        if new.get(key) and number > int(new[key]):
            raise Failed(
                f'Can\'t change "{key}" in project "{name}": "{key}" is too low: there currently '
                f"are {number} {what} in project {name}"
            )
    for key in (*_SUMS, _DISK):
        if new.get(key) and (now := total(key, contents)) > parsed(key, new[key]):
            shown = format_size(now, 1) if key in (_DISK, "limits.memory") else str(now)
            raise Failed(f'"{key}" is too low: current total is "{shown}"')
    try:
        check_restrictions(new, contents)
    except Forbidden as error:
        changed = [each for each in (*old, *new) if old.get(each) != new.get(each)]
        key = next((each for each in changed if each.startswith("restricted")), "restricted")
        raise Forbidden(
            f'Conflict detected when changing "{key}" in project "{name}": {error}'
        ) from error


def parsed(key: str, limit: str) -> int:
    """Return a limit ("limits.memory") of a project as a number."""
    return _SUMS[key](limit) if key in _SUMS else parse_size(limit)


def total(key: str, contents: Contents) -> int:
    """Return how much of a limit is used up. Raises Failed naming what does not say its share."""
    name = contents.project
    if key != _DISK:
        return sum(_amount(name, each, key) for each in contents.instances)
    sizes = [_root_size(name, each) for each in contents.instances]
    for volume, size in contents.volumes.items():
        if not size:
            raise Failed(f'Custom volume "{volume}" in project "{name}" has no "size" config set')
        sizes.append(parse_size(size))
    return sum(sizes)


def usage(key: str, contents: Contents) -> int:
    """Return how much of a limit is used up; what does not say its share is not counted."""
    if key not in (*_SUMS, _DISK):
        return len(contents.instances)
    found = 0
    for each in contents.instances:
        found += _told(key, Contents(contents.project, [each]))
    for volume, size in contents.volumes.items():
        found += _told(key, Contents(contents.project, (), {volume: size}))
    return found


def _told(key: str, one: Contents) -> int:
    try:
        return total(key, one)
    except LxpyError:
        return 0


def _amount(project: str, instance: Instance, key: str) -> int:
    text = instance.expanded_config.get(key, "")
    if not text:
        raise Failed(
            f'Instance "{instance.name}" in project "{project}" has no "{key}" config, either '
            "directly or via a profile"
        )
    try:
        return _SUMS[key](text)
    except (ValueError, InvalidConfig):  # a set of cpus, a share of the host's memory
        raise Failed(
            f'Failed parsing "{key}" for instance "{instance.name}" in project "{project}": '
            f'"{text}" is no amount'
        ) from None


def _root_size(project: str, instance: Instance) -> int:
    size = instance.root_device[1].get("size", "")
    if not size:
        raise Failed(
            f'Instance "{instance.name}" in project "{project}" has no "size" config set on the '
            "root device either directly or via a profile"
        )
    return parse_size(size)


# Restrictions


def check_restrictions(project: Config, contents: Contents) -> None:
    """Raise Forbidden when a restricted project does not allow keys or devices."""
    if not is_true(project.get("restricted")):
        return
    for each in contents.instances:
        _check_one(project, contents.label(each), each.expanded_config, each.expanded_devices)
        isolated = each.expanded_config.get("security.idmap.isolated")
        privilege = project.get("restricted.containers.privilege")
        if privilege == "isolated" and (not isolated or is_false(isolated)):
            raise Forbidden(
                f'Invalid value "{isolated or ""}" for config "security.idmap.isolated" on '
                f"{contents.label(each)}: Non-isolated containers are forbidden"
            )
    for profile in contents.profiles:
        _check_one(project, contents.label(profile), profile.config, profile.devices)


def _check_one(project: Config, label: str, config: Config, devices: Mapping[str, Config]) -> None:
    for key, value in config.items():
        if value:
            _check_key(project, label, key, value)
    for device, options in devices.items():
        if reason := _forbidden_device(project, options):
            raise Forbidden(f'Invalid device "{device}" on {label}: {reason}')


def _allows(project: Config, key: str) -> bool:
    return project.get(f"restricted.{key}") == "allow"


def _check_key(project: Config, label: str, key: str, value: str) -> None:
    if reason := _forbidden_value(project, key, value):
        raise Forbidden(f'Invalid value "{value}" for config "{key}" on {label}: {reason}')
    if _allows(project, "containers.lowlevel") or key.startswith(_INTERCEPT):
        return
    if key == "raw.idmap":
        _check_idmap(project, label, value)
    elif key in _LOW_LEVEL or key.startswith(_LOW_LEVEL_FAMILIES):
        raise Forbidden(f'Use of low-level config "{key}" on {label} is forbidden')


def _forbidden_value(project: Config, key: str, value: str) -> str:
    if not is_true(value):
        return ""
    if key == "security.nesting" and not _allows(project, "containers.nesting"):
        return "Container nesting is forbidden"
    if key == "security.privileged" and not _allows(project, "containers.privilege"):
        return "Privileged containers are forbidden"
    if key.startswith(_INTERCEPT) and not _allows(project, "containers.interception"):
        return "Container syscall interception is forbidden"
    return ""


def _check_idmap(project: Config, label: str, value: str) -> None:
    for number, entry in enumerate(idmaps.parse_raw(value)):
        kind = "uid" if entry.kind == "u" else "gid"
        ranges = project.get(f"restricted.idmap.{kind}", "")
        if not _is_within(ranges, entry.outside, entry.size):
            raise Forbidden(
                f'Use of low-level "raw.idmap" element {number} on {label} is forbidden'
            )


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
        return f"{_DEVICES[kind]} are forbidden"
    return ""


def _forbidden_disk(project: Config, options: Config) -> str:
    if options.get("path") == "/":
        return ""
    mode = project.get("restricted.devices.disk", "managed")
    if mode == "block":
        return "Disk devices are forbidden"
    if options.get("pool"):
        return ""
    if mode != "allow":
        return "Attaching disks not backed by a pool is forbidden"
    if _parents(project) and not _parent(project, options):
        return f'Disk source path "{options.get("source", "/")}" not allowed'
    return ""


def _parents(project: Config) -> list[str]:
    paths = project.get("restricted.devices.disk.paths", "").split(",")
    return [each.strip() for each in paths if each.strip()]


def _parent(project: Config, options: Config) -> str:
    """Return which of the directories that a project allows a disk's source is in, or ""."""
    source = PurePosixPath(normpath(options.get("source", "/")))
    return next((each for each in _parents(project) if source.is_relative_to(each)), "")


def parent_of(project: Config, options: Config) -> str:
    """Return the directory that what a disk shows must not lead out of; "": it may be anywhere.

    Raises Forbidden for a disk that maps ids there: it could make files that belong to the host's
    root.
    """
    shows_host = options.get("type") == "disk" and not options.get("pool")
    if not shows_host or not is_true(project.get("restricted")):
        return ""
    parent = _parent(project, options)
    if parent and is_true(options.get("shift")):
        raise Forbidden('The "shift" property cannot be used with a restricted source path')
    return parent


def _forbidden_nic(project: Config, options: Config) -> str:
    mode = project.get("restricted.devices.nic", "managed")
    if mode == "block":
        return "Network devices are forbidden"
    network = options.get("network", "")
    if mode == "managed" and not network:
        return "Only managed network devices are allowed"
    used = network or options.get("parent", "")
    return "" if _is_accessible(project, used) else "Network not allowed in project"


def check_volatile(project: Config, label: str, old: Config, new: Config) -> None:
    """Raise Forbidden when a restricted project does not allow to set such volatile keys."""
    if not is_true(project.get("restricted")) or _allows(project, "containers.lowlevel"):
        return
    for key, value in new.items():
        safe = key in _SAFE_VOLATILE or key.endswith(_SAFE_VOLATILE_ENDS)
        if not key.startswith("volatile.") or safe or old.get(key) == value:
            continue
        word = "Changing" if key in old else "Setting"
        raise Forbidden(f'{word} "{key}" on {label} is forbidden')


def sees_network(project: Config, name: str, *, managed: bool) -> bool:
    """Tell whether a project with that config may know of a network."""
    mode = project.get("restricted.devices.nic", "managed")
    if not is_true(project.get("restricted")):
        return True
    if mode == "block" or (mode == "managed" and not managed):
        return False
    return _is_accessible(project, name)


def _is_accessible(project: Config, network: str) -> bool:
    access = project.get("restricted.networks.access", "")
    names = [each.strip() for each in access.split(",") if each.strip()]
    return not names or network in names
