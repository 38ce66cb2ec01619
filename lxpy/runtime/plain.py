"""Specs as the supervisor sees them: decoded JSON. Shapes for the type checker alone.

Never imported at run time: the supervisor forks for every start and exec, and stays small.
"""

from __future__ import annotations

from typing import Any, TypedDict


class IdMapEntry(TypedDict):
    kind: str
    inside: int
    outside: int
    size: int


class Rootfs(TypedDict, total=False):
    type: str
    lower: list[str]
    root: str
    path: str


class Disk(TypedDict):
    source: str
    target: str
    readonly: bool
    recursive: bool
    shift: bool
    required: bool
    raw_options: str
    propagation: str
    beneath: str


class Node(TypedDict):
    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    device: str


class Endpoint(TypedDict):
    kind: str
    address: str
    port: int


class Forwarding(TypedDict):
    listen: Endpoint
    connect: Endpoint


class Proxy(TypedDict):
    name: str
    side: str
    forwardings: list[Forwarding]
    proxy_protocol: bool
    mode: int
    uid: int
    gid: int
    security_uid: int
    security_gid: int


class FileWrite(TypedDict):
    path: str
    content: str
    mode: int
    create_only: bool


class IoLimit(TypedDict):
    major: int
    minor: int
    read_bytes: int
    write_bytes: int
    read_ops: int
    write_ops: int


class Limits(TypedDict):
    memory_bytes: int | None
    memory_soft_bytes: int | None
    swap: bool
    cpus: str | None
    cpu_quota_us: int | None
    cpu_period_us: int
    cpu_weight: int
    pids: int | None
    io: list[IoLimit]
    io_weight: int | None
    hugepages: dict[str, int]
    swappiness: int | None


class Spec(TypedDict):
    name: str
    hostname: str
    rootfs: Rootfs
    idmap: list[IdMapEntry]
    init: list[str]
    environment: dict[str, str]
    privileged: bool
    nesting: bool
    live: bool
    cgroup_view: str
    disks: list[Disk]
    nodes: list[Node]
    proxies: list[Proxy]
    files: list[FileWrite]
    limits: Limits
    rlimits: dict[str, list[int]]
    sysctls: dict[str, str]
    seccomp: str
    intercept: list[str]
    caps_drop: list[int]
    control_files: list[list[str]]
    lxcfs: str | None
    guest_api: str | None
    console_log: str
    console_log_bytes: int
    log: str


class ExecSpec(TypedDict):
    name: str
    command: list[str]
    environment: dict[str, str]
    uid: int
    gid: int
    cwd: str
    interactive: bool
    width: int
    height: int


Entry = dict[str, Any]
