"""The rows of what recovery has found. What is there already is not touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from msgspec import structs
from sqlalchemy.ext.asyncio import AsyncSession

from lxpy.db import images as image_queries
from lxpy.db import instances as instance_queries
from lxpy.db import networks as network_queries
from lxpy.db import pools as pool_queries
from lxpy.db import profiles as profile_queries
from lxpy.db import projects as project_queries
from lxpy.db import settings as setting_queries
from lxpy.db import volumes as volume_queries
from lxpy.db.base import now
from lxpy.db.rows import (
    ImageAliasRow,
    ImageRow,
    InstanceRow,
    InstanceSnapshotRow,
    NetworkAclRow,
    NetworkRow,
    PoolRow,
    ProfileRow,
    SettingRow,
    VolumeRow,
    VolumeSnapshotRow,
)
from lxpy.instances import idmaps
from lxpy.instances.devices import disk
from lxpy.instances.model import unique_name
from lxpy.services.instances import host
from lxpy.services.recovery import found
from lxpy.storage import ContentType, Pool, Volume, VolumeType

_POWER = "volatile.last_state.power"


@dataclass(slots=True)
class Commons:
    """What belongs to no pool."""

    settings: list[found.Setting] = field(default_factory=list)
    networks: list[found.Network] = field(default_factory=list)
    acls: list[found.NetworkAcl] = field(default_factory=list)
    profiles: list[found.Profile] = field(default_factory=list)
    images: list[found.Image] = field(default_factory=list)
    pools: list[found.Pool] = field(default_factory=list)


@dataclass(slots=True)
class Lost:
    """A volume on a pool that the database does not know, or not with all of its snapshots.

    `snapshots` are those that it does not know; `problem` is why it cannot be taken in.
    """

    pool: Pool
    volume: Volume
    project: str = "default"
    name: str = ""
    is_known: bool = False
    snapshots: list[str] = field(default_factory=list)
    instance: found.InstanceRecord | None = None
    custom: found.VolumeRecord | None = None
    profiles: list[found.Profile] = field(default_factory=list)
    problem: str = ""

    @property
    def record(self) -> bool:
        """Whether its config was found."""
        return self.instance is not None or self.custom is not None


@dataclass(slots=True)
class Plan:
    """What recovery has found: `usable` pools were looked at, `pools` are new, some were given."""

    commons: Commons = field(default_factory=Commons)
    usable: list[Pool] = field(default_factory=list)
    pools: list[tuple[Pool, str]] = field(default_factory=list)
    given: list[Pool] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ready(self) -> list[Lost]:
        """What can be taken in."""
        return [each for each in self.lost if not each.problem]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take in."""
        commons = self.commons
        more = (commons.settings, commons.networks, commons.acls, commons.profiles, commons.images)
        return not any((*more, self.pools, self.ready))


async def insert_commons(
    session: AsyncSession, commons: Commons, pools: Iterable[tuple[Pool, str]]
) -> None:
    """Insert pools, networks, profiles, images; settings where there are none."""
    for pool, description in pools:
        if await pool_queries.find(session, pool.name) is None:
            row = PoolRow(name=pool.name, driver=pool.driver, description=description)
            row.config = dict(pool.config)
            session.add(row)
    for network in commons.networks:
        if await network_queries.find(session, network.project, network.name) is None:
            session.add(NetworkRow(**structs.asdict(network)))
    for acl in commons.acls:
        if await network_queries.find_acl(session, acl.project, acl.name) is None:
            session.add(NetworkAclRow(**structs.asdict(acl)))
    for profile in commons.profiles:
        await _insert_profile(session, profile)
    if commons.settings and not await setting_queries.load(session):
        session.add_all(SettingRow(**structs.asdict(each)) for each in commons.settings)
    for image in commons.images:
        await _insert_image(session, image)


async def _insert_profile(session: AsyncSession, profile: found.Profile) -> None:
    if await profile_queries.find(session, profile.project, profile.name) is None:
        session.add(ProfileRow(**structs.asdict(profile)))
        await session.flush()


async def _insert_image(session: AsyncSession, image: found.Image) -> None:
    if await image_queries.find(session, image.project, image.fingerprint) is not None:
        return
    values = structs.asdict(image)
    del values["aliases"]
    row = ImageRow(**values)
    row.aliases = [
        ImageAliasRow(project=image.project, name=each.name, description=each.description)
        for each in image.aliases
        if await image_queries.alias(session, image.project, each.name) is None
    ]
    session.add(row)


