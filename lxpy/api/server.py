"""The server itself: `/1.0`, `/1.0/cluster`, `/1.0/projects`, `/1.0/certificates`.

Source: LXD docs, "REST API", "Server".
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field

#: clients send strings; Go's client tolerates numbers and booleans, so must a server
Values = dict[str, str | int | bool | float]


class StorageDriver(Struct, kw_only=True, rename="pascal"):
    """A storage driver that this build has; its keys are capitalised on the wire."""

    name: str
    version: str
    remote: bool


class Warned(Struct, kw_only=True):
    """A warning of `/1.0/warnings`."""

    uuid: str
    type: str
    severity: str
    last_message: str
    first_seen_at: datetime
    last_seen_at: datetime
    count: int = 1
    status: str = "new"
    location: str = "none"
    project: str = ""
    entity_url: str = ""


class WarningPut(Struct, kw_only=True):
    """A change of a warning: "new" or "acknowledged"."""

    status: str


class Environment(Struct, kw_only=True):
    """What the server is and runs on; feature maps hold "true" or "false"."""

    addresses: list[str]
    architectures: list[str]
    certificate: str
    certificate_fingerprint: str
    driver: str
    driver_version: str
    firewall: str
    kernel: str
    kernel_architecture: str
    kernel_features: dict[str, str]
    kernel_version: str
    lxc_features: dict[str, str]
    os_name: str
    os_version: str
    project: str
    server: str
    server_clustered: bool
    server_event_mode: str
    server_name: str
    server_pid: int
    server_version: str
    storage: str
    storage_version: str
    storage_supported_drivers: list[StorageDriver]
    lxpy_version: str
    lxpy_warnings: list[str] = field(default_factory=list)


class Introduction(Struct, kw_only=True):
    """What anybody sees of `/1.0`."""

    api_extensions: list[str]
    api_status: str = "stable"
    api_version: str = "1.0"
    auth: str = "untrusted"
    public: bool = False
    auth_methods: list[str] = field(default_factory=lambda: ["tls"])


class Server(Introduction, kw_only=True):
    """What a trusted client sees of `/1.0`; of the trust password, that there is one."""

    config: dict[str, str | bool]
    environment: Environment


class ServerPut(Struct, kw_only=True):
    """Server config: what is missing is unset by PUT, stays with PATCH."""

    config: Values | None = None


class Cluster(Struct, kw_only=True):
    """What a server that is in no cluster says of it."""

    server_name: str = ""
    enabled: bool = False
    member_config: list[dict[str, str]] = field(default_factory=list)
