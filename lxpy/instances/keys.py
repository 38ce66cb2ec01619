"""The table of instance config keys: what validation, live update, help and documents read.

Source: LXD docs, "Instance options".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

import yaml

from lxpy.errors import InvalidConfig, NotSupported
from lxpy.instances import idmaps, rawlxc, syscalls
from lxpy.instances.allowance import parse_allowance
from lxpy.instances.rlimits import NAMES as RLIMITS
from lxpy.instances.rlimits import parse_rlimit
from lxpy.keys import (
    BOOL,
    CPU_LIMIT,
    CRON,
    EXPIRY,
    HWADDR,
    INT,
    KEEP,
    MEMORY,
    STRING,
    UINT,
    ConfigKey,
    Keys,
    Type,
    choice,
    integer,
    listing,
    matching,
    table,
)
from lxpy.units import is_false, is_true, parse_size

#: whether an instance has told that it is ready, since it was booted
READY = "volatile.last_state.ready"

_SYSCTL = re.compile(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_:@-]+)+")
_ENVIRONMENT = re.compile(r"[^=\0\s]+")


def _limit_priority(value: str) -> None:
    if not value.isascii() or not value.isdigit() or len(value) > 2 or int(value) > 10:
        raise InvalidConfig(f'Invalid value for a limit "{value}". Must be between 0 and 10')


def _cloud_config(value: str) -> None:
    first = value.partition("\n")[0].strip()
    if first not in ("#cloud-config", "## template: jinja"):
        return  # a script, or another of cloud-init's formats
    try:
        yaml.load(value, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise InvalidConfig(f"Invalid value: it is not YAML: {problem}") from error


def _refused(reason: str, type: str = "bool") -> Type:
    """A key that must stay as it is by default."""

    def check(value: str) -> None:
        if not is_false(value):
            raise InvalidConfig(reason)

    return Type(type, check)


_PRIORITY = Type("integer", _limit_priority)
_CLOUD_CONFIG = Type("string", _cloud_config)
_DENIED = Type("string", syscalls.check_denied)
_ALLOWED = Type("string", syscalls.check_allowed)
_POLICY = Type("blob", syscalls.check_policy)
_BPF = _refused(
    "Calls of bpf are not carried out for instances: a BPF program runs in the host's kernel, and "
    "what it does cannot be checked"
)
_MOUNT = _refused(
    "Calls of mount are not carried out for instances: the host's kernel would read a file system "
    "of the guest's making: mount it by FUSE inside, or add it as a disk"
)
_APPARMOR = _refused(
    "Instances have no AppArmor profile that lines could be added to: confine it by "
    "security.syscalls.*, raw.seccomp or lxc.cap.drop in raw.lxc", "blob"
)  # fmt: skip
_ALLOWANCE = Type("string", parse_allowance)
_RLIMIT = Type("string", parse_rlimit)
_IDMAP_RAW = Type("blob", idmaps.parse_raw)
_IDMAP_JSON = Type("string", idmaps.from_json)
_POWER = choice("RUNNING", "STOPPED")
_UNPRIVILEGED_ONLY = ("LXPY_UNPRIVILEGED_ONLY", "LXD_UNPRIVILEGED_ONLY")
_TRIGGERS = choice("create", "copy", "rename")
_PATTERN = matching(r"[^/]*", 'a name without "/", such as "snap%d"')

_BOOT = (
    ConfigKey("boot.autostart", BOOL, description="Start with the daemon; unset: as it was left"),
    ConfigKey("boot.autostart.delay", UINT, "0", description="Seconds to wait after its start"),
    ConfigKey("boot.autostart.priority", INT, "0", description="Higher ones start first"),
    ConfigKey(
        "boot.host_shutdown_timeout", UINT, "30", live=True,
        description="Seconds to wait for a clean stop when the host goes down",
    ),
    ConfigKey("boot.stop.priority", INT, "0", description="Higher ones stop first"),
)  # fmt: skip
_CLOUD_INIT = (
    ConfigKey("cloud-init.network-config", STRING, description="Network config of cloud-init"),
    ConfigKey("cloud-init.user-data", _CLOUD_CONFIG, description="User data of cloud-init"),
    ConfigKey("cloud-init.vendor-data", _CLOUD_CONFIG, description="Vendor data of cloud-init"),
)
_LIMITS = (
    ConfigKey("limits.cpu", CPU_LIMIT, live=True, description='Number of cpus, or a set: "0-3,5"'),
    ConfigKey(
        "limits.cpu.allowance", _ALLOWANCE, "100%", live=True,
        description='A share ("50%") when cpus are scarce, or a hard quota ("25ms/100ms")',
    ),
    ConfigKey("limits.cpu.priority", _PRIORITY, "10", live=True,
              description="Weight among instances of the same share, 0 to 10"),
    ConfigKey("limits.disk.priority", _PRIORITY, "5", live=True,
              description="Weight of its reads and writes, 0 to 10"),
    *(ConfigKey(f"limits.hugepages.{size}", Type("string", parse_size), live=True,
                description=f"Limit of {size} huge pages")
      for size in ("64KB", "1MB", "2MB", "1GB")),
    *(ConfigKey(f"limits.kernel.{name}", _RLIMIT,
                description=f"Resource limit {name} of init: SOFT:HARD")
      for name in sorted(RLIMITS)),
    ConfigKey("limits.memory", MEMORY, live=True,
              description='Memory it can use: "512MiB", or a share of the host: "50%"'),
    ConfigKey("limits.memory.enforce", choice("hard", "soft"), "hard", live=True,
              description="soft: may use more while the host has it to spare"),
    ConfigKey("limits.memory.swap", BOOL, "true", live=True,
              description="Whether its memory may be swapped out"),
    ConfigKey("limits.memory.swap.priority", _PRIORITY, "10", live=True,
              description="The higher, the less likely it is swapped out, 0 to 10"),
    ConfigKey("limits.network.priority", _PRIORITY, "0", live=True,
              description="Priority of its packets, 0 to 10"),
    ConfigKey("limits.processes", integer(1), live=True, description="Number of processes"),
)  # fmt: skip
_SECURITY = (
    ConfigKey("security.devlxd", BOOL, "true", live=True, description="Show /dev/lxd inside"),
    ConfigKey("security.devlxd.images", BOOL, "false", live=True,
              description="Let it fetch images through /dev/lxd"),
    ConfigKey("security.idmap.base", UINT, description="First host id, instead of a free range"),
    ConfigKey("security.idmap.isolated", BOOL, "true",
              description="Kept for LXD's clients: each instance has its own ids"),
    ConfigKey("security.idmap.size", integer(1, 1 << 31),
              description="Number of ids; 65536, with nesting 1048576"),
    ConfigKey("security.live", BOOL, "true",
              description="Prepare /run so that the instance can be checkpointed"),
    ConfigKey("security.nesting", BOOL, "false",
              description="Let containers run inside"),
    ConfigKey("security.privileged", BOOL, "false",
              description="Run without a user namespace: its root is the host's root"),
    ConfigKey("security.protection.delete", BOOL, "false", live=True,
              description="Refuse to delete it"),
    ConfigKey("security.protection.start", BOOL, "false", live=True,
              description="Refuse to start it"),
    ConfigKey("security.protection.shift", BOOL, "false", live=True,
              description="Kept for LXD's clients: files are never shifted"),
    ConfigKey("security.syscalls.allow", _ALLOWED, description="The only system calls it may use"),
    ConfigKey("security.syscalls.deny", _DENIED,
              description="System calls it may not use, one on a line"),
    ConfigKey("security.syscalls.deny_compat", BOOL, "false",
              description="Refuse system calls of 32 bit programs"),
    ConfigKey("security.syscalls.deny_default", BOOL, "true",
              description="Refuse what no container needs (loading modules, kexec)"),
    ConfigKey("security.syscalls.blacklist", _DENIED, description="Old security.syscalls.deny"),
    ConfigKey("security.syscalls.blacklist_compat", BOOL, "false",
              description="Old name of security.syscalls.deny_compat"),
    ConfigKey("security.syscalls.blacklist_default", BOOL, "true",
              description="Old name of security.syscalls.deny_default"),
    ConfigKey("security.syscalls.whitelist", _ALLOWED, description="Old security.syscalls.allow"),
    *(ConfigKey(f"security.syscalls.intercept.{name}", BOOL, "false",
                description=f"Carry out {name} for it where that is safe")
      for name in ("mknod", "sched_setscheduler", "setxattr", "sysinfo")),
    *(ConfigKey(f"security.syscalls.intercept.{name}", BOOL, "false",
                description=f"Changes nothing without {what}, which are refused")
      for name, what in (("bpf", "bpf.devices"), ("mount", "mount.allowed and mount.fuse"))),
    ConfigKey("security.syscalls.intercept.bpf.devices", _BPF, "false",
              description="Refused: a BPF program runs in the host's kernel"),
    ConfigKey("security.syscalls.intercept.mount.shift", _MOUNT, "false",
              description="Refused: the host's kernel would read a guest's file system"),
    *(ConfigKey(f"security.syscalls.intercept.{name}", _MOUNT,
                description="Refused: the host's kernel would read a guest's file system")
      for name in ("mount.allowed", "mount.fuse")),
)  # fmt: skip
_OTHERS = (
    ConfigKey("cluster.evacuate", choice("auto", "migrate", "live-migrate", "stop"), "auto",
              description="What happens when its host is evacuated"),
    ConfigKey("environment.*", STRING, live=True, description="Environment of init and commands"),
    ConfigKey("image.*", STRING, description="Properties of the image it was made from"),
    ConfigKey("linux.kernel_modules", listing(matching(r"[A-Za-z0-9_-]+", "names of modules")),
              live=True, description="Kernel modules to load on the host before its start"),
    ConfigKey("linux.sysctl.*", STRING, description="Kernel settings inside"),
    ConfigKey("migration.incremental.memory", BOOL, "true", live=True,
              description="Send memory ahead of a live move, where the kernel tracks its changes"),
    ConfigKey("migration.incremental.memory.goal", integer(0, 100), "70", live=True,
              description="Percent of it that are there when the instance stops for the move"),
    ConfigKey("migration.incremental.memory.iterations", UINT, "10", live=True,
              description="How often changes of memory are sent ahead at the most"),
    ConfigKey("nvidia.driver.capabilities", STRING, "compute,utility",
              description="What the driver is for"),
    ConfigKey("nvidia.require.cuda", STRING, description="Version of CUDA it needs"),
    ConfigKey("nvidia.require.driver", STRING, description="Version of the driver it needs"),
    ConfigKey("nvidia.runtime", BOOL, "false", description="Show the host's NVIDIA libraries"),
    ConfigKey("raw.apparmor", _APPARMOR, live=True, description="Refused: there is no profile"),
    ConfigKey("raw.idmap", _IDMAP_RAW, description='Lines "uid|gid|both HOST INSIDE"'),
    ConfigKey("raw.lxc", Type("blob", rawlxc.check), description="Settings in liblxc's words"),
    ConfigKey("raw.seccomp", _POLICY, description="Seccomp policy"),
    ConfigKey("snapshots.expiry", EXPIRY, live=True, description='When snapshots expire: "2w 3d"'),
    ConfigKey("snapshots.keep", KEEP, live=True,
              description='Scheduled snapshots to keep: "7", or "hourly=24,daily=7,weekly=4"'),
    ConfigKey("snapshots.pattern", _PATTERN, "snap%d", live=True,
              description='Names: "snap%d", or a template that sees creation_date'),
    ConfigKey("snapshots.schedule", CRON, live=True,
              description='When to make snapshots: "@daily", "30 4 * * 1-5", or several: "A, B"'),
    ConfigKey("snapshots.schedule.stateful", BOOL, "false", live=True,
              description="Scheduled snapshots have the memory of those that run"),
    ConfigKey("snapshots.schedule.stopped", BOOL, "false", live=True,
              description="Make scheduled snapshots of a stopped instance too"),
    ConfigKey("user.*", STRING, description="Yours"),
)  # fmt: skip
_VOLATILE = (
    *(ConfigKey(f"volatile.*.{name}", STRING)
      for name in ("apply_quota", "bus", "ceph_rbd", "devlxd.owner", "driver", "host_name", "id",
                   "last_state.created", "last_state.mtu", "last_state.vdpa.name",
                   "last_state.vf.hwaddr", "last_state.vf.id", "last_state.vf.parent",
                   "last_state.vf.spoofcheck", "last_state.vf.vlan", "mtu", "name", "uuid",
                   "vlan", "spoofcheck", "created")),
    ConfigKey("volatile.*.hwaddr", HWADDR, description="Address of a network device"),
    ConfigKey("volatile.*.last_state.hwaddr", HWADDR),
    *(ConfigKey(f"volatile.{name}", STRING)
      for name in ("apply_nvram", "apply_quota", "attached_volumes", "base_image", "bus.mode",
                   "cloud-init.instance-id", "cluster.group", "evacuate.origin", "uuid",
                   "uuid.generation", "vsock_id")),
    ConfigKey("volatile.apply_template", _TRIGGERS, description="Templates to apply at its start"),
    ConfigKey("volatile.idmap.base", UINT, description="First host id of its range"),
    ConfigKey("volatile.idmap.current", _IDMAP_JSON, description="Ids it runs with"),
    ConfigKey("volatile.idmap.next", _IDMAP_JSON, description="Ids of its next start"),
    ConfigKey("volatile.last_state.exit", STRING, description="Why it ended, unless asked to"),
    ConfigKey("volatile.last_state.idmap", _IDMAP_JSON, description="Ids of its files on disk"),
    ConfigKey("volatile.last_state.power", _POWER, description="What it was when last seen"),
    ConfigKey(READY, BOOL, description="Whether it said it was ready"),
)  # fmt: skip

INSTANCE_KEYS: Keys = table(
    ConfigKey(each.name, each.type, each.default, each.live, each.description, "container")
    for each in (*_BOOT, *_CLOUD_INIT, *_LIMITS, *_SECURITY, *_OTHERS, *_VOLATILE)
)


def validate(config: Mapping[str, str], *, profile: bool = False) -> None:
    """Raise InvalidConfig at the first key or value that an instance (or profile) cannot have."""
    INSTANCE_KEYS.validate(config)
    for key, value in config.items():
        _check_name(key)
        if profile and value and key.startswith(("volatile.", "image.")):
            raise InvalidConfig(
                f"{key.partition('.')[0].capitalize()} keys can only be set on instances "
                f'(key "{key}")'
            )
    _check_together(config)


def validate_expanded(config: Mapping[str, str]) -> None:
    """Raise InvalidConfig when an instance's keys and those of its profiles do not go together."""
    _check_together(config)


