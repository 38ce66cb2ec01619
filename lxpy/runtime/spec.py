"""What the supervisor is asked to run: plain values, sent as JSON.

The daemon decides everything and writes it down here; the supervisor carries it out and reports.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from lxpy.kernel.seccomp import DEFAULT

Kind = Literal["u", "g"]


@dataclass(frozen=True, slots=True)
class IdMapEntry:
    """One line of uid_map (kind "u") or gid_map ("g"): `size` ids from `inside` are `outside`."""

    kind: Kind
    inside: int
    outside: int
    size: int


@dataclass(frozen=True, slots=True)
class Overlay:
    """A rootfs stacked by overlayfs: read-only layers, topmost first, below one writable layer.

    `root` is a directory with the entries `upper` and `work`.
    """

    lower: tuple[str, ...]
    root: str
    type: Literal["overlay"] = "overlay"


@dataclass(frozen=True, slots=True)
class Directory:
    """A rootfs that lies in one directory (a btrfs subvolume, a plain copy)."""

    path: str
    type: Literal["directory"] = "directory"


@dataclass(frozen=True, slots=True)
class Disk:
    """A host file or directory shown inside the instance at `target`.

    With `beneath`, a directory, links must not lead the source out of that.
    """

    source: str
    target: str
    readonly: bool = False
    recursive: bool = False
    shift: bool = True
    required: bool = True
    raw_options: str = ""
    propagation: str = ""
    beneath: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A device node in the instance; ids are the instance's.

    `device` is the instance's device that it belongs to.
    """

    path: str
    kind: Literal["c", "b"]
    major: int
    minor: int
    mode: int = 0o660
    uid: int = 0
    gid: int = 0
    device: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address and a port, or a unix socket: a path, or "@NAME" for an abstract one."""

    kind: Literal["tcp", "udp", "unix"]
    address: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What comes to `listen` goes to `connect`, on the other side."""

    listen: Endpoint
    connect: Endpoint


@dataclass(frozen=True, slots=True)
class Proxy:
    """Addresses of one `side` that lead to the other one.

    Mode and ids are those of a unix socket listened at; as the security ids it connects. All ids
    are those of their side.
    """

    name: str
    side: Literal["host", "instance"]
    forwardings: tuple[Forwarding, ...]
    proxy_protocol: bool = False
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    security_uid: int = 0
    security_gid: int = 0


@dataclass(frozen=True, slots=True)
class FileWrite:
    """A file that is written into the rootfs before init runs (rendered image templates)."""

    path: str
    content: str
    mode: int = 0o644
    create_only: bool = False


@dataclass(frozen=True, slots=True)
class IoLimit:
    """Bytes and operations a second of one block device, 0 for no limit."""

    major: int
    minor: int
    read_bytes: int = 0
    write_bytes: int = 0
    read_ops: int = 0
    write_ops: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits; None lifts the limit. Applied at start and changed live.

    `cpus` is a set of host cpus ("0-1,3"); quota and period are microseconds; `cpu_weight` is in
    cgroup2's scale, 1 to 10000, 100 by default; `io_weight` is 10 to 1000, `hugepages` are bytes by
    size of page ("2MB"), `swappiness` is that of the kernel.
    """

    memory_bytes: int | None = None
    memory_soft_bytes: int | None = None
    swap: bool = True
    cpus: str | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int = 100_000
    cpu_weight: int = 100
    pids: int | None = None
    io: tuple[IoLimit, ...] = ()
    io_weight: int | None = None
    hugepages: dict[str, int] = field(default_factory=dict)
    swappiness: int | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything about one start of one instance.

    `name` is unique on the host ("c1", "project_c1"): cgroup, logs and messages bear it.
    `caps_drop` are numbers of capabilities, beside those that no instance has; `control_files` are
    written after the limits, named "cgroup2/memory.high", or "cgroup/..." of version 1.
    `intercept` names what is carried out for it, see `lxpy.runtime.intercept`.
    `seccomp` is a policy as `lxpy.kernel.policy` reads it, "" for none.
    """

    name: str
    hostname: str
    rootfs: Overlay | Directory
    idmap: tuple[IdMapEntry, ...]
    init: tuple[str, ...] = ("/sbin/init",)
    environment: dict[str, str] = field(default_factory=dict)
    privileged: bool = False
    nesting: bool = False
    live: bool = True
    cgroup_view: Literal["auto", "unified", "legacy"] = "auto"
    disks: tuple[Disk, ...] = ()
    nodes: tuple[Node, ...] = ()
    proxies: tuple[Proxy, ...] = ()
    files: tuple[FileWrite, ...] = ()
    limits: Limits = Limits()
    rlimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    seccomp: str = DEFAULT
    intercept: tuple[str, ...] = ()
    caps_drop: tuple[int, ...] = ()
    control_files: tuple[tuple[str, str], ...] = ()
    lxcfs: str | None = None
    guest_api: str | None = None
    console_log: str = ""
    console_log_bytes: int = 1 << 20
    log: str = ""


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A command to run in a running instance; ids and `cwd` are the instance's.

    `interactive` asks for a pseudo terminal of `width` x `height` from the instance's own devpts.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    uid: int = 0
    gid: int = 0
    cwd: str = ""
    interactive: bool = False
    width: int = 0
    height: int = 0


def encode(value: Any) -> Any:
    """Turn a spec into what JSON can carry."""
    return dataclasses.asdict(value)


def decode(kind: Any, data: Any) -> Any:
    """Build `kind` (a dataclass of this module) from decoded JSON.

    Raises TypeError or KeyError when `data` does not fit.
    """
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints[name], item) for name, item in data.items()})


def _value(hint: Any, item: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(item, list):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_value(args[0], each) for each in item)
        return tuple(item)
    if origin is dict:
        return {key: _value(args[1], each) for key, each in item.items()}
    if origin in (typing.Union, types.UnionType) and isinstance(item, dict):
        classes = [each for each in args if dataclasses.is_dataclass(each)]
        for each in classes:
            if (
                len(classes) == 1
                or item.get("type") == typing.get_args(typing.get_type_hints(each)["type"])[0]
            ):
                return decode(each, item)
        raise TypeError(f"no {hint} fits {item!r}")
    if dataclasses.is_dataclass(hint) and isinstance(item, dict):
        return decode(hint, item)
    return item
