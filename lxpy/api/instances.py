"""Instances: requests and objects of `/1.0/instances`.

Source: LXD docs, "REST API", "Instances".
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import UNSET, Struct, UnsetType, field

Config = dict[str, str]
Devices = dict[str, dict[str, str]]


class InstancePut(Struct, kw_only=True):
    """The writable part of an instance; what is missing is emptied."""

    architecture: str = ""
    config: Config | None = None
    devices: Devices | None = None
    ephemeral: bool = False
    profiles: list[str] | None = None
    restore: str = ""
    stateful: bool = False
    description: str = ""


class InstancePatch(Struct, kw_only=True):
    """A change: what is missing stays."""

    architecture: str | UnsetType = UNSET
    config: Config | UnsetType | None = UNSET
    devices: Devices | UnsetType | None = UNSET
    ephemeral: bool | UnsetType = UNSET
    profiles: list[str] | UnsetType | None = UNSET
    description: str | UnsetType = UNSET


class InstanceSource(Struct, kw_only=True):
    """What an instance is made from: an image, nothing, a copy."""

    type: str = ""
    alias: str = ""
    fingerprint: str = ""
    properties: dict[str, str] | None = None
    server: str = ""
    secret: str = ""
    protocol: str = ""
    certificate: str = ""
    mode: str = ""
    image_type: str = ""
    source: str = ""
    project: str = ""
    live: bool = False
    lxpy_twin: bool = False
    instance_only: bool = False
    container_only: bool = False
    refresh: bool = False
    allow_inconsistent: bool = False
    operation: str = ""
    secrets: dict[str, str] | None = None
    base_image: str = field(name="base-image", default="")


class InstancesPost(InstancePut, kw_only=True):
    """A new instance."""

    name: str = ""
    source: InstanceSource = field(default_factory=InstanceSource)
    instance_type: str = ""
    type: str = ""
    start: bool = False


class MigrationTarget(Struct, kw_only=True):
    """A server that waits to be sent something: where, its sockets' secrets, its certificate."""

    operation: str = ""
    secrets: dict[str, str] | None = None
    certificate: str = ""


class InstancePost(Struct, kw_only=True):
    """A new name, or a migration."""

    name: str = ""
    migration: bool = False
    live: bool = False
    instance_only: bool = False
    container_only: bool = False
    allow_inconsistent: bool = False
    pool: str = ""
    project: str = ""
    target: MigrationTarget | None = None


class InstanceStatePut(Struct, kw_only=True):
    """What to do with an instance; `timeout` is seconds, -1 waits for ever."""

    action: str
    timeout: int = -1
    force: bool = False
    stateful: bool | None = None


class InstancesPut(Struct, kw_only=True):
    """The same for all instances of a project."""

    state: InstanceStatePut


class ExecPost(Struct, kw_only=True):
    """A command to run in an instance."""

    command: list[str] = field(default_factory=list)
    environment: dict[str, str] | None = None
    wait_for_websocket: bool = field(name="wait-for-websocket", default=False)
    interactive: bool = False
    width: int = 0
    height: int = 0
    record_output: bool = field(name="record-output", default=False)
    user: int | None = None
    group: int | None = None
    cwd: str | None = None


class ConsolePost(Struct, kw_only=True):
    """An attachment to the console."""

    width: int = 0
    height: int = 0
    type: str = "console"


class Address(Struct, kw_only=True):
    """One address; `netmask` is the length of the prefix."""

    family: str
    address: str
    netmask: str
    scope: str


class Counters(Struct, kw_only=True):
    """What went through a network interface."""

    bytes_received: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    packets_sent: int = 0
    errors_received: int = 0
    errors_sent: int = 0
    packets_dropped_outbound: int = 0
    packets_dropped_inbound: int = 0


class NetworkState(Struct, kw_only=True):
    """A network interface inside."""

    addresses: list[Address]
    counters: Counters
    hwaddr: str
    host_name: str
    mtu: int
    state: str
    type: str


class Memory(Struct, kw_only=True):
    """Bytes of memory and swap in use."""

    usage: int = 0
    usage_peak: int = 0
    swap_usage: int = 0
    swap_usage_peak: int = 0


class Cpu(Struct, kw_only=True):
    """Nanoseconds of processor time."""

    usage: int = 0


class InstanceState(Struct, kw_only=True):
    """What an instance does and uses now."""

    status: str
    status_code: int
    disk: dict[str, Any] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    network: dict[str, NetworkState] | None = None
    pid: int = 0
    processes: int = 0
    cpu: Cpu = field(default_factory=Cpu)


class Instance(Struct, kw_only=True):
    """An instance."""

    architecture: str
    config: Config
    devices: Devices
    ephemeral: bool
    profiles: list[str]
    stateful: bool
    description: str
    created_at: datetime
    expanded_config: Config
    expanded_devices: Devices
    name: str
    status: str
    status_code: int
    last_used_at: datetime
    location: str = "none"
    type: str = "container"
    project: str = "default"


class InstanceFull(Instance, kw_only=True):
    """An instance with everything that hangs on it."""

    backups: list[Any] | None = None
    state: InstanceState
    snapshots: list[Any] | None = None