def _check_name(key: str) -> None:
    if key.startswith("linux.sysctl.") and not _SYSCTL.fullmatch(key[13:]):
        raise InvalidConfig(f'Unknown configuration key: {key}: "{key[13:]}" is no kernel setting')
    if key.startswith("environment.") and not _ENVIRONMENT.fullmatch(key[12:]):
        raise InvalidConfig(f'Unknown configuration key: {key}: no "=" or blank in a variable')


def _check_privileges(config: Mapping[str, str]) -> None:
    """Refuse what makes the host's root that of an instance, where that is ruled out for all.

    Source: LXD docs, "Environment variables", LXD_UNPRIVILEGED_ONLY.
    """
    if not any(is_true(os.environ.get(name)) for name in _UNPRIVILEGED_ONLY):
        return
    if is_true(config.get("security.privileged")):
        raise InvalidConfig("LXD was configured to only allow unprivileged containers")
    if any(each.outside == 0 for each in idmaps.parse_raw(config.get("raw.idmap", ""))):
        raise InvalidConfig(
            "Cannot map root user into container as LXD was configured to only allow "
            "unprivileged containers"
        )


def _check_together(config: Mapping[str, str]) -> None:
    _check_privileges(config)
    if is_true(config.get("nvidia.runtime")):
        raise NotSupported(
            "nvidia.runtime: lxpy does not bring NVIDIA's libraries of the host into instances: "
            "install them inside, and add the cards as gpu devices"
        )
    if config.get("limits.network.priority") not in (None, "", "0"):
        raise NotSupported(
            "limits.network.priority: it took control groups of version 1 (net_prio) that hosts do "
            "not have any more: set limits.priority on the instance's nics"
        )
    for old, new in syscalls.OLD_NAMES.items():
        if config.get(old) and config.get(new):
            raise InvalidConfig(f"{old} is the old name of {new}: set only {new}")
    allow = config.get("security.syscalls.allow") or config.get("security.syscalls.whitelist")
    if not allow:
        return
    for key in ("deny", "deny_compat", "blacklist", "blacklist_compat"):
        value = config.get(f"security.syscalls.{key}")
        if value and not is_false(value):
            raise InvalidConfig(
                "security.syscalls.allow is mutually exclusive with "
                f"security.syscalls.deny*: unset one of them (security.syscalls.{key} is set)"
            )


def is_volatile(key: str) -> bool:
    """Whether the daemon itself keeps the key."""
    return key.startswith("volatile.")


def copied(config: Mapping[str, str]) -> dict[str, str]:
    """Return the config that a copy of an instance starts with: no state of the source's."""
    kept = ("volatile.base_image", "volatile.last_state.idmap")
    return {key: value for key, value in config.items() if not is_volatile(key) or key in kept}


def not_live(keys: Iterable[str]) -> list[str]:
    """Return those keys that need a restart to take effect."""
    return [key for key in keys if not is_volatile(key) and not INSTANCE_KEYS.live(key)]
