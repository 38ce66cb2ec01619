"""Forwards of networks: made, changed, deleted; what passes a network changes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import UNSET

from lxpy.api import network_policies as api
from lxpy.db import networks as queries
from lxpy.db.engine import Database
from lxpy.errors import BadRequest, Conflict, LxpyError, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.expand import merge_patch
from lxpy.instances.model import DEFAULT_PROJECT
from lxpy.networks import forwards
from lxpy.networks.forwards import Forward, ForwardPort
from lxpy.networks.keys import Bridge
from lxpy.services.locks import Locks
from lxpy.services.networks.nics import Network
from lxpy.services.networks.wiring import Wiring


class Forwards:
    """The forwards of all networks. They are part of their network's row."""

    def __init__(self, db: Database, wiring: Wiring, locks: Locks, lifecycle: Lifecycle) -> None:
        self._db = db
        self._wiring = wiring
        self._locks = locks
        self._lifecycle = lifecycle

    def list(self, network: str) -> Sequence[api.Forward]:
        """Return the forwards of a network. Raises NotFound, BadRequest."""
        found = self._network(network).forwards
        return [_view(each) for each in sorted(found, key=lambda each: each.listen_address)]

    def get(self, network: str, address: str) -> api.Forward:
        """Return one. Raises NotFound, BadRequest."""
        return _view(self._forward(self._network(network), address))

    def writable(self, forward: api.Forward) -> object:
        """Return what the ETag of a forward stands for."""
        return [forward.listen_address, forward.description, forward.config, forward.ports]

    async def create(self, network: str, wish: api.ForwardsPost) -> str:
        """Make one; return its address. Raises NotFound, BadRequest, Conflict, Failed."""
        async with self._locks.hold("network", network):
            old = self._network(network)
            bridge = Bridge(network, old.config)
            address = forwards.check_address(wish.listen_address, bridge)
            for each in self._wiring.networks.values():
                if any(known.listen_address == address for known in each.forwards):
                    raise Conflict(
                        "Failed creating forward: A forward for that listen address already exists"
                    )
            new = Forward(
                address, wish.description, dict(wish.config or {}), _ports(wish.ports or [])
            )
            forwards.validate(new, bridge)
            await self._store(old, replace(old, forwards=(*old.forwards, new)))
        self._tell("network-forward-created", network, address)
        return address

    async def put(self, network: str, address: str, wish: api.ForwardPut) -> None:
        """Replace one's writable part. Raises NotFound, BadRequest, Failed."""
        changes: dict[str, Any] = {
            "description": wish.description,
            "config": dict(wish.config or {}),
            "ports": _ports(wish.ports or []),
        }
        await self._change(network, address, changes)

    async def patch(self, network: str, address: str, wish: api.ForwardPatch) -> None:
        """Change what is given. Raises as `put`."""
        old = self._forward(self._network(network), address)
        changes: dict[str, Any] = {}
        if wish.description is not UNSET:
            changes["description"] = wish.description
        if wish.config is not UNSET:
            changes["config"] = merge_patch(old.config, wish.config)
        if wish.ports is not UNSET:
            changes["ports"] = _ports(wish.ports or [])
        await self._change(network, address, changes)

    async def _change(self, network: str, address: str, changes: dict[str, Any]) -> None:
        async with self._locks.hold("network", network):
            old = self._network(network)
            forward = self._forward(old, address)
            new = replace(forward, **changes)
            forwards.validate(new, Bridge(network, old.config))
            kept = tuple(new if each is forward else each for each in old.forwards)
            await self._store(old, replace(old, forwards=kept))
        self._tell("network-forward-updated", network, address)

    async def delete(self, network: str, address: str) -> None:
        """Delete one. Raises NotFound, BadRequest, Failed."""
        async with self._locks.hold("network", network):
            old = self._network(network)
            gone = self._forward(old, address)
            kept = tuple(each for each in old.forwards if each is not gone)
            await self._store(old, replace(old, forwards=kept))
        self._tell("network-forward-deleted", network, address)

    async def _store(self, old: Network, new: Network) -> None:
        """Let a network's new forwards pass, and keep them; or leave everything as it was."""
        try:
            await self._wiring.guard(new)
            async with self._db.write() as session:
                row = await queries.find(session, DEFAULT_PROJECT, new.name)
                if row is not None:
                    row.forwards = list(msgspec.to_builtins(new.forwards))
        except BaseException:
            await self._wiring.guard(old)
            raise
        self._wiring.networks[new.name] = new

    def _network(self, name: str) -> Network:
        try:
            found = self._wiring.networks[name]
        except KeyError:
            raise NotFound("Failed loading network: Network not found") from None
        if found.type != "bridge":
            raise BadRequest(f'Network driver "{found.type}" does not support forwards')
        return found

    def _forward(self, network: Network, address: str) -> Forward:
        for each in network.forwards:
            if each.listen_address == address:
                return each
        raise NotFound("Network forward not found")

    def _tell(self, action: str, network: str, address: str) -> None:
        path = f"/1.0/networks/{network}/forwards/{address}"
        self._lifecycle.emit(action, path, DEFAULT_PROJECT)


def check_kept(network: Network) -> None:
    """Raise BadRequest when a network's forwards do not fit its config any more."""
    bridge = Bridge(network.name, network.config)
    for each in network.forwards:
        try:
            forwards.check_address(each.listen_address, bridge)
            forwards.validate(each, bridge)
        except LxpyError as error:
            raise BadRequest(
                f"Network forward {each.listen_address} does not fit: {error}; delete it first"
            ) from error


def _ports(given: Sequence[api.ForwardPort]) -> tuple[ForwardPort, ...]:
    return tuple(msgspec.convert(msgspec.to_builtins(each), ForwardPort) for each in given)


def _view(forward: Forward) -> api.Forward:
    return msgspec.convert(msgspec.to_builtins(forward), api.Forward)
