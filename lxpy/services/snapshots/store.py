"""The snapshots of instances, kept in memory as instances are: this daemon alone writes them.

Beside a thousand instances with thirty snapshots each the rest of the daemon is small, so that
what several snapshots of an instance have alike, they share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db import intents
from lxpy.db import snapshots as queries
from lxpy.db.engine import Database
from lxpy.errors import Conflict
from lxpy.instances.model import RootVolume, Snapshot

_SHARED = ("config", "devices", "profiles", "inherited_config", "inherited_devices")


class SnapshotStore:
    """All snapshots of all instances, by the instance's id and their name."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._snapshots: dict[int, dict[str, Snapshot]] = {}

    async def load(self, session: AsyncSession) -> None:
        """Read everything from the database, at start."""
        self._snapshots = {}
        for row in await queries.everything(session):
            mine = self._snapshots.setdefault(row["instance_id"], {})
            mine[row["name"]] = _snapshot(row, next(reversed(mine.values()), None))

    def of(self, instance_id: int) -> list[Snapshot]:
        """Return the snapshots of an instance, oldest first."""
        mine = self._snapshots.get(instance_id, {}).values()
        return sorted(mine, key=lambda each: (each.created_at, each.id))

    def find(self, instance_id: int, name: str) -> Snapshot | None:
        """Return the snapshot of that name, or None."""
        return self._snapshots.get(instance_id, {}).get(name)

    def names(self, instance_id: int) -> frozenset[str]:
        """Return the names of an instance's snapshots."""
        return frozenset(self._snapshots.get(instance_id, ()))

    def count(self, instance_id: int) -> int:
        """Return how many snapshots an instance has."""
        return len(self._snapshots.get(instance_id, ()))

    def expired(self, now: datetime) -> list[Snapshot]:
        """Return the snapshots whose time is over."""
        return [
            each
            for found in self._snapshots.values()
            for each in found.values()
            if each.expires_at is not None and each.expires_at <= now
        ]

    # Changes: committed before they are seen

    async def add(self, snapshot: Snapshot, *, ends: str) -> Snapshot:
        """Insert a snapshot; the intent `ends` is crossed out. Raises Conflict."""
        if self.find(snapshot.instance_id, snapshot.name) is not None:
            raise Conflict(f'This "instances_snapshots" entry already exists: "{snapshot.name}"')
        async with self._db.write() as session:
            kept = replace(snapshot, id=await queries.add(session, _values(snapshot)))
            await intents.end(session, ends)
        self._keep(kept)
        return kept

    async def insert(
        self, session: AsyncSession, instance_id: int, snapshots: Iterable[Snapshot]
    ) -> list[Snapshot]:
        """Insert the snapshots of a new instance in the running transaction.

        Once that is committed, `adopt` shows them.
        """
        found: list[Snapshot] = []
        for each in snapshots:
            new = replace(each, instance_id=instance_id)
            found.append(replace(new, id=await queries.add(session, _values(new))))
        return found

    def adopt(self, snapshots: Iterable[Snapshot]) -> None:
        """Show what `insert` has written."""
        for each in snapshots:
            self._keep(each)

    async def settle(
        self, session: AsyncSession, instance_id: int, snapshots: Iterable[Snapshot]
    ) -> list[Snapshot]:
        """Write the devices of an instance's snapshots in the running transaction; others go.

        Once that is committed, `forget` and `adopt` show it.
        """
        kept = list(snapshots)
        names = {each.name for each in kept}
        for each in self.of(instance_id):
            if each.name not in names:
                await queries.remove(session, each.id)
        for each in kept:
            values = _values(each)
            await queries.set_devices(session, each.id, values["devices"], values["data"])
        return kept

    async def set_expiry(self, snapshot: Snapshot, expires_at: datetime | None) -> None:
        """Give a snapshot another end."""
        async with self._db.write() as session:
            await queries.set_expiry(session, snapshot.id, expires_at)
        self._keep(replace(snapshot, expires_at=expires_at))

    async def write_on_volume(self, snapshot: Snapshot, volume: RootVolume) -> None:
        """Write something else on a snapshot's volume."""
        new = replace(snapshot, volume=volume)
        async with self._db.write() as session:
            await queries.set_data(session, new.id, _values(new)["data"])
        self._keep(new)

    async def rename(self, snapshot: Snapshot, name: str, *, ends: str) -> None:
        """Give a snapshot another name; the intent `ends` is crossed out. Raises Conflict."""
        if self.find(snapshot.instance_id, name) is not None:
            raise Conflict(f'Snapshot "{name}" already in use')
        async with self._db.write() as session:
            await queries.rename(session, snapshot.id, name)
            await intents.end(session, ends)
        del self._snapshots[snapshot.instance_id][snapshot.name]
        self._keep(replace(snapshot, name=name))

    async def remove(self, snapshot: Snapshot, *, ends: str) -> None:
        """Delete a snapshot's row; the intent `ends` is crossed out."""
        async with self._db.write(frees=True) as session:
            await queries.remove(session, snapshot.id)
            await intents.end(session, ends)
        found = self._snapshots.get(snapshot.instance_id, {})
        found.pop(snapshot.name, None)
        if not found:
            self.forget(snapshot.instance_id)

    def forget(self, instance_id: int) -> None:
        """Forget the snapshots of an instance whose row is gone: theirs went along."""
        self._snapshots.pop(instance_id, None)

    def _keep(self, snapshot: Snapshot) -> None:
        mine = self._snapshots.setdefault(snapshot.instance_id, {})
        last = next(reversed(mine.values()), snapshot)
        alike = {key: _shared(getattr(snapshot, key), getattr(last, key)) for key in _SHARED}
        mine[snapshot.name] = replace(snapshot, **alike)


