"""`/1.0/networks/N/forwards` and `/1.0/network-acls`."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field

from lxpy.api.instances import Config


class ForwardPort(Struct, kw_only=True):
    """Ports of a listen address, and where they lead; ports are lists such as "80,90-92"."""

    description: str = ""
    protocol: str = ""
    listen_port: str = ""
    target_port: str = ""
    target_address: str = ""


class ForwardPut(Struct, kw_only=True):
    """The writable part of a forward."""

    description: str = ""
    config: Config | None = None
    ports: list[ForwardPort] | None = None


class ForwardsPost(ForwardPut, kw_only=True):
    """A new forward."""

    listen_address: str = ""


class ForwardPatch(Struct, kw_only=True):
    """A change: what is missing stays."""

    description: str | UnsetType = UNSET
    config: Config | UnsetType | None = UNSET
    ports: list[ForwardPort] | UnsetType | None = UNSET


class Forward(Struct, kw_only=True):
    """A forward."""

    description: str
    config: Config
    ports: list[ForwardPort]
    listen_address: str
    location: str = "none"


class AclRule(Struct, kw_only=True, omit_defaults=True):
    """A rule; what it does not look at is left out."""

    action: str
    source: str = ""
    destination: str = ""
    protocol: str = ""
    source_port: str = ""
    destination_port: str = ""
    icmp_type: str = ""
    icmp_code: str = ""
    description: str = ""
    state: str | None = None


class AclPut(Struct, kw_only=True):
    """The writable part of an ACL."""

    description: str = ""
    egress: list[AclRule] | None = None
    ingress: list[AclRule] | None = None
    config: Config | None = None


class AclsPost(AclPut, kw_only=True):
    """A new ACL."""

    name: str = ""


class AclPatch(Struct, kw_only=True):
    """A change: what is missing stays."""

    description: str | UnsetType = UNSET
    egress: list[AclRule] | UnsetType | None = UNSET
    ingress: list[AclRule] | UnsetType | None = UNSET
    config: Config | UnsetType | None = UNSET


class AclPost(Struct, kw_only=True):
    """A new name."""

    name: str = ""


class Acl(Struct, kw_only=True):
    """An ACL; `used_by` are URLs of networks and of other ACLs."""

    name: str
    description: str
    egress: list[AclRule] = field(default_factory=list)
    ingress: list[AclRule] = field(default_factory=list)
    config: Config
    used_by: list[str]