async def insert(session: AsyncSession, plan: Plan, is_running: Callable[[str], bool]) -> None:
    """Insert instances, custom volumes, and snapshots of both.

    Ids of instances stay theirs, unless another has them. `is_running` takes unique names.
    """
    others = (idmaps.held(row.config) for row in await instance_queries.everything(session))
    taken = [each for each in others if each is not None]
    given = {pool.name for pool in plan.given}
    for lost in plan.ready:
        if lost.volume.type is VolumeType.CONTAINER:
            running = is_running(unique_name(lost.project, lost.name))
            moved = lost.pool.name in given and not running
            await _insert_instance(session, lost, taken, running=running, moved=moved)
        else:
            await _insert_volume(session, lost)


async def _insert_instance(
    session: AsyncSession,
    lost: Lost,
    taken: list[tuple[int, int]],
    *,
    running: bool,
    moved: bool,
) -> None:
    await project_queries.ensure(session, lost.project)
    row = await instance_queries.find(session, lost.project, lost.name)
    if row is not None:
        profiles = [each.profile.name for each in row.profiles]
    else:
        for profile in lost.profiles:
            await _insert_profile(session, profile)
        container = lost.instance.container if lost.instance else await _bare(session, lost)
        row = InstanceRow(type="container", profiles=[], stateful=False, **_columns(container))
        row.config = _settled(container.config, taken, running=running, moved=moved)
        session.add(row)
        await session.flush()
        profiles = container.profiles
        await instance_queries.assign(session, row, container.project, profiles)
        if (held := idmaps.held(row.config)) is not None:
            taken.append(held)
    recorded = found.by_name(lost.instance.snapshots) if lost.instance else {}
    for name in lost.snapshots:
        snapshot = recorded.get(name) or _bare_snapshot(name, row, profiles)
        session.add(InstanceSnapshotRow(instance_id=row.id, **structs.asdict(snapshot)))


def _columns(container: found.Container) -> dict[str, Any]:
    values = structs.asdict(container)
    del values["profiles"], values["config"]
    return values


def _settled(
    config: dict[str, str], taken: list[tuple[int, int]], *, running: bool, moved: bool
) -> dict[str, str]:
    """Return a recovered instance's config: its state as it is, ids only if they are free."""
    power = "RUNNING" if running else "STOPPED" if moved else config.get(_POWER, "STOPPED")
    settled = {**config, _POWER: power}
    held = idmaps.held(settled)
    if held is not None and not running and any(_overlap(held, each) for each in taken):
        return {k: v for k, v in settled.items() if not k.startswith("volatile.idmap.")}
    return settled


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


async def _bare(session: AsyncSession, lost: Lost) -> found.Container:
    """Return an instance without a record: with profile "default", and its root disk."""
    profile = await profile_queries.find(session, lost.project, "default")
    devices = profile.devices if profile is not None else {}
    roots = {each.get("pool") for each in devices.values() if disk.is_root(each)}
    root = {"root": {"type": "disk", "path": "/", "pool": lost.pool.name}}
    return found.Container(
        name=lost.name,
        project=lost.project,
        architecture=host.architecture(),
        config={"volatile.uuid": str(uuid4()), "volatile.cloud-init.instance-id": str(uuid4())},
        devices={} if roots == {lost.pool.name} else root,
        profiles=[] if profile is None else [profile.name],
    )


def _bare_snapshot(name: str, row: InstanceRow, profiles: list[str]) -> found.Snapshot:
    """Return a snapshot without a record: as the instance is."""
    return found.Snapshot(
        name=name,
        created_at=now(),
        config=dict(row.config),
        devices={device: dict(options) for device, options in row.devices.items()},
        profiles=profiles,
    )


async def _insert_volume(session: AsyncSession, lost: Lost) -> None:
    await project_queries.ensure(session, lost.project)
    row = await volume_queries.find(session, lost.pool.name, lost.project, lost.name)
    if row is None:
        pool = await pool_queries.find(session, lost.pool.name)
        assert pool is not None, "pools were inserted before"
        volume = lost.custom.volume if lost.custom else found.CustomVolume(name=lost.name)
        content = volume.content_type if lost.custom else str(lost.volume.content)
        values = structs.asdict(volume) | {"content_type": str(ContentType(content))}
        row = VolumeRow(pool_id=pool.id, **values)
        session.add(row)
        await session.flush()
    recorded = {each.name: each for each in lost.custom.volume_snapshots} if lost.custom else {}
    for name in lost.snapshots:
        snapshot = recorded.get(name) or found.VolumeSnapshot(name=name, config=dict(row.config))
        session.add(VolumeSnapshotRow(volume_id=row.id, **structs.asdict(snapshot)))
