"""Tunnels of bridges: VXLAN and GRE, by which bridges of several hosts are one network.

Source: LXD docs, "Bridge network", ip-link(8).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from lxpy.errors import InvalidConfig
from lxpy.networks import netlink
from lxpy.networks.interfaces import Interface, Interfaces
from lxpy.networks.keys import Bridge
from lxpy.networks.netlink import Netlink

_KEY = re.compile(r"tunnel\.([^.]+)\.([a-z]+)")
_GROUP, _PORT, _ID = "239.0.0.1", 8472, 1


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One tunnel: `link` is its interface, `settings` are its options, by their last word."""

    link: str
    settings: Mapping[str, str]

    @property
    def digest(self) -> str:
        """What differs when an option differs."""
        text = json.dumps(dict(self.settings), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def attributes(self) -> dict[str, object]:
        """Return what netlink needs to make it. Raises NoSuchLink for its interface."""
        if self.settings["protocol"] == "gre":
            return {
                "kind": "gretap",
                "gre_local": self.settings["local"],
                "gre_remote": self.settings["remote"],
                **({"gre_ttl": int(self.settings["ttl"])} if self.settings.get("ttl") else {}),
            }
        found: dict[str, object] = {
            "kind": "vxlan",
            "vxlan_id": int(self.settings.get("id") or _ID),
            "vxlan_port": int(self.settings.get("port") or _PORT),
            "vxlan_ttl": int(self.settings.get("ttl") or 1),
        }
        local, remote = self.settings.get("local"), self.settings.get("remote")
        group = remote or self.settings.get("group") or _GROUP
        found["vxlan_group" if ip_address(group).version == 4 else "vxlan_group6"] = group
        if local:
            found["vxlan_local" if ip_address(local).version == 4 else "vxlan_local6"] = local
        if self.settings.get("interface"):
            found["vxlan_link"] = netlink.index(self.settings["interface"])
        return found


def of(network: Bridge) -> list[Tunnel]:
    """Return the tunnels that a network's config asks for. Raises InvalidConfig."""
    found: dict[str, dict[str, str]] = {}
    for key, value in network.config.items():
        match = _KEY.fullmatch(key)
        if match and value:
            found.setdefault(match[1], {})[match[2]] = value
    return [_checked(network.name, name, settings) for name, settings in sorted(found.items())]


def _checked(network: str, name: str, settings: Mapping[str, str]) -> Tunnel:
    link = f"{network}-{name}"
    problem = ""
    if len(link) > 15:
        problem = f'its interface "{link}" has more than 15 characters: give it a shorter name'
    elif "protocol" not in settings:
        problem = f"tunnel.{name}.protocol is missing: gre or vxlan"
    elif settings["protocol"] == "gre" and not (settings.get("local") and settings.get("remote")):
        problem = f"GRE needs tunnel.{name}.local and tunnel.{name}.remote"
    elif settings["protocol"] == "vxlan" and bool(settings.get("remote")) > bool(
        settings.get("local")
    ):
        problem = f"tunnel.{name}.remote needs tunnel.{name}.local"
    elif settings["protocol"] == "vxlan" and not (
        settings.get("remote") or settings.get("interface")
    ):
        problem = f"multicast needs tunnel.{name}.interface: the interface that it goes out of"
    versions = {ip_address(settings[key]).version for key in ("local", "remote") if key in settings}
    if len(versions) > 1:
        problem = "local and remote are addresses of different IP versions"
    if problem:
        raise InvalidConfig(f'Invalid tunnel "{name}" of network "{network}": {problem}')
    return Tunnel(link, settings)


async def settle(network: Bridge, links: Netlink, interfaces: Interfaces, owner: str) -> None:
    """Make a network's tunnels what its config asks for, ports of its bridge. Raises Failed."""
    wanted = {each.link: each for each in of(network)}
    for found in made(network.name, interfaces, owner):
        tunnel = wanted.get(found.name)
        if tunnel is None or found.alias != _note(owner, network.name, tunnel.digest):
            await links.delete_link(found.name)
        else:
            del wanted[found.name]
            await _join(network, links, found.name)
    for tunnel in wanted.values():
        note = _note(owner, network.name, tunnel.digest)
        await links.make_tunnel(tunnel.link, tunnel.attributes(), note)
        await _join(network, links, tunnel.link)


async def _join(network: Bridge, links: Netlink, link: str) -> None:
    await links.set_link(link, mtu=network.mtu)
    await links.set_master(link, network.name)


async def remove(network: str, links: Netlink, interfaces: Interfaces, owner: str) -> None:
    """Take all tunnels of a network away. Raises Failed."""
    for found in made(network, interfaces, owner):
        await links.delete_link(found.name)


def made(network: str, interfaces: Interfaces, owner: str) -> list[Interface]:
    """Return the interfaces of tunnels that we have made for a network."""
    begin = _note(owner, network, "")
    return [each for each in interfaces.host(addresses=False) if each.alias.startswith(begin)]


def _note(owner: str, network: str, digest: str) -> str:
    return f"{owner}/tunnel/{network}/{digest}"
