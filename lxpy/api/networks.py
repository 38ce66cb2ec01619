"""Networks: managed bridges, and the interfaces of the host."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field

from lxpy.api.instances import Address, Config


class NetworkPut(Struct, kw_only=True):
    """The writable part of a network."""

    description: str = ""
    config: Config | None = None


class NetworksPost(NetworkPut, kw_only=True):
    """A new network; its type is "bridge" by default."""

    name: str = ""
    type: str = ""


class NetworkPatch(Struct, kw_only=True):
    """A change: what is missing stays."""

    description: str | UnsetType = UNSET
    config: Config | UnsetType | None = UNSET


class NetworkPost(Struct, kw_only=True):
    """A new name."""

    name: str = ""


class Network(Struct, kw_only=True):
    """A network; `used_by` are URLs of instances and profiles."""

    config: Config
    description: str
    name: str
    type: str
    used_by: list[str]
    managed: bool
    status: str
    locations: list[str] | None


class Lease(Struct, kw_only=True):
    """An address that is lent ("dynamic"), reserved ("static"), or the network's ("gateway")."""

    hostname: str
    hwaddr: str
    address: str
    type: str
    location: str = "none"


class Counters(Struct, kw_only=True):
    """What went through."""

    bytes_received: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    packets_sent: int = 0


class BridgeState(Struct, kw_only=True):
    """A bridge and its ports; the delay is in hundredths of a second."""

    id: str
    stp: bool
    forward_delay: int
    vlan_default: int
    vlan_filtering: bool
    upper_devices: list[str]


class BondState(Struct, kw_only=True):
    """A bond and its interfaces; delays and the frequency of looking are in milliseconds."""

    mode: str
    transmit_policy: str
    up_delay: int
    down_delay: int
    mii_frequency: int
    mii_state: str
    lower_devices: list[str]


class VlanState(Struct, kw_only=True):
    """The interface that carries a VLAN, and its number."""

    lower_device: str
    vid: int


class NetworkState(Struct, kw_only=True):
    """What an interface of the host does now."""

    addresses: list[Address] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    hwaddr: str = ""
    mtu: int = 0
    state: str = "down"
    type: str = "unknown"
    bond: BondState | None = None
    bridge: BridgeState | None = None
    vlan: VlanState | None = None
    ovn: None = None
