"""Who uses what: URLs for `used_by`, from what the database says of instances and profiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db import instances, profiles, volumes
from lxpy.db.rows import InstanceRow, VolumeRow
from lxpy.events.lifecycle import url
from lxpy.instances.devices import disk
from lxpy.instances.expand import expand_devices

Devices = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class User:
    """An instance or a profile: its URL and the devices that count for it."""

    url: str
    project: str
    devices: Devices


@dataclass(frozen=True, slots=True)
class References:
    """All that may use pools and volumes, read in one transaction."""

    instances: Sequence[InstanceRow]
    volumes: Sequence[VolumeRow]
    users: list[User] = field(default_factory=list)

    def of_pool(self, pool: str) -> list[str]:
        """Return the URLs of what uses a pool, images aside."""
        own = [volume_url(pool, each.name, each.project) for each in self.of(pool)]
        return sorted(own + [each.url for each in self.users if pool in _pools(each.devices)])

    def of_volume(self, pool: str, project: str, name: str) -> list[str]:
        """Return the URLs of what uses a custom volume."""
        return sorted(
            each.url
            for each in self.users
            if each.project == project
            and any(disk.volume(device) == (pool, name) for device in each.devices.values())
        )

    def of(self, pool: str) -> list[VolumeRow]:
        """Return the custom volumes of a pool."""
        return [each for each in self.volumes if each.pool.name == pool]

    def rooted(self, pool: str) -> list[InstanceRow]:
        """Return the instances whose root disk is on a pool."""
        return [row for row in self.instances if _root_pool(expanded(row)) == pool]


def expanded(row: InstanceRow) -> Devices:
    """Return the devices of an instance, profiles' included."""
    return expand_devices([each.profile.devices for each in row.profiles], row.devices)


def instance_url(row: InstanceRow) -> str:
    """Return the URL of an instance."""
    return url(f"/1.0/instances/{quote(row.name, safe='')}", row.project)


def volume_url(pool: str, name: str, project: str, kind: str = "custom") -> str:
    """Return the URL of a volume."""
    path = f"/1.0/storage-pools/{quote(pool, safe='')}/volumes/{kind}/{quote(name, safe='')}"
    return url(path, project)


async def read(session: AsyncSession) -> References:
    """Read what uses pools and volumes: instances, profiles, custom volumes of all projects."""
    rows = await instances.everything(session)
    users = [User(instance_url(row), row.project, expanded(row)) for row in rows]
    for profile in await profiles.everything(session):
        path = url(f"/1.0/profiles/{quote(profile.name, safe='')}", profile.project)
        users.append(User(path, profile.project, profile.devices))
    return References(rows, await volumes.everything(session), users)


def _disks(devices: Devices) -> Iterable[Mapping[str, str]]:
    return (each for each in devices.values() if each.get("type") == "disk")


def _pools(devices: Devices) -> set[str]:
    return {each["pool"] for each in _disks(devices) if each.get("pool")}


def _root_pool(devices: Devices) -> str:
    return next((each.get("pool", "") for each in _disks(devices) if disk.is_root(each)), "")
