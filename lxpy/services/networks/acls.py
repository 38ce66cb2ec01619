"""Network ACLs: made, changed, renamed, deleted; the networks that have them follow at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import UNSET

from lxpy.api import network_policies as api
from lxpy.db import networks as queries
from lxpy.db.engine import Database
from lxpy.db.rows import NetworkAclRow
from lxpy.errors import BadRequest, Conflict, Failed, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.instances.expand import merge_patch
from lxpy.instances.model import DEFAULT_PROJECT
from lxpy.networks import acllog, acls
from lxpy.networks.acls import Acl, Rule
from lxpy.networks.nic import words
from lxpy.services.locks import Locks
from lxpy.services.networks.wiring import Wiring
from lxpy.threads import in_thread

#: held by whoever changes ACLs, or which ones a network has; before any network's lock
LOCK = "network-acls"


class Acls:
    """All ACLs of this installation; kept in memory, as this daemon alone writes them."""

    def __init__(self, db: Database, wiring: Wiring, locks: Locks, lifecycle: Lifecycle) -> None:
        self._db = db
        self._wiring = wiring
        self._locks = locks
        self._lifecycle = lifecycle

    async def start(self) -> None:
        """Read them."""
        async with self._db.read() as session:
            rows = await queries.all_acls(session, DEFAULT_PROJECT)
        for row in rows:
            fields = {key: getattr(row, key) for key in _FIELDS}
            self._wiring.acls[row.name] = msgspec.convert(fields, Acl)

    def list(self) -> Sequence[api.Acl]:
        """Return all of them."""
        return [self._view(self._wiring.acls[name]) for name in sorted(self._wiring.acls)]

    def get(self, name: str) -> api.Acl:
        """Return one. Raises NotFound."""
        return self._view(self._acl(name))

    def writable(self, acl: api.Acl) -> object:
        """Return what the ETag of an ACL stands for."""
        return [acl.name, acl.description, acl.ingress, acl.egress, acl.config]

    async def create(self, wish: api.AclsPost) -> None:
        """Make one. Raises BadRequest, Conflict."""
        acls.check_name(wish.name)
        new = _acl(wish.name, wish)
        acls.validate(new, self._wiring.acls)
        async with self._locks.hold(LOCK):
            if wish.name in self._wiring.acls:
                raise Conflict("The network ACL already exists")
            async with self._db.write() as session:
                session.add(NetworkAclRow(project=DEFAULT_PROJECT, **_fields(new)))
            self._wiring.acls[new.name] = new
        self._tell("network-acl-created", new.name)

    async def put(self, name: str, wish: api.AclPut) -> None:
        """Replace one's writable part. Raises NotFound, BadRequest, Failed."""
        self._acl(name)
        await self._change(_acl(name, wish))

    async def patch(self, name: str, wish: api.AclPatch) -> None:
        """Change what is given. Raises as `put`."""
        old = self._acl(name)
        new = replace(
            old,
            description=old.description if wish.description is UNSET else wish.description,
            config=old.config if wish.config is UNSET else merge_patch(old.config, wish.config),
            ingress=old.ingress if wish.ingress is UNSET else _rules(wish.ingress),
            egress=old.egress if wish.egress is UNSET else _rules(wish.egress),
        )
        await self._change(new)

    async def _change(self, new: Acl) -> None:
        acls.validate(new, self._wiring.acls)
        async with self._locks.hold(LOCK):
            old = self._acl(new.name)
            for network in self._users(new.name):
                acls.check_usable(new, network)
            self._wiring.acls[new.name] = new
            try:
                await self._guard(new.name)
                async with self._db.write() as session:
                    row = await queries.find_acl(session, DEFAULT_PROJECT, new.name)
                    for key, value in _fields(new).items():
                        setattr(row, key, value)
            except BaseException:
                self._wiring.acls[new.name] = old
                await self._guard(new.name)
                raise
        self._tell("network-acl-updated", new.name)

    async def _guard(self, name: str) -> None:
        for network in self._users(name):
            async with self._locks.hold("network", network):
                await self._wiring.guard(self._wiring.networks[network])

    async def rename(self, name: str, new_name: str) -> None:
        """Rename one that nobody uses. Raises NotFound, BadRequest, Conflict."""
        acls.check_name(new_name)
        async with self._locks.hold(LOCK):
            old = self._acl(name)
            if new_name in self._wiring.acls:
                raise Conflict("An ACL by that name exists already")
            if self._used_by(name):
                raise BadRequest("Cannot rename an ACL that is in use")
            async with self._db.write() as session:
                row = await queries.find_acl(session, DEFAULT_PROJECT, name)
                if row is not None:
                    row.name = new_name
            del self._wiring.acls[name]
            self._wiring.acls[new_name] = replace(old, name=new_name)
        path = f"/1.0/network-acls/{new_name}"
        self._lifecycle.emit("network-acl-renamed", path, DEFAULT_PROJECT, {"old_name": name})

    async def delete(self, name: str) -> None:
        """Delete one that nobody uses. Raises NotFound, BadRequest."""
        async with self._locks.hold(LOCK):
            self._acl(name)
            if self._used_by(name):
                raise BadRequest("Cannot delete an ACL that is in use")
            async with self._db.write() as session:
                row = await queries.find_acl(session, DEFAULT_PROJECT, name)
                if row is not None:
                    await session.delete(row)
            del self._wiring.acls[name]
        self._tell("network-acl-deleted", name)

    async def log(self, name: str) -> str:
        """Return what logged rules have seen, a line for each packet. Raises NotFound, Failed."""
        self._acl(name)
        try:
            return await in_thread(acllog.read, name)
        except OSError as error:
            raise Failed(f"The kernel's log cannot be read: {error}") from error

    def _acl(self, name: str) -> Acl:
        try:
            return self._wiring.acls[name]
        except KeyError:
            raise NotFound("Network ACL not found") from None

    def _users(self, name: str) -> Sequence[str]:
        """Return the networks that have an ACL."""
        networks = self._wiring.networks.values()
        return [
            each.name for each in networks if name in words(each.config.get("security.acls", ""))
        ]

    def _used_by(self, name: str) -> Sequence[str]:
        others = self._wiring.acls.values()
        mentioned = [each.name for each in others if name in each.mentioned() - {each.name}]
        return [
            *(f"/1.0/networks/{each}" for each in self._users(name)),
            *(f"/1.0/network-acls/{each}" for each in mentioned),
        ]

    def _view(self, acl: Acl) -> api.Acl:
        fields = msgspec.to_builtins(acl) | {"used_by": self._used_by(acl.name)}
        return msgspec.convert(fields, api.Acl)

    def _tell(self, action: str, name: str) -> None:
        self._lifecycle.emit(action, f"/1.0/network-acls/{name}", DEFAULT_PROJECT)


_FIELDS = ("name", "description", "config", "ingress", "egress")


def _fields(acl: Acl) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(acl)
    return found


def _acl(name: str, wish: api.AclPut) -> Acl:
    return Acl(
        name, wish.description, dict(wish.config or {}), _rules(wish.ingress), _rules(wish.egress)
    )


def _rules(given: Sequence[api.AclRule] | None) -> tuple[Rule, ...]:
    found = []
    for each in given or ():
        fields = {key: value for key, value in msgspec.structs.asdict(each).items() if value}
        found.append(Rule(**{"action": "", "state": "enabled", **fields}))
    return tuple(found)
