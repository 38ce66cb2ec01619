"""The table of a bridge's config keys, and the rules between them.

Source: LXD docs, "Bridge network".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface

from lxpy.errors import BadRequest, Failed, InvalidConfig, LxpyError, NotSupported
from lxpy.keys import (
    ADDRESS,
    ADDRESS_V4,
    ADDRESS_V6,
    BLOB,
    BOOL,
    CIDR_V4,
    CIDR_V6,
    HWADDR,
    NETWORK_V4,
    NETWORK_V6,
    STRING,
    ConfigKey,
    Texts,
    Type,
    choice,
    either,
    integer,
    listing,
    matching,
    mtu,
    table,
)
from lxpy.networks import addresses, parentkeys

_INTERFACE = matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", "the name of a network interface")
_DOMAIN = matching(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}"
    r"[A-Za-z0-9])?)*",
    'a domain such as "lxpy" or "guests.example.net"',
)
_EXPIRY = matching(r"[0-9]{1,6}[smhdw]?|infinite", 'a time such as "30m" or "1h", or "infinite"')
_RANGES = matching(
    r"[0-9A-Fa-f.:]+\s*-\s*[0-9A-Fa-f.:]+(\s*,\s*[0-9A-Fa-f.:]+\s*-\s*[0-9A-Fa-f.:]+)*",
    "ranges of addresses such as 10.0.0.10-10.0.0.99",
)
_MTU = mtu(1280)
_MTU_OF_TUNNELS = 1400
_ORDER = choice("before", "after")
_ACTION = choice("allow", "drop", "reject")


def _key(name: str, kind: Type, default: str = "", description: str = "") -> ConfigKey:
    return ConfigKey(name, kind, default, live=True, description=description, scope="bridge")


BRIDGE = table(
    (
        _key("bridge.driver", choice("native", "openvswitch"), "native", "What makes the bridge"),
        _key("bridge.external_interfaces", listing(_INTERFACE), "",
             "Unconfigured interfaces of the host that join the bridge"),
        _key("bridge.hwaddr", HWADDR, "", "MAC address of the bridge"),
        _key("bridge.mode", choice("standard", "fan"), "standard", "How the bridge works"),
        _key("bridge.mtu", _MTU, "1500", "MTU of the bridge and its guests"),
        _key("dns.domain", _DOMAIN, "lxpy", "Domain of the guests' names"),
        _key("dns.mode", choice("managed", "dynamic", "none"), "managed",
             "managed: names of instances; dynamic: names that guests choose; none: no DNS"),
        _key("dns.search", listing(_DOMAIN), "", "Domains that guests search, dns.domain at least"),
        _key("ipv4.address", either(CIDR_V4, "none", "auto"), "auto",
             "Address of the bridge and its subnet"),
        _key("ipv4.dhcp", BOOL, "true", "Whether guests get IPv4 addresses"),
        _key("ipv4.dhcp.expiry", _EXPIRY, "1h", "How long an address is lent"),
        _key("ipv4.dhcp.gateway", ADDRESS_V4, "", "Gateway of the guests, the bridge by default"),
        _key("ipv4.dhcp.ranges", _RANGES, "", "Which addresses guests get, all by default"),
        _key("ipv4.firewall", BOOL, "true", "Whether our rules let the guests' traffic pass"),
        _key("ipv4.nat", BOOL, "false", "Whether guests appear outside with the host's address"),
        _key("ipv4.nat.address", ADDRESS_V4, "", "Which of the host's addresses"),
        _key("ipv4.nat.order", _ORDER, "before", "Before or after the NAT rules of others"),
        _key("ipv4.routes", listing(NETWORK_V4), "", "More subnets that the host routes to it"),
        _key("ipv4.routing", BOOL, "true", "Whether the host forwards to and from it"),
        _key("ipv6.address", either(CIDR_V6, "none", "auto"), "auto",
             "Address of the bridge and its subnet"),
        _key("ipv6.dhcp", BOOL, "true", "Whether guests are told of DNS by DHCPv6"),
        _key("ipv6.dhcp.expiry", _EXPIRY, "1h", "How long an address is lent"),
        _key("ipv6.dhcp.ranges", _RANGES, "", "Which addresses guests get (stateful)"),
        _key("ipv6.dhcp.stateful", BOOL, "false", "Whether guests get addresses by DHCPv6"),
        _key("ipv6.firewall", BOOL, "true", "Whether our rules let the guests' traffic pass"),
        _key("ipv6.nat", BOOL, "false", "Whether guests appear outside with the host's address"),
        _key("ipv6.nat.address", ADDRESS_V6, "", "Which of the host's addresses"),
        _key("ipv6.nat.order", _ORDER, "before", "Before or after the NAT rules of others"),
        _key("ipv6.routes", listing(NETWORK_V6), "", "More subnets that the host routes to it"),
        _key("ipv6.routing", BOOL, "true", "Whether the host forwards to and from it"),
        _key("raw.dnsmasq", BLOB, "", "Lines appended to dnsmasq's configuration"),
        _key("security.acls", STRING, "", "ACLs for what enters and leaves the network"),
        _key("security.acls.default.egress.action", _ACTION, "reject",
             "What becomes of outgoing traffic that no rule of the ACLs speaks of"),
        _key("security.acls.default.egress.logged", BOOL, "false", "Whether that is logged"),
        _key("security.acls.default.ingress.action", _ACTION, "reject",
             "What becomes of incoming traffic that no rule of the ACLs speaks of"),
        _key("security.acls.default.ingress.logged", BOOL, "false", "Whether that is logged"),
        _key("tunnel.*.group", ADDRESS, "239.0.0.1", "Multicast group (vxlan without remote)"),
        _key("tunnel.*.id", integer(0, (1 << 24) - 1), "1", "Number of the network (vxlan)"),
        _key("tunnel.*.interface", _INTERFACE, "", "Interface that multicast goes out of (vxlan)"),
        _key("tunnel.*.local", ADDRESS, "", "Address of this end"),
        _key("tunnel.*.port", integer(1, 65535), "8472", "UDP port (vxlan)"),
        _key("tunnel.*.protocol", choice("gre", "vxlan"), "", "Kind of the tunnel"),
        _key("tunnel.*.remote", ADDRESS, "", "Address of the other end"),
        _key("tunnel.*.ttl", integer(1, 255), "1", "Hops that its packets may take"),
        _key("user.*", STRING, "", "Whatever its owner likes"),
        # Known to LXD, and refused below: nothing is promised that is not kept.
        _key("bgp.*", STRING),
        _key("dns.zone.*", STRING),
        _key("fan.*", STRING),
        _key("ipv4.ovn.ranges", STRING),
        _key("ipv6.ovn.ranges", STRING),
        _key("maas.subnet.*", STRING),
    )
)  # fmt: skip

#: beginning of a key -> why it is refused
_REFUSED = {
    "bgp.": "lxpy speaks no BGP: let a routing daemon of the host announce the subnets",
    "dns.zone.": "lxpy has no network zones: guests' names are in dns.domain",
    "fan.": "bridge.mode=fan needs a patch of Ubuntu's kernels: use a tunnel",
    "ipv4.ovn.": "lxpy has no OVN networks",
    "ipv6.ovn.": "lxpy has no OVN networks",
    "maas.": "lxpy does not speak to MAAS",
}
_REFUSED_VALUES = {
    "bridge.driver": ("openvswitch", "lxpy makes bridges of the kernel's own kind only"),
    "bridge.mode": ("fan", "it needs a patch of Ubuntu's kernels: use a tunnel"),
}
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def check_name(name: str) -> None:
    """Raise BadRequest, in LXD's words, unless a network's name can be that of an interface."""
    problem = ""
    if not name:
        raise BadRequest("No name provided")
    if len(name) < 2:
        problem = "Network interface is too short (minimum 2 characters)"
    elif len(name) > 15:
        problem = "Network interface is too long (maximum 15 characters)"
    elif name.startswith("-") or name in ("..", "lo", "all", "default", "none"):
        problem = "This name has another meaning"
    elif not _NAME.fullmatch(name):
        problem = (
            "Network interface contains invalid characters: use letters, digits, hyphens, "
            "underscores and full stops"
        )
    if problem:
        shown = name if len(name) <= 40 else f"{name[:37]}..."
        raise BadRequest(f'Invalid network name: {problem}, it is "{shown}"')


def validate(network: str, config: Mapping[str, str], kind: str = "bridge") -> None:
    """Raise Failed or NotSupported, in LXD's words, when a network's config is not right."""
    if kind != "bridge":
        parentkeys.validate(network, kind, config)
        return
    texts = Texts(
        unknown=f'Invalid option for network "{network}" option "{{key}}"',
        invalid=f'Invalid value for network "{network}" option "{{key}}": {{reason}}',
    )
    try:
        BRIDGE.validate(config, texts)
        _check_refused(network, config)
        for family in ("ipv4", "ipv6"):
            _check_family(network, config, family)
    except NotSupported:
        raise
    except LxpyError as error:
        raise Failed(str(error)) from error


def _check_refused(network: str, config: Mapping[str, str]) -> None:
    for key, value in config.items():
        reasons = [text for begin, text in _REFUSED.items() if value and key.startswith(begin)]
        refused, reason = _REFUSED_VALUES.get(key, ("", ""))
        if value and value == refused:
            reasons.append(reason)
        for reason in reasons:
            raise NotSupported(
                f'Invalid value for network "{network}" option "{key}": {reason}; remove the option'
            )


def _check_family(network: str, config: Mapping[str, str], family: str) -> None:
    """Check what depends on the subnet: it may be "auto" still."""
    address = addresses.interface(config.get(f"{family}.address", ""))
    if address is None:
        return
    if address.ip == address.network.network_address and address.network.num_addresses > 2:
        raise _refused(network, f"{family}.address", f"{address} is the subnet, not an address")
    if address.ip.is_multicast or address.ip.is_loopback or address.ip.is_unspecified:
        raise _refused(network, f"{family}.address", f"{address} cannot be an interface's")
    try:
        addresses.ranges(config.get(f"{family}.dhcp.ranges", ""), address.network)
    except InvalidConfig as error:
        raise _refused(network, f"{family}.dhcp.ranges", str(error)) from error


def _refused(network: str, key: str, reason: str) -> InvalidConfig:
    return InvalidConfig(f'Invalid value for network "{network}" option "{key}": {reason}')


class Bridge:
    """A bridge's config with its defaults, as values of the right type."""

    def __init__(self, name: str, config: Mapping[str, str]) -> None:
        self.name = name
        self.config = config

    def text(self, key: str) -> str:
        """Return a key's value, or its default."""
        return BRIDGE.get(self.config, key)

    def flag(self, key: str) -> bool:
        """Return the truth of a key."""
        return self.text(key).lower() in ("true", "1", "yes", "on")

    def items(self, key: str) -> list[str]:
        """Return the values of a list."""
        return [each.strip() for each in self.text(key).split(",") if each.strip()]

    @property
    def mtu(self) -> int:
        """MTU in bytes; a tunnel's headers need room by default."""
        if not self.config.get("bridge.mtu") and any(x.startswith("tunnel.") for x in self.config):
            return _MTU_OF_TUNNELS
        return int(self.text("bridge.mtu"))

    @property
    def ipv4(self) -> IPv4Interface | None:
        """The bridge's IPv4 address with its subnet."""
        found = addresses.interface(self.text("ipv4.address"))
        return found if isinstance(found, IPv4Interface) else None

    @property
    def ipv6(self) -> IPv6Interface | None:
        """The bridge's IPv6 address with its subnet."""
        found = addresses.interface(self.text("ipv6.address"))
        return found if isinstance(found, IPv6Interface) else None

    @property
    def subnets(self) -> set[addresses.Subnet]:
        """The subnets that the bridge has addresses in."""
        return {each.network for each in (self.ipv4, self.ipv6) if each is not None}

    def dhcp_ranges(self, family: str) -> list[addresses.Range]:
        """Return the ranges of addresses for guests; none where no DHCP hands them out."""
        address = self.ipv4 if family == "ipv4" else self.ipv6
        if address is None or not self.flag(f"{family}.dhcp"):
            return []
        return addresses.ranges(self.text(f"{family}.dhcp.ranges"), address.network)
