"""All devices of an instance at once: what to look up on the host, then what a start needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lxpy.errors import Failed
from lxpy.instances.devices import disk, hardware, nic, proxy, unix
from lxpy.instances.devices.base import Options
from lxpy.instances.devices.disk import VolumeSource
from lxpy.instances.devices.hardware import Hardware
from lxpy.instances.devices.nic import NicPlan
from lxpy.instances.devices.proxy import Translated
from lxpy.instances.devices.unix import HostNode
from lxpy.runtime.spec import Disk, Node, Proxy
from lxpy.units import is_false

_VOLATILE = (
    "apply_quota", "created", "driver", "host_name", "hwaddr", "id", "last_state.created",
    "last_state.hwaddr", "last_state.mtu", "last_state.vf.hwaddr", "last_state.vf.id",
    "last_state.vf.parent", "last_state.vf.spoofcheck", "last_state.vf.vlan", "mtu", "name",
    "spoofcheck", "uuid", "vlan",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Needs:
    """What a plan needs to know of the host: what paths are, by device; whether its hardware."""

    paths: Mapping[str, str] = field(default_factory=dict)
    hardware: bool = False


@dataclass(frozen=True, slots=True)
class Nodes:
    """What the host has: what the paths of devices are, and its hardware if it was asked for."""

    paths: Mapping[str, HostNode] = field(default_factory=dict)
    hardware: tuple[Hardware, ...] = ()


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The devices of one start; disks are in mounting order."""

    disks: tuple[Disk, ...] = ()
    nodes: tuple[Node, ...] = ()
    nics: tuple[NicPlan, ...] = ()
    proxies: tuple[Proxy, ...] = ()


def needs(devices: Mapping[str, Options]) -> Needs:
    """Return what has to be looked up before `plan`, apart from where custom volumes are."""
    paths = ((name, unix.host_path(given)) for name, given in devices.items())
    kinds = {given.get("type") for given in devices.values()}
    hard = not kinds.isdisjoint(hardware.KINDS)
    return Needs({name: each for name, each in paths if each is not None}, hard)


def comes_and_goes(given: Options) -> bool:
    """Whether the nodes of a device appear and vanish while an instance runs."""
    kind = given.get("type")
    if kind in ("unix-char", "unix-block"):
        return is_false(given.get("required")) and unix.host_path(given) is not None
    return kind in ("usb", "unix-hotplug")


def present(devices: Mapping[str, Options], found: Nodes) -> list[Node]:
    """Return the nodes of devices that come and go, those that are there now."""
    nodes: list[Node] = []
    for name, given in devices.items():
        try:
            nodes += _nodes(name, {**given, "required": "false"}, found)
        except Failed:
            continue  # it is there, but of another kind
    return nodes


def _nodes(name: str, given: Options, found: Nodes) -> tuple[Node, ...]:
    if given["type"] in hardware.KINDS:
        return hardware.plan(name, given, found.hardware)
    node = unix.plan(name, given, found.paths.get(name))
    return () if node is None else (node,)


def plan(
    config: Mapping[str, str],
    devices: Mapping[str, Options],
    volumes: Mapping[str, VolumeSource] | None = None,
    nodes: Nodes | None = None,
    parents: Mapping[str, str] | None = None,
) -> DevicePlan:
    """Return what expanded, validated devices come to; `config` is the instance's own.

    `volumes` is where custom volumes are, `nodes` answers `needs`, both by device; what does not
    exist is left out. `parents` is what paths of the host must not lead out of, by device.
    Raises Failed for a required source that is missing.
    """
    sources = volumes or {}
    as_nodes = {name: each.node for name, each in sources.items() if each.node is not None}
    disks = [
        disk.plan(name, given, sources.get(name), (parents or {}).get(name, ""))
        for name, given in devices.items()
        if given.get("type") == "disk" and not disk.is_root(given)
        and name not in as_nodes and not _absent(name, given, sources)
    ]  # fmt: skip
    planned = [
        node
        for name, given in devices.items()
        if given.get("type") in ("unix-char", "unix-block", *hardware.KINDS)
        for node in _nodes(name, given, nodes or Nodes())
    ]
    planned += [disk.plan_node(name, devices[name], node) for name, node in as_nodes.items()]
    first: dict[str, Node] = {}
    for node in planned:
        first.setdefault(node.path, node)
    nics = {name: given for name, given in devices.items() if given.get("type") == "nic"}
    return DevicePlan(
        tuple(sorted(disks, key=lambda each: each.target)),
        tuple(first.values()),
        nic.plan(config, nics),
        forwarded(devices),
    )


def forwarded(devices: Mapping[str, Options]) -> tuple[Proxy, ...]:
    """Return the proxies that a forwarder serves."""
    return tuple(
        proxy.plan(name, given)
        for name, given in devices.items()
        if given.get("type") == "proxy" and not proxy.is_nat(given)
    )


def translated(devices: Mapping[str, Options]) -> tuple[Translated, ...]:
    """Return the proxies that the firewall serves. Raises Failed for one without an address."""
    nics = {name: given for name, given in devices.items() if given.get("type") == "nic"}
    return tuple(
        proxy.translated(name, given, nics)
        for name, given in devices.items()
        if proxy.is_nat(given)
    )


def _absent(name: str, given: Options, volumes: Mapping[str, VolumeSource]) -> bool:
    """Whether a disk shows a volume that is missing and not required."""
    missing = disk.volume(given) is not None and name not in volumes
    return missing and disk.may_be_missing(given)


def volatile_config(
    own: Mapping[str, str],
    devices: Mapping[str, Options],
    make_hwaddr: Callable[[], str],
    *,
    gone: Mapping[str, Options] | None = None,
) -> dict[str, str]:
    """Return the instance's own config with the volatile keys its expanded devices need.

    Every nic gets an hwaddr and a name inside that stay; keys of the devices in `gone` and not
    in `devices` are dropped.
    """
    config = dict(own)
    for name in (gone or {}).keys() - devices.keys():
        for key in _VOLATILE:
            config.pop(f"volatile.{name}.{key}", None)
    nics = {name: given for name, given in devices.items() if given.get("type") == "nic"}
    for name, given in nics.items():
        for key in ("hwaddr", "name"):
            if given.get(key):
                config.pop(f"volatile.{name}.{key}", None)
        if not given.get("hwaddr") and not config.get(f"volatile.{name}.hwaddr"):
            config[f"volatile.{name}.hwaddr"] = make_hwaddr()
    for name, inside in nic.guest_names(config, nics).items():
        if not nics[name].get("name"):
            config[f"volatile.{name}.name"] = inside
    return config