def _shared(value: Any, other: Any) -> Any:
    """Return what another snapshot has if it is the same."""
    return other if other == value else value


def _values(snapshot: Snapshot) -> dict[str, Any]:
    """Return the columns of a row."""
    data = {
        "scheduled": snapshot.scheduled or None,
        "frozen_ms": snapshot.frozen_ms,
        "memory_bytes": snapshot.memory_bytes,
        "inherited_config": dict(snapshot.inherited_config) or None,
        "inherited_devices": dict(snapshot.inherited_devices) or None,
        "volume": snapshot.volume.stored() or None,
    }
    return {
        "instance_id": snapshot.instance_id,
        "name": snapshot.name,
        "created_at": snapshot.created_at,
        "expires_at": snapshot.expires_at,
        "last_used_at": snapshot.last_used_at,
        "description": snapshot.description,
        "stateful": snapshot.stateful,
        "ephemeral": snapshot.ephemeral,
        "config": dict(snapshot.config),
        "devices": {name: dict(device) for name, device in snapshot.devices.items()},
        "profiles": list(snapshot.profiles),
        "data": {key: value for key, value in data.items() if value is not None},
    }


def _snapshot(row: dict[str, Any], last: Snapshot | None) -> Snapshot:
    """Return the snapshot that a row describes; `last` is another one of its instance.

    Equal config and devices are shared already, see `queries.everything`.
    """
    data = row.pop("data")
    found = {
        "profiles": tuple(row.pop("profiles")),
        "inherited_config": data.get("inherited_config", {}),
        "inherited_devices": data.get("inherited_devices", {}),
    }
    if last is not None:
        found = {key: _shared(value, getattr(last, key)) for key, value in found.items()}
    return Snapshot(
        **row,
        **found,
        scheduled=bool(data.get("scheduled")),
        frozen_ms=data.get("frozen_ms"),
        memory_bytes=data.get("memory_bytes"),
        volume=RootVolume.read(data.get("volume", {})),
    )
