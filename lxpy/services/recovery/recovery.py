"""Recovery: what lies on storage pools and is not in the database is found and taken in again.

Nothing that the database knows is changed. Once rows are written the daemon begins anew, and
takes over what runs as after any other end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lxpy.api import recover as api
from lxpy.api.storage import PoolsPost
from lxpy.db import images as image_queries
from lxpy.db import networks as network_queries
from lxpy.db import profiles as profile_queries
from lxpy.db import volumes as volume_queries
from lxpy.db.engine import Database
from lxpy.db.safety import State
from lxpy.errors import BadRequest, Conflict, LxpyError, NotFound, Unavailable
from lxpy.instances import devices as device_rules
from lxpy.instances.devices import disk
from lxpy.instances.expand import expand_devices
from lxpy.instances.model import DEFAULT_PROJECT, split_unique_name
from lxpy.operations.registry import Registry
from lxpy.services.directories import Directories
from lxpy.services.instances.store import InstanceStore
from lxpy.services.journal import Journal
from lxpy.services.projects.profiles import Profiles
from lxpy.services.recovery import found, rows
from lxpy.services.recovery.records import CONTAINERS, CUSTOM, DIRECTORY, POOL_FILE
from lxpy.services.recovery.rows import Commons, Lost, Plan
from lxpy.services.server.care import Care
from lxpy.services.storage.pools import Pools
from lxpy.storage import Pool, Volume, VolumeType
from lxpy.threads import in_thread

_NO_RECORD = (
    "it has no record: with --bare it is taken in with the default profile and no config of its own"
)


@dataclass(slots=True)
class _Known:
    """What the database has."""

    volumes: dict[tuple[str, str, str], frozenset[str]] = field(default_factory=dict)
    profiles: dict[str, found.Profile] = field(default_factory=dict)
    networks: set[str] = field(default_factory=set)
    acls: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)


class Recovery:
    """Finds and takes in. `begin_anew` ends this daemon for its successor."""

    def __init__(
        self,
        *,
        db: Database,
        directories: Directories,
        pools: Pools,
        store: InstanceStore,
        journal: Journal,
        profiles: Profiles,
        care: Care,
        registry: Registry,
        is_running: Callable[[str], bool],
        begin_anew: Callable[[], None],
    ) -> None:
        self._db = db
        self._directories = directories
        self._pools = pools
        self._store = store
        self._journal = journal
        self._profiles = profiles
        self._care = care
        self._registry = registry
        self._is_running = is_running
        self._begin_anew = begin_anew

    async def validate(self, wish: api.RecoverPost) -> api.Found:
        """Return what `take_in` would take in. Raises Unavailable while the database is damaged."""
        self._check_readable()
        plan = await self._plan(wish)
        for pool in plan.given:
            await self._pools.storage.stop(pool)
        return self._describe(plan)

    async def take_in(self, wish: api.RecoverPost) -> api.Found:
        """Take in what can be, and begin anew; what cannot be is in the answer.

        Raises Conflict while operations run, Unavailable while the database is damaged.
        """
        self._check_readable()
        self._check_idle()
        plan = await self._plan(wish)
        answer = self._describe(plan)
        if not plan.is_empty:
            async with self._db.write() as session:
                await rows.insert_commons(session, plan.commons, plan.pools)
            if any(not each.record for each in plan.ready):
                await self._profiles.ensure_default(
                    plan.ready[0].pool.name, self._directories.bridge
                )
            async with self._db.write() as session:
                await rows.insert(session, plan, self._is_running)
        if not plan.is_empty or not self._care.is_sound:
            await self._care.recovered()
            self._begin_anew()
        return answer

    async def start_over(self) -> None:
        """Begin without what was lost; it stays where it is. Raises BadRequest, Unavailable."""
        self._check_readable()
        if self._care.is_sound:
            raise BadRequest("The database is sound: there is nothing to start over from")
        await self._care.recovered()
        self._begin_anew()

    async def replace_database(self) -> api.Replaced:
        """Put what is sound in the place of the database, and begin anew.

        Raises BadRequest when nothing is wrong with it, Failed.
        """
        if self._care.condition.state not in (State.DAMAGED, State.LOST):
            raise BadRequest("The database is not damaged: it stays as it is")
        done = await self._care.replace()
        self._begin_anew()
        return api.Replaced(path=str(done.path or ""), made_at=done.made_at)

    def _check_readable(self) -> None:
        if self._care.condition.state is State.DAMAGED:
            raise Unavailable(self._care.reason)

    def _check_idle(self) -> None:
        for each in self._registry.listed(None):
            if each.session is None and not each.status.is_final:
                raise Conflict(
                    f'"{each.description}" is under way: wait for its end, or cancel it (lxpy '
                    "operation list)"
                )

    # Looking

    async def _plan(self, wish: api.RecoverPost) -> Plan:
        plan = Plan()
        known = await self._known()
        plan.commons = await self._commons(known, plan)
        await self._find_pools(wish.pools or [], plan)
        under_way = {(each.project, each.name) for each in await self._journal.unfinished()}
        for pool in plan.usable:
            for volume in await self._pools.storage.volumes(pool):
                lost = await self._look_at(pool, volume, known, plan)
                if lost is not None and (lost.project, lost.name) not in under_way:
                    plan.lost.append(lost)
        for lost in plan.lost:
            if not lost.problem and not lost.record and not lost.is_known and not wish.bare:
                lost.problem = _NO_RECORD
        return plan

    async def _known(self) -> _Known:
        known = _Known(images=set())
        snapshots = self._store.snapshots
        for each in self._store.listed():
            key = (VolumeType.CONTAINER, each.project, each.name)
            known.volumes[key] = snapshots.names(each.id)
        async with self._db.read() as session:
            of_volumes = await volume_queries.all_snapshots(session)
            for row in await volume_queries.everything(session):
                names = frozenset(each.name for each in of_volumes.get(row.id, []))
                known.volumes[row.pool.name, row.project, row.name] = names
            for profile in await profile_queries.everything(session):
                known.profiles[profile.name] = found.Profile(
                    name=profile.name, config=profile.config, devices=profile.devices
                )
            known.networks = {
                each.name for each in await network_queries.all_of(session, DEFAULT_PROJECT)
            }
            acls = await network_queries.all_acls(session, DEFAULT_PROJECT)
            known.acls = {each.name for each in acls}
            known.images = await image_queries.fingerprints(session)
        return known

    async def _commons(self, known: _Known, plan: Plan) -> Commons:
        """Return what the installation's own records have and the database has not."""
        top = self._directories.records

        def read() -> Commons:
            return Commons(
                settings=list(found.load_all(top / "settings.yaml", found.Setting)),
                networks=list(found.load_all(top / "networks.yaml", found.Network)),
                acls=list(found.load_all(top / "network_acls.yaml", found.NetworkAcl)),
                profiles=list(found.load_all(top / "profiles.yaml", found.Profile)),
                images=[
                    each
                    for each in found.load_all(top / "images.yaml", found.Image)
                    if any(self._directories.images.glob(f"{each.fingerprint}*"))
                ],
                pools=list(found.load_all(top / "storage_pools.yaml", found.Pool)),
            )

        try:
            everything = await in_thread(read)
        except BadRequest as error:
            plan.problems.append(str(error))
            everything = Commons()
        return Commons(
            settings=[] if self._care.is_sound else everything.settings,
            networks=[each for each in everything.networks if each.name not in known.networks],
            acls=[each for each in everything.acls if each.name not in known.acls],
            profiles=[each for each in everything.profiles if each.name not in known.profiles],
            images=[each for each in everything.images if each.fingerprint not in known.images],
            pools=everything.pools,
        )

    async def _find_pools(self, given: Sequence[PoolsPost], plan: Plan) -> None:
        """Find the pools to look on, started: known ones, recorded ones, given ones."""
        usable = self._pools.usable()
        plan.usable += usable.values()
        names = self._pools.names()
        for each in await in_thread(self._unknown_pools, plan.commons.pools):
            if each.name not in names:
                await self._add_pool(each, plan)
                names.add(each.name)
        for wish in given:
            if wish.name in names:
                continue
            try:
                config = self._pools.storage.fill(wish.name, wish.driver, wish.config or {})
            except LxpyError as error:
                plan.problems.append(f'Storage pool "{wish.name}": {error}')
                continue
            pool = found.Pool(
                name=wish.name, driver=wish.driver, description=wish.description, config=config
            )
            if (started := await self._add_pool(pool, plan)) is not None:
                plan.given.append(started)

    def _unknown_pools(self, recorded: Sequence[found.Pool]) -> list[found.Pool]:
        """Return recorded pools, and those that lie in the installation's own directory."""
        pools = {each.name: each for each in recorded}
        for directory in sorted(self._directories.pools.iterdir()):
            if directory.name in pools or not directory.is_dir():
                continue
            try:
                pool = found.load(directory / DIRECTORY / POOL_FILE, found.Pool)
            except BadRequest:
                pool = None  # its record is of no use: it is looked at as what it seems to be
            if pool is None and (directory / CONTAINERS).is_dir():
                pool = found.Pool(
                    name=directory.name, driver="dir", config={"source": str(directory)}
                )
            if pool is not None:
                pools[pool.name] = pool
        return list(pools.values())

    async def _add_pool(self, each: found.Pool, plan: Plan) -> Pool | None:
        storage = self._pools.storage
        try:
            storage.validate(each.driver, each.config)
            pool = storage.pool(each.name, each.driver, each.config)
            await storage.start(pool)
        except (LxpyError, OSError) as error:
            plan.problems.append(f'Storage pool "{each.name}" cannot be used: {error}')
            return None
        plan.usable.append(pool)
        plan.pools.append((pool, each.description))
        return pool

    async def _look_at(self, pool: Pool, volume: Volume, known: _Known, plan: Plan) -> Lost | None:
        """Return what the database does not know of a volume, None when it knows all."""
        area = CONTAINERS if volume.type is VolumeType.CONTAINER else CUSTOM
        lost = Lost(pool, volume)
        try:
            snapshots = await self._pools.storage.snapshots(pool, volume)
            if area == CONTAINERS:
                await in_thread(self._read_instance, lost)
            else:
                await in_thread(self._read_volume, lost)
        except (LxpyError, OSError) as error:
            snapshots, lost.problem = [], str(error)
        key = (VolumeType.CONTAINER if area == CONTAINERS else pool.name, lost.project, lost.name)
        lost.is_known = key in known.volumes
        lost.snapshots = [each for each in snapshots if each not in known.volumes.get(key, ())]
        if lost.is_known and not lost.snapshots:
            return None
        if lost.instance is not None and not lost.problem:
            self._check(lost, known, plan.commons)
        if lost.is_known and area == CONTAINERS:
            self._check_same(lost)
        return lost

    def _read_instance(self, lost: Lost) -> None:
        unique = lost.volume.directory_name
        lost.project, lost.name = split_unique_name(unique)
        path = lost.pool.path / DIRECTORY / CONTAINERS / f"{unique}.yaml"
        lost.instance = found.load(path, found.InstanceRecord)
        if lost.instance is not None:
            found.check_instance(lost.instance.container)

    def _read_volume(self, lost: Lost) -> None:
        unique = lost.volume.directory_name
        lost.project, lost.name = DEFAULT_PROJECT, unique
        top = lost.pool.path / DIRECTORY / CUSTOM
        for stem in (f"{DEFAULT_PROJECT}_{unique}", unique):
            lost.custom = found.load(top / f"{stem}.yaml", found.VolumeRecord)
            if lost.custom is not None:
                lost.project, lost.name = lost.custom.volume.project, lost.custom.volume.name
                return

    def _check(self, lost: Lost, known: _Known, commons: Commons) -> None:
        """Note why an instance cannot be taken in as its record says."""
        assert lost.instance is not None
        container = lost.instance.container
        if (container.project, container.name) != (lost.project, lost.name):
            lost.problem = f'its record is of an instance "{container.name}"'
            return
        recorded = {each.name: each for each in lost.instance.profiles}
        recorded |= {each.name: each for each in commons.profiles} | known.profiles
        missing = [each for each in container.profiles if each not in recorded]
        if missing:
            lost.problem = f'its profile "{missing[0]}" is missing: make one of that name'
            return
        used = [recorded[each] for each in container.profiles]
        lost.profiles = [each for each in used if each.name not in known.profiles]
        expanded = expand_devices([each.devices for each in used], container.devices)
        lost.problem = self._missing(expanded, lost.pool.name, known, commons)

    def _missing(
        self, expanded: Mapping[str, Mapping[str, str]], pool: str, known: _Known, commons: Commons
    ) -> str:
        try:
            device_rules.validate(expanded, expanded=True, instance="recovered")
        except LxpyError as error:
            return str(error)
        roots = {each.get("pool", "") for each in expanded.values() if disk.is_root(each)}
        if roots != {pool}:
            return f'its root disk is in storage pool "{", ".join(sorted(roots))}"'
        networks = known.networks | {each.name for each in commons.networks}
        networks.add(self._directories.bridge)  # which each start makes
        for each in expanded.values():
            if (name := each.get("network", "")) and name not in networks:
                return f'its network "{name}" is missing: make one of that name'
        return ""

    def _check_same(self, lost: Lost) -> None:
        """Note that an instance of that name is another one."""
        try:
            instance = self._store.get(lost.project, lost.name)
        except NotFound:
            return
        if instance.root_device[1].get("pool") != lost.pool.name:
            place = instance.root_device[1].get("pool")
            lost.problem = f'an instance of that name is in storage pool "{place}": rename that one'

    # Telling

    def _describe(self, plan: Plan) -> api.Found:
        volumes = [
            api.UnknownVolume(
                name=each.name,
                type=str(each.volume.type),
                snapshot_count=len(each.snapshots),
                project=each.project,
                pool=each.pool.name,
                snapshots=each.snapshots,
                record=each.record,
                problem=each.problem,
            )
            for each in plan.lost
        ]
        problems = [
            f'{each.volume.type} volume "{each.name}" of storage pool "{each.pool.name}": '
            f"{each.problem}"
            for each in plan.lost
            if each.problem and each.record
        ]
        return api.Found(
            unknown_volumes=volumes,
            dependency_errors=[*plan.problems, *problems],
            pools=[
                PoolsPost(
                    name=pool.name, driver=pool.driver, config=dict(pool.config), description=text
                )
                for pool, text in plan.pools
            ],
            networks=[each.name for each in plan.commons.networks],
            profiles=[each.name for each in plan.commons.profiles],
            images=[each.fingerprint for each in plan.commons.images],
            condition=self._care.reason,
        )
