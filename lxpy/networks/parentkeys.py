"""The config keys of networks that are an interface of the host: macvlan, physical, sriov.

Source: LXD docs, "Macvlan network", "Physical network", "SR-IOV network".
"""

from __future__ import annotations

from collections.abc import Mapping

from lxpy.errors import Failed, LxpyError, NotSupported
from lxpy.keys import BOOL, STRING, ConfigKey, Keys, Texts, Type, integer, matching, mtu, table

_INTERFACE = matching(r"(?!\.\.?$)[^\s/:]{1,15}", "the name of a network interface")
_VLAN = integer(0, 4094)
_COMMON = (
    ("parent", _INTERFACE, "Interface of the host that the network is"),
    ("mtu", mtu(68), "MTU of the nics, the parent's by default"),
    ("vlan", _VLAN, "VLAN of the parent"),
    ("user.*", STRING, "Whatever its owner likes"),
    ("maas.subnet.*", STRING, ""),
)
_GVRP = ("gvrp", BOOL, "Whether the VLAN is registered with the switch (GVRP)")
#: what an OVN network would take from its uplink
_UPLINK = ("bgp.*", "dns.nameservers", "ipv4.gateway", "ipv4.ovn.ranges", "ipv4.routes",
           "ipv4.routes.anycast", "ipv6.gateway", "ipv6.ovn.ranges", "ipv6.routes",
           "ipv6.routes.anycast", "ovn.ingress_mode")  # fmt: skip


def _table(kind: str, *more: tuple[str, Type, str]) -> Keys:
    return table(
        ConfigKey(name, type_, description=text, live=True, scope=kind)
        for name, type_, text in (*_COMMON, *more)
    )


KEYS: Mapping[str, Keys] = {
    "macvlan": _table("macvlan", _GVRP),
    "physical": _table("physical", _GVRP, *((name, STRING, "") for name in _UPLINK)),
    "sriov": _table("sriov"),
}
#: beginnings of keys that are known and refused
LATER = ("maas.", "bgp.", "dns.", "ipv4.", "ipv6.", "ovn.")


def validate(network: str, kind: str, config: Mapping[str, str]) -> None:
    """Raise Failed or NotSupported, in LXD's words, when such a network's config is not right."""
    texts = Texts(
        unknown=f'Invalid option for network "{network}" option "{{key}}"',
        invalid=f'Invalid value for network "{network}" option "{{key}}": {{reason}}',
    )
    try:
        KEYS[kind].validate(config, texts)
    except LxpyError as error:
        raise Failed(str(error)) from error
    for key, value in config.items():
        if value and key.startswith(LATER):
            raise NotSupported(
                f'Invalid value for network "{network}" option "{key}": lxpy has neither OVN nor '
                "MAAS, which it is for; remove the option"
            )
    if not config.get("parent"):
        raise Failed(f'Invalid value for network "{network}" option "parent": Required value')
